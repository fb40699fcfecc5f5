"""Swin transformer for 2D and 3D inputs: windows, pre-norm blocks, and a table of biases by relative position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._pool import summarised
from core.encoders._prepare import prepared
from core.encoders._relative import between, entries, init_truncated, pair_bias, read_table
from core.encoders._stages import Stem, check_stages, check_window, encode, make_stages, stage_grid, stage_width
from core.encoders._windows import Windows, attend, join, split
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.plan import Plan
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class SwinSpec(EncoderSpec):
    """Describe a Swin transformer (Liu et al. 2021, arXiv 2103.14030), as SimMIM trains it (arXiv 2111.09886).

    Inputs of either rank share all blocks: a 2D offset is a 3D one in its own plane, so the table of a 2D input is the
    middle plane of a 3D one. Level i is what the blocks of stage i give, before tokens are merged, counted from 1.

    Deviations: at another spacing than the nominal one the bias table is read between its entries; invalid tokens are no
    keys; grids that windows or merging do not divide are padded, with tokens that are no keys; tokens that the shift
    brings together do not attend to each other at all (the reference subtracts 100); a grid smaller than a window uses
    the middle of the table (the reference makes a smaller table).

    Attributes:
        contract: the inputs it reads; none with band groups.
        width: D of the first stage; each later one has twice that of the one before.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: tokens per window, array order (Y X) or (Z Y X); inputs of lower rank use the last of them. An axis with
            fewer tokens is one window.
        mlp_ratio: hidden width of the MLP over the stage's.
        drop_path: stochastic depth of the last block, rising linearly from 0.
    """

    contract: Contract
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: tuple[int, ...] = (7, 7)
    mlp_ratio: float = 4.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_stages(self.contract, self.width, self.depths, self.heads)
        check_window(self.contract, self.window)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    def build(self) -> Swin:
        """Make the module: linear layers and tables truncated normal of deviation 0.02, zero biases."""
        return Swin(self)


class Swin(Backbone):
    """The module; see `SwinSpec`."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"token", "dense", "levels"})

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.spec: SwinSpec = spec
        self.num_levels = len(spec.depths)
        self.num_features = self.level_width(self.num_levels)
        ranks = sorted({entry.ndim for entry in spec.contract.inputs})
        self.blocks, self.merges = make_stages(
            spec,
            lambda width, heads, _, drop: SwinBlock(width, heads, spec.window, spec.mlp_ratio, drop),
            lambda width: Merge(width, ranks),
        )
        self.norm = nn.LayerNorm(self.num_features)
        self.apply(init_truncated)
        self.stems = nn.ModuleDict({entry.name: Stem(entry, spec.width) for entry in spec.contract.inputs})

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def level_width(self, level: int) -> int:
        """D, doubled by each merging."""
        return stage_width(self.spec.width, level)

    def level_grid(self, level: int, grid: Grid) -> Grid:
        """Half the tokens along each axis from one stage to the next, odd counts rounded up."""
        return stage_grid(grid, level)

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
        """Encode; with a plan a mask token is needed. Errors as `core.encoders._stages.encode`."""
        return encode(self, batch, plan, mask_token=mask_token, stage=stage, levels=levels, attention=attention)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`, errors at `core.encoders._pool.pooled`."""
        return summarised(self, self.norm, batch, pool)

    def positions(self, stage: int, entry: Input, offsets: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Say where in the bias tables the offsets of a window lie; the same at every stage."""
        return between(offsets, self.spec.window[-entry.ndim :])


class SwinBlock(nn.Module):
    """Attend within windows and apply an MLP; each branch reads normed tokens."""

    def __init__(self, width: int, heads: int, window: tuple[int, ...], mlp_ratio: float, drop_path: float) -> None:
        from timm.layers.drop import DropPath
        from timm.layers.mlp import Mlp

        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, windows: Windows, positions: tuple[Tensor, ...]) -> Tensor:
        """Give tokens (B, N, D) the context of their windows."""
        mixed = join(self.attn(split(self.norm1(tokens), windows), windows, positions), windows)
        tokens = tokens + self.drop_path(mixed)
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens


class WindowAttention(nn.Module):
    """Scaled dot-product attention with a table of biases by relative position (3.2, equation 4)."""

    def __init__(self, width: int, heads: int, window: tuple[int, ...]) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.pos_bias = nn.Parameter(torch.empty(entries(window), heads))
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.pos_bias, std=0.02)

    def forward(self, pieces: Tensor, windows: Windows, positions: tuple[Tensor, ...]) -> Tensor:
        """Mix the tokens of each window (B, W, M, D)."""
        query, key, value = self.qkv(pieces).unflatten(-1, (3, self.heads, -1)).unbind(3)
        query = query * query.shape[-1] ** -0.5
        bias = pair_bias(read_table(self.pos_bias, self.window, positions), windows.index)
        mixed: Tensor = self.proj(attend(query, key, value, bias, windows.allowed))
        return mixed


class Merge(nn.Module):
    """Make one token of 2**ndim neighbours: norm, then reduce."""

    def __init__(self, width: int, ranks: list[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({str(n): nn.LayerNorm(width << n) for n in ranks})
        self.reductions = nn.ModuleDict({str(n): nn.Linear(width << n, 2 * width, bias=False) for n in ranks})

    def forward(self, neighbours: Tensor, ndim: int) -> Tensor:
        """Reduce (B, M, 2**ndim * D) to (B, M, 2 D)."""
        merged: Tensor = self.reductions[str(ndim)](self.norms[str(ndim)](neighbours))
        return merged
