"""Cross-attention: questions about places that were hidden look at the tokens that were seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.encoders.vit import LAYER_NORM, init_linear, key_mask
from core.plan import Plan, spread, visible_index
from core.pos_embed import batch_positions
from core.predictors._checks import check_apart, check_width
from core.predictors.base import PredictorSpec

Memory = tuple[Tokens, Tensor, Batch]
"""Tokens of another view, which of its grid they are, (B, N) bool, and its prepared batch."""


@dataclass(frozen=True, kw_only=True)
class CrossAttentionSpec(PredictorSpec):
    """Describe a cross-attention predictor.

    Source: Latent MIM (Wei et al. 2024, arXiv 2407.15837, 3.4: `hidden`, `mean`, self-attention, 3 blocks of width 512);
    CAE's regressor (Chen et al. 2022, arXiv 2202.03026, 3.1: `hidden`, `learned`, no self-attention, 4 blocks); CroCo
    (Weinzaepfel et al. 2022, arXiv 2210.10716, 3.2: `all`, `learned`, self-attention, 8 blocks, another view's memory).

    Deviations: no class token among the questions; invalid tokens are no keys; any rank, with positions from grid and
    spacing; a learned vector says which band group a place belongs to, and each group has its own output layer.

    Attributes:
        width: of its own tokens.
        depth: blocks.
        heads: attention heads, dividing `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        queries: `hidden`: only hidden places ask, and only they are computed; `all`: every place asks, seen ones beginning
            with their own token.
        start: what a hidden place begins with: a `learned` token, or to it added the `mean` of the seen tokens, weighted
            by how near they are: softmax of the product of positions.
        self_attention: questions also look at each other.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    queries: Literal["hidden", "all"] = "hidden"
    start: Literal["learned", "mean"] = "mean"
    self_attention: bool = True

    def __post_init__(self) -> None:
        check_width(self.width, self.heads, self.depth)

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """None: it reads what the encoder returns."""
        return ()

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> CrossAttentionPredictor:
        """Make the module with fresh weights.

        Raises:
            ConfigError: the encoder merges tokens.
        """
        check_apart(encoder)
        return CrossAttentionPredictor(self, encoder, num_values)


class CrossAttentionPredictor(nn.Module):
    """The module; see `CrossAttentionSpec`."""

    def __init__(self, spec: CrossAttentionSpec, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        self.spec, self.contract = spec, encoder.contract
        self.embed = nn.Linear(encoder.num_features, spec.width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02)
        self.groups, self.heads = nn.ParameterDict(), nn.ModuleDict()
        for entry in self.contract.inputs:
            if entry.groups:
                self.groups[entry.name] = nn.Parameter(torch.randn(len(entry.groups), spec.width) * 0.02)
            self.heads[entry.name] = nn.ModuleList(
                nn.Linear(spec.width, num_values[entry.name]) for _ in range(entry.grid().num_groups)
            )
        self.blocks = nn.ModuleList(
            CrossBlock(spec.width, spec.heads, spec.mlp_ratio, spec.self_attention) for _ in range(spec.depth)
        )
        self.norm = LAYER_NORM(spec.width)
        self.apply(init_linear)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch, memory: Memory | None = None) -> Tensor:
        """Predict (B, N, P) on the full grid; what stands at tokens that are not scored means nothing.

        With a `memory` the questions look at that other view instead; with `queries="all"` they still see their own by
        self-attention.
        """
        entry = self.contract.input_for(len(batch.size), batch.bands)
        chosen = plan.hide if self.spec.queries == "hidden" else plan.see | plan.hide
        index, asks = _index(chosen)
        seen = self._seen(tokens, plan.see, batch)
        queries = self._start(seen, plan.see, index) + seen.places.gather(1, _wide(index, self.spec.width))
        value, keys = self._keys(seen if memory is None else self._seen(*memory))
        among = key_mask(None if bool(asks.all()) else asks, 0)
        for block in self.blocks:
            queries = block(queries, among, value, keys)

        full = spread(self.norm(queries), chosen, queries.new_zeros(()))
        heads = cast(nn.ModuleList, self.heads[entry.name])
        parts = full.chunk(tokens.grid.num_groups, dim=1)
        return torch.cat([head(part) for head, part in zip(heads, parts, strict=True)], dim=1)

    def _seen(self, tokens: Tokens, see: Tensor, batch: Batch) -> _Seen:
        """Embed what was seen, and say where it is."""
        entry = self.contract.input_for(len(batch.size), batch.bands)
        positions = batch_positions(batch, entry, tokens.grid.plain, self.spec.width)
        positions = positions.repeat(1, tokens.grid.num_groups, 1).expand(len(batch), -1, -1)
        places = positions
        if entry.name in self.groups:
            places = positions + self.groups[entry.name].repeat_interleave(tokens.grid.num_places, dim=0)
        if tokens.full_grid:  # the encoder kept every token: what it made of hidden ones is no key
            index, ok = torch.arange(see.shape[1], device=see.device).expand_as(see), see
        else:
            index, ok = visible_index(see)
        return _Seen(
            self.embed(tokens.prefix), self.embed(tokens.value), tokens.full_grid, index, ok, positions, places
        )

    def _keys(self, seen: _Seen) -> tuple[Tensor, Tensor | None]:
        """Give what is looked at, (B, R + V, W), and which of it may be."""
        value = torch.cat([seen.prefix, seen.value + seen.places.gather(1, _wide(seen.index, self.spec.width))], dim=1)
        return value, key_mask(None if bool(seen.ok.all()) else seen.ok, seen.prefix.shape[1])

    def _start(self, seen: _Seen, see: Tensor, index: Tensor) -> Tensor:
        """Give what the questions at `index` (B, Q) begin with, before their place is added, (B, Q, W)."""
        start = self.mask_token.expand(len(index), index.shape[1], -1)
        if self.spec.start == "mean":
            asked, given = (seen.positions.gather(1, _wide(i, self.spec.width)) for i in (index, seen.index))
            near = asked @ given.transpose(1, 2) / self.spec.width**0.5
            among = seen.ok | ~seen.ok.any(dim=1, keepdim=True)  # tokens that are not ok are 0: their mean is harmless
            start = start + near.masked_fill(~among[:, None], -torch.inf).softmax(dim=2).to(start.dtype) @ torch.where(
                seen.ok[..., None], seen.value, 0.0
            )
        if self.spec.queries == "all":
            full = seen.value if seen.full_grid else spread(seen.value, see, start.new_zeros(()))
            own = full.gather(1, _wide(index, self.spec.width))
            start = torch.where(see.gather(1, index)[..., None], own, start)
        return start


@dataclass(frozen=True)
class _Seen:
    """The embedded tokens of a view.

    Attributes:
        prefix: (B, R, W).
        value: (B, V, W).
        full_grid: whether it has a slot for every token of the grid.
        index: (B, V) the place of each.
        ok: (B, V) bool, real and seen.
        positions: (B, N, W) of every place of the grid.
        places: the same with the vectors of band groups added.
    """

    prefix: Tensor
    value: Tensor
    full_grid: bool
    index: Tensor
    ok: Tensor
    positions: Tensor
    places: Tensor


class CrossBlock(nn.Module):
    """A pre-norm block: questions look at each other where that is wanted, then at the memory, then think alone."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, self_attention: bool) -> None:
        super().__init__()
        self.norm_self = LAYER_NORM(width) if self_attention else None
        self.self_attention = Attention(width, heads) if self_attention else None
        self.norm_query, self.norm_memory = LAYER_NORM(width), LAYER_NORM(width)
        self.cross_attention = Attention(width, heads)
        self.norm_mlp = LAYER_NORM(width)
        inner = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, queries: Tensor, among: Tensor | None, memory: Tensor, keys: Tensor | None) -> Tensor:
        """Update queries (B, Q, W); `among` and `keys` say which queries and which of the memory are looked at."""
        if self.self_attention is not None and self.norm_self is not None:
            normed = self.norm_self(queries)
            queries = queries + self.self_attention(normed, normed, among)
        queries = queries + self.cross_attention(self.norm_query(queries), self.norm_memory(memory), keys)
        updated: Tensor = queries + self.mlp(self.norm_mlp(queries))
        return updated


class Attention(nn.Module):
    """Multi-head attention of one sequence to another (Vaswani et al. 2017, arXiv 1706.03762, 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, asking: Tensor, memory: Tensor, keys: Tensor | None) -> Tensor:
        """Look from (B, Q, W) at (B, M, W), of which `keys` (B, 1, 1, M) may be seen; None = all."""
        query = self.query(asking).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


def _index(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a choice (B, N) into indices (B, Q) and which are real, with one slot at least, so that no weight goes unused."""
    index, real = visible_index(chosen)
    if index.shape[1] == 0:
        index = chosen.new_zeros(len(chosen), 1, dtype=torch.int64)
        real = torch.zeros_like(index, dtype=torch.bool)
    return index, real


def _wide(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)
