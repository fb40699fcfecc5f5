"""Vision transformer of BEiT for 2D and 3D inputs: biases by relative position, and a learned scale of each branch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._pool import summarised
from core.encoders._prepare import prepared, reading
from core.encoders._relative import (
    axis_offsets,
    between,
    entries,
    init_truncated,
    offset_index,
    pair_bias,
    qkv_without_key_bias,
    read_table,
    relative_spacing,
)
from core.encoders._stages import listed, top_rank
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.encoders.vit import LAYER_NORM, key_mask
from core.errors import ConfigError
from core.patch_embed import patch_embed
from core.plan import Plan
from core.pos_embed import resample_table
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class RelativeViTSpec(EncoderSpec):
    """Describe the ViT of BEiT (Bao et al. 2021, arXiv 2106.08254, 2.3) as SimMIM trains it (arXiv 2111.09886).

    Pre-norm blocks with a bias by relative position (UniLMv2, Bao et al. 2020, arXiv 2002.12804) and a learned factor on
    each branch (LayerScale, Touvron et al. 2021, arXiv 2103.17239). Inputs of either rank share blocks and tables: a 2D
    offset is a 3D one in its own plane. Level i is the output of block i, counted from 1.

    Deviations: at another spacing than the nominal one the bias table is read between its entries, and beyond its extent
    at its edge; tokens may be left out; invalid tokens are no keys; tables start at a deviation of 0.02, not at 0.

    Attributes:
        contract: the inputs it reads.
        width: D.
        depth: blocks.
        heads: attention heads, dividing `width`.
        extent: tokens of the largest grid that the bias tables cover, array order (Y X) or (Z Y X); inputs of lower rank
            use the last of them.
        bias: `shared`: one table for all blocks; `per_block`: one for each.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        class_token: prepend one learned token.
        layer_scale: start of the factor on each branch.
        tables: token grid of a learned table of absolute positions, per input name; an input that is absent has none.
        norm_tokens: norm the tokens that are returned; False = only what `features` summarises, as BEiT does where it
            pools by the mean: a recipe then trains no last norm.
    """

    contract: Contract
    width: int
    depth: int
    heads: int
    extent: tuple[int, ...]
    bias: Literal["shared", "per_block"] = "shared"
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    class_token: bool = True
    layer_scale: float = 0.1
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    norm_tokens: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.depth < 1:
            raise ConfigError(
                f"expected a width that the heads divide and at least one block, got width {self.width}, "
                f"{self.heads} heads, depth {self.depth}."
            )
        rank = top_rank(self.contract)
        grids = [(1,) * (rank - entry.ndim) + entry.grid().tokens for entry in self.contract.inputs]
        least = tuple(map(max, zip(*grids, strict=True)))
        if len(self.extent) != rank or any(e < t for e, t in zip(self.extent, least, strict=True)):
            raise ConfigError(
                f"expected an extent of {rank} axes, at least the {least} tokens of these inputs, got {self.extent}: set "
                f"--recipe.encoder.extent, to {listed(least)} for example."
            )
        unknown = set(self.tables) - {entry.name for entry in self.contract.inputs}
        if unknown:
            raise ConfigError(f"expected position tables for inputs of the contract, got tables for {sorted(unknown)}.")

    def build(self) -> RelativeViT:
        """Make the module, initialised as BEiT: truncated normal of deviation 0.02, branches divided by sqrt(2 i)."""
        return RelativeViT(self)


class RelativeViT(Backbone):
    """The module; see `RelativeViTSpec`."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"drop", "token", "dense", "levels", "attention"})

    def __init__(self, spec: RelativeViTSpec) -> None:
        super().__init__()
        self.spec: RelativeViTSpec = spec
        self.num_features, self.num_levels = spec.width, spec.depth
        self.class_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02) if spec.class_token else None
        self.pos_bias = _bias_table(spec) if spec.bias == "shared" else None
        self.blocks = nn.ModuleList(
            RelativeBlock(spec, drop_path=spec.drop_path * i / max(spec.depth - 1, 1)) for i in range(spec.depth)
        )
        self.norm = LAYER_NORM(spec.width)
        self.apply(init_truncated)
        for number, block in enumerate(self.blocks, start=1):
            block.start_small(number)  # type: ignore[operator]
        self.stems = nn.ModuleDict({entry.name: patch_embed(entry, spec.width) for entry in spec.contract.inputs})
        self.tables = nn.ParameterDict()
        for entry in spec.contract.inputs:
            if entry.name in spec.tables:
                count = Grid(spec.tables[entry.name], entry.patch, entry.groups).num_tokens + spec.class_token
                self.tables[entry.name] = nn.Parameter(torch.randn(1, count, spec.width) * 0.02)

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
        tokens = read.replaced(self.stems[entry.name](batch, index), 0, level=0)
        tokens = self._placed(tokens, entry, grid, index)
        if ok is not None:
            patches = torch.where(ok[..., None], tokens[:, count:], 0.0)
            tokens = torch.cat([tokens[:, :count], patches], dim=1)

        keys, inner, seen = key_mask(ok, count), {}, None
        shares = between(axis_offsets(grid.tokens, relative_spacing(batch, entry)), self.spec.extent[-entry.ndim :])
        pairs = self._pairs(grid, index, shares)
        shared = None if self.pos_bias is None else self._mask(self.pos_bias, shares, pairs, keys)
        for number, block in enumerate(self.blocks, start=1):
            mask = self._mask(block.pos_bias, shares, pairs, keys) if shared is None else shared  # type: ignore[arg-type]
            if attention and number == self.spec.depth:
                seen = block.class_attention(tokens, mask)[..., count:]  # type: ignore[operator]
            tokens = read.replaced(block(tokens, mask), count, level=number)
            if number in levels:
                inner[number] = Tokens(tokens[:, count:], ok, tokens[:, :count], grid, index is None)
        if self.spec.norm_tokens:
            tokens = self.norm(tokens)
        return Tokens(tokens[:, count:], ok, tokens[:, :count], grid, index is None, inner, seen)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`, errors at `core.encoders._pool.pooled`."""
        return summarised(self, self.norm, batch, pool)

    def _placed(self, tokens: Tensor, entry: Input, grid: Grid, index: Tensor | None) -> Tensor:
        """Add absolute positions where the input has a table, and prepend the class token."""
        prefix = tokens[:, :0]
        if self.class_token is not None:
            prefix = self.class_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        if entry.name in self.tables:
            table, count = self.tables[entry.name], int(self.spec.class_token)
            groups = table[:, count:].unflatten(1, (grid.num_groups, -1))[0]
            have = self.spec.tables[entry.name]
            places = torch.cat([resample_table(group[None], have, grid.tokens) for group in groups], dim=1)
            if index is not None:
                places = places.expand(len(tokens), -1, -1).gather(1, index[..., None].expand_as(tokens))
            tokens, prefix = tokens + places, prefix + table[:, :count]
        return torch.cat([prefix, tokens], dim=1)

    def _pairs(self, grid: Grid, index: Tensor | None, shares: tuple[Tensor, ...]) -> Tensor:
        """Number the offset of every pair of tokens, (R + V, R + V) or with the samples first.

        The class token has the three numbers after the last offset: for what it asks, for who asks it, and for itself.
        """
        pairs = offset_index(grid.tokens, shares[0].device).repeat(grid.num_groups, grid.num_groups)
        if index is not None:
            pairs = pairs[index[:, :, None], index[:, None, :]]
        if self.class_token is None:
            return pairs
        count = entries(grid.tokens)
        pairs = functional.pad(pairs, (1, 0), value=count + 1)
        asking = pairs.new_full((*pairs.shape[:-2], 1, pairs.shape[-1]), count)
        asking[..., 0] = count + 2
        return torch.cat([asking, pairs], dim=-2)

    def _mask(self, table: Tensor, shares: tuple[Tensor, ...], pairs: Tensor, keys: Tensor | None) -> Tensor:
        """Read a block's bias of every pair of tokens, minus infinity where the key may not be read."""
        count = entries(self.spec.extent)
        biases = read_table(table[:count], self.spec.extent, shares)
        ends = table[count:].expand(len(biases), -1, -1)
        bias = pair_bias(torch.cat([biases, ends], dim=1), pairs)
        return bias if keys is None else torch.where(keys, bias, -torch.inf)


class RelativeBlock(nn.Module):
    """Attend and apply an MLP; each branch reads normed tokens and is scaled."""

    def __init__(self, spec: RelativeViTSpec, drop_path: float) -> None:
        from timm.layers.drop import DropPath
        from timm.layers.mlp import Mlp

        super().__init__()
        width, self.heads = spec.width, spec.heads
        self.norm1 = LAYER_NORM(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.pos_bias = None if spec.bias == "shared" else _bias_table(spec)
        self.proj = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.full((width,), spec.layer_scale))
        self.norm2 = LAYER_NORM(width)
        self.mlp = Mlp(width, int(width * spec.mlp_ratio))
        self.scale2 = nn.Parameter(torch.full((width,), spec.layer_scale))
        self.drop_path = DropPath(drop_path)

    def start_small(self, number: int) -> None:
        """Divide the fresh weights that end each branch by sqrt(2 i) in block i (BEiT, 2.5)."""
        for layer in (self.proj, self.mlp.fc2):
            layer.weight.data.div_((2.0 * number) ** 0.5)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Give tokens (B, L, D) the context of all, with a bias of (1 or B, heads, L, L)."""
        query, key, value = self._query_key_value(tokens)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))
        mixed = self.proj(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + self.drop_path(self.scale1 * mixed)
        tokens = tokens + self.drop_path(self.scale2 * self.mlp(self.norm2(tokens)))
        return tokens

    def class_attention(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Compute how much the first token attends to each that the block is about to read, (B, heads, L) float32."""
        query, key, _ = self._query_key_value(tokens)
        weights = (query[:, :, :1] * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        shares: Tensor = (weights + mask[:, :, :1]).softmax(dim=-1)[:, :, 0].to(torch.float32)
        return shares

    def _query_key_value(self, tokens: Tensor) -> tuple[Tensor, ...]:
        qkv = qkv_without_key_bias(self.norm1(tokens), self.qkv.weight, self.q_bias, self.v_bias)
        apart: Tensor = qkv.unflatten(-1, (3, self.heads, -1))
        query, key, value = apart.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value


def _bias_table(spec: RelativeViTSpec) -> nn.Parameter:
    """Make a table with an entry for every offset, and three for the class token."""
    return nn.Parameter(torch.randn(entries(spec.extent) + 3 * spec.class_token, spec.heads) * 0.02)
