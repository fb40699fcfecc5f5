"""A small BERT that reads a text with holes beside what an image encoder saw, and says which pieces are missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import ConfigError, ShapeError
from core.text.vocabulary import PAD

_EPS = 1e-12  # of BERT's layer norms


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """Describe the text branch: BERT (Devlin et al. 2018, arXiv 1810.04805), post-norm, GELU, as small as MRM's.

    Deviations: no dropout, since every draw of a step is a sample's own; no segments, which reports have none of; no
    pooled output, which nothing reads.

    Attributes:
        tokenizer: path of the `tokenizer.json` that cut the texts; its size, special and continuing pieces count.
        width: D of a piece.
        depth: blocks.
        heads: attention heads, dividing `width`.
        inner: width inside the MLP of a block.
        length: longest text, in pieces.
        tied: the output layer is the word embedding, as BERT's; MRM's code makes a second one, so its weights need False.
    """

    tokenizer: str = ""
    width: int = 384
    depth: int = 6
    heads: int = 6
    inner: int = 1536
    length: int = 100
    tied: bool = True

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.inner, self.length) < 1 or self.width % self.heads:
            raise ConfigError(
                f"expected sizes of 1 or more and a text width that the heads divide, got width {self.width}, depth "
                f"{self.depth}, {self.heads} heads, inner {self.inner} and length {self.length}."
            )


class TextModel(nn.Module):
    """The module; see `TextSpec`.

    Attributes:
        words: one vector per piece.
        positions: (length, D).
        output: (K, D), weights of the output layer; None = those of `words`.
    """

    def __init__(self, spec: TextSpec, num_pieces: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_pieces, spec.width, padding_idx=PAD)
        self.positions = nn.Parameter(torch.randn(spec.length, spec.width) * 0.02)
        self.norm = nn.LayerNorm(spec.width, eps=_EPS)
        self.blocks = nn.ModuleList(TextBlock(spec.width, spec.heads, spec.inner) for _ in range(spec.depth))
        self.head = nn.Sequential(nn.Linear(spec.width, spec.width), nn.GELU(), nn.LayerNorm(spec.width, eps=_EPS))
        self.output = None if spec.tied else nn.Parameter(torch.randn(num_pieces, spec.width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(num_pieces))
        self.apply(_init)

    def forward(self, ids: Tensor, vector: Tensor) -> Tensor:
        """Read texts (B, T), padded with 0, each beside a vector (B, D) that is added to every piece; gives (B, T, D).

        Raises:
            ShapeError: a text is longer than the positions.
        """
        if ids.shape[1] > len(self.positions):
            raise ShapeError(
                f"expected texts of at most {len(self.positions)} pieces, got {ids.shape[1]}: cut them, or raise the text "
                "branch's length."
            )
        keys = ids != PAD
        keys = keys | ~keys.any(dim=1, keepdim=True)  # without a text there is nothing to read, but NaN neither
        state: Tensor = self.norm(self.words(ids) + self.positions[: ids.shape[1]]) + vector[:, None]
        for block in self.blocks:
            state = block(state, keys[:, None, None])
        return state

    def logits(self, state: Tensor) -> Tensor:
        """Score every piece of the vocabulary, (..., D) to (..., K)."""
        weight = self.words.weight if self.output is None else self.output
        return functional.linear(self.head(state), weight, self.bias)


class TextBlock(nn.Module):
    """Attention and MLP, each added to what it read and normed afterwards."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)

    def forward(self, state: Tensor, keys: Tensor) -> Tensor:
        """Compute (B, T, D); `keys` (B, 1, 1, T) bool says which pieces are attended to."""
        query, key, value = self.qkv(state).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        state = self.norm1(state + self.project(read.transpose(1, 2).flatten(2)))
        state = self.norm2(state + self.narrow(functional.gelu(self.widen(state))))
        return state


def _init(module: nn.Module) -> None:
    """Initialise as BERT does: normal weights of deviation 0.02, zero biases, a zero vector for padding."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        with torch.no_grad():
            module.weight[PAD].zero_()
