"""Vision transformer for 2D and 3D inputs: per-input patch embeddings, one shared stack of timm blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._pool import summarised
from core.encoders._prepare import prepared, reading
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.errors import ConfigError
from core.patch_embed import patch_embed
from core.plan import Plan
from core.pos_embed import batch_positions, grid_positions, resample_table
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class ViTSpec(EncoderSpec):
    """Describe a ViT (Dosovitskiy et al. 2020, arXiv 2010.11929), pre-norm, GELU, class token, as MAE builds it.

    Deviations: several inputs of either rank share the blocks (Uni4Eye, Cai et al. 2022, arXiv 2203.04614, 3.1);
    positions are computed from grid and spacing unless a table is stored.

    Attributes:
        contract: the inputs it reads.
        width: D.
        depth: blocks.
        heads: attention heads, dividing `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016, arXiv 1603.09382).
        class_token: prepend one learned token.
        tables: token grid of a stored position table, per input name; an input that is absent computes its positions.
        train_tables: let the optimiser change stored tables.
    """

    contract: Contract
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    class_token: bool = True
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    train_tables: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"expected an even width that the heads divide, got {self.width} and {self.heads} heads.")
        unknown = set(self.tables) - {entry.name for entry in self.contract.inputs}
        if unknown:
            raise ConfigError(f"expected position tables for inputs of the contract, got tables for {sorted(unknown)}.")

    def build(self) -> ViT:
        """Make the module, initialised as MAE does: Xavier uniform, zero biases, tokens of deviation 0.02."""
        return ViT(self)


class ViT(Backbone):
    """The module; see `ViTSpec`. Level i is the output of block i, counted from 1."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"drop", "token", "dense", "levels", "attention"})

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.spec: ViTSpec = spec
        self.num_features, self.num_levels = spec.width, spec.depth
        self.stems = nn.ModuleDict({entry.name: patch_embed(entry, spec.width) for entry in spec.contract.inputs})
        self.class_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02) if spec.class_token else None
        self.tables = nn.ParameterDict()
        for entry in spec.contract.inputs:
            if entry.name in spec.tables:
                grid = Grid(spec.tables[entry.name], entry.patch, entry.groups)
                prefix = torch.zeros(1, int(spec.class_token), spec.width)
                places = grid_positions(grid.plain, spec.width).repeat(1, grid.num_groups, 1)
                self.tables[entry.name] = nn.Parameter(torch.cat([prefix, places], 1), requires_grad=spec.train_tables)
        self.blocks = make_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio, spec.drop_path)
        self.norm = LAYER_NORM(spec.width)

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def level_width(self, level: int) -> int:
        """D, at every level."""
        return self.spec.width

    def level_grid(self, level: int, grid: Grid) -> Grid:
        """The same grid at every level."""
        return grid

    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        """Normalise, order bands by name, and name the input; errors as `core.encoders._prepare.prepared`."""
        return prepared(self.contract, batch)

    def forward(
        self,
        batch: Batch,
        plan: Plan | None = None,
        *,
        mask_token: Tensor | None = None,
        stage: int = 0,
        levels: tuple[int, ...] = (),
        attention: bool = False,
    ) -> Tokens:
        """Encode; hidden and invalid patches are never read, nor are the padded slots of ragged samples.

        Raises:
            ConfigError: attention of a class token that it lacks.
        """
        if attention and self.class_token is None:
            raise ConfigError(
                "expected an encoder with a class token for attention: set --recipe.encoder.class_token=true."
            )
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        read = reading(batch, grid, plan, mask_token, stage)
        index, ok, count = read.index, read.ok, int(self.spec.class_token)
        prefix_position, position = self._positions(entry, grid, batch)
        tokens = read.replaced(self.stems[entry.name](batch, index), 0, level=0)
        if index is not None:
            position = position.expand(len(batch), -1, -1)
            position = position.gather(1, index[..., None].expand(-1, -1, position.shape[2]))
        tokens = tokens + position
        if ok is not None:
            tokens = torch.where(ok[..., None], tokens, 0.0)  # a padded slot holds nothing, not a hidden patch
        if self.class_token is not None:
            head = (self.class_token + prefix_position).expand(len(batch), -1, -1)
            tokens = torch.cat([head.to(tokens.dtype), tokens], dim=1)

        keys, inner, seen = key_mask(ok, count), {}, None
        for number, block in enumerate(self.blocks, start=1):
            if attention and number == len(self.blocks):
                seen = class_attention(block, tokens, keys)[..., count:]
            tokens = read.replaced(block(tokens, attn_mask=keys), count, level=number)
            if number in levels:
                inner[number] = Tokens(tokens[:, count:], ok, tokens[:, :count], grid, index is None)
        normed = self.norm(tokens)
        return Tokens(normed[:, count:], ok, normed[:, :count], grid, index is None, inner, seen)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`, errors at `core.encoders._pool.pooled`."""
        return summarised(self, self.norm, batch, pool)

    def _positions(self, entry: Input, grid: Grid, batch: Batch) -> tuple[Tensor | float, Tensor]:
        """Of the prefix and of every token, (1 or B, N, D)."""
        if entry.name not in self.tables:
            places = batch_positions(batch, entry, grid, self.spec.width)
            return 0.0, places.repeat(1, grid.num_groups, 1)
        table, count = self.tables[entry.name], int(self.spec.class_token)
        groups = table[:, count:].reshape(grid.num_groups, -1, self.spec.width)
        have = self.spec.tables[entry.name]
        places = torch.cat([resample_table(group[None], have, grid.tokens) for group in groups], dim=1)
        return table[:, :count], places


LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # MAE and all its descendants


def make_blocks(width: int, depth: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> nn.ModuleList:
    """Build the stack of pre-norm blocks that encoder and predictor share in kind, initialised as MAE does."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    blocks = nn.ModuleList(
        Block(width, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=LAYER_NORM)  # type: ignore[arg-type]
        for rate in rates
    )
    blocks.apply(init_linear)
    return blocks


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer with Xavier uniform weights and zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def key_mask(ok: Tensor | None, prefix: int) -> Tensor | None:
    """Say which of R + V tokens serve as keys, (B, 1, 1, R + V) bool: the prefix and what is ok (B, V); None = all."""
    if ok is None:
        return None
    keys = torch.cat([ok.new_ones(len(ok), prefix), ok], dim=1)
    keys = keys | ~keys.any(dim=1, keepdim=True)  # a sample without any key attends to its zeros, not to NaN
    return keys[:, None, None, :]


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, ok: Tensor | None) -> Tensor:
    """Run tokens (B, R + V, D) through blocks; of the last V only those that are `ok` (B, V) serve as keys."""
    mask = key_mask(ok, 0 if ok is None else tokens.shape[1] - ok.shape[1])
    for block in blocks:
        tokens = block(tokens, attn_mask=mask)
    return tokens


def class_attention(block: nn.Module, tokens: Tensor, keys: Tensor | None) -> Tensor:
    """Compute how much the first token attends to each in a block that is about to read them, (B, heads, R + V)."""
    attention: Any = block.attn
    batch, length, _ = tokens.shape
    qkv = attention.qkv(block.norm1(tokens))  # type: ignore[operator]
    query, key, _ = qkv.reshape(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    weights = (query * attention.scale) @ key.transpose(-2, -1)
    if keys is not None:
        weights = weights.masked_fill(~keys, -torch.inf)
    shares: Tensor = weights.softmax(dim=-1)[:, :, 0].to(torch.float32)
    return shares
