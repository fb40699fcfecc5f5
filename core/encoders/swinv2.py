"""Swin transformer V2 for 2D and 3D inputs: windows, cosine attention, and biases computed from continuous offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._pool import summarised
from core.encoders._prepare import prepared
from core.encoders._relative import coordinates, init_truncated, pair_bias, qkv_without_key_bias
from core.encoders._stages import (
    Stem,
    check_stages,
    check_window,
    encode,
    make_stages,
    stage_grid,
    stage_grids,
    stage_width,
    top_rank,
)
from core.encoders._windows import Windows, attend, join, split
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.errors import ConfigError
from core.plan import Plan
from core.shapes import Grid

MOST_LOGIT_SCALE = math.log(100.0)
RESIDUAL_START = 0.1  # the paper's 0 would leave all else without gradient at the first step


@dataclass(frozen=True, kw_only=True)
class SwinV2Spec(EncoderSpec):
    """Describe a Swin transformer V2 (Liu et al. 2021, arXiv 2111.09883, 3), as SatVision-TOA uses it (arXiv 2411.17000).

    Norms close each residual branch, attention is the scaled cosine, and the bias of two tokens is a small network's of
    their log-spaced offset, equations 2 to 4. Inputs of either rank share all blocks: a 2D offset is a 3D one in its own
    plane. Level i is what the blocks of stage i give, before tokens are merged, counted from 1.

    Deviations: offsets are scaled by spacing over nominal spacing; invalid tokens are no keys; grids that windows or
    merging do not divide are padded, with tokens that are no keys; tokens that the shift brings together do not attend
    to each other at all (the reference subtracts 100); norms of residual branches start at 0.1, not 0.

    Attributes:
        contract: the inputs it reads; none with band groups.
        width: D of the first stage; each later one has twice that of the one before.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: tokens per window, array order (Y X) or (Z Y X); inputs of lower rank use the last of them. An axis with
            fewer tokens is one window.
        mlp_ratio: hidden width of the MLP over the stage's.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        extra_norm_period: norm the output of every so many blocks of a stage; 0 = never. SatVision-TOA: 6.
        pretrained_windows: per stage the window, as `window`, by which offsets are measured, for weights trained with
            another one; none = this one, clamped to the nominal size of the input.
    """

    contract: Contract
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: tuple[int, ...] = (8, 8)
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    extra_norm_period: int = 0
    pretrained_windows: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        check_stages(self.contract, self.width, self.depths, self.heads)
        check_window(self.contract, self.window)
        if self.pretrained_windows and len(self.pretrained_windows) != len(self.depths):
            raise ConfigError(
                f"expected a pretrained window for each of {len(self.depths)} stages or none at all, got "
                f"{len(self.pretrained_windows)}: set --recipe.encoder.pretrained_windows, to [] for none."
            )
        for window in self.pretrained_windows:
            check_window(self.contract, window, stages=len(self.depths))
        if self.extra_norm_period < 0:
            raise ConfigError(
                f"expected an extra norm period of 0 or more, got {self.extra_norm_period}: set "
                "--recipe.encoder.extra_norm_period."
            )

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    def build(self) -> SwinV2:
        """Make the module: linear layers truncated normal of deviation 0.02, zero biases."""
        return SwinV2(self)


class SwinV2(Backbone):
    """The module; see `SwinV2Spec`."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"token", "dense", "levels"})

    def __init__(self, spec: SwinV2Spec) -> None:
        super().__init__()
        self.spec: SwinV2Spec = spec
        self.num_levels = len(spec.depths)
        self.num_features = self.level_width(self.num_levels)
        rank, ranks = top_rank(spec.contract), sorted({entry.ndim for entry in spec.contract.inputs})
        period = spec.extra_norm_period
        self.blocks, self.merges = make_stages(
            spec,
            lambda width, heads, number, drop: SwinV2Block(
                width, heads, rank, spec.mlp_ratio, drop, period > 0 and (number + 1) % period == 0
            ),
            lambda width: MergeV2(width, ranks),
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
        """Space the offsets of a window logarithmically, (b, offsets, axes); equation 4, in units of log2(8)."""
        if self.spec.pretrained_windows:
            trained = self.spec.pretrained_windows[stage][-entry.ndim :]
        else:
            nominal = stage_grids(entry.grid(), stage + 1)[-1].tokens
            trained = tuple(min(w, t) for w, t in zip(self.spec.window[-entry.ndim :], nominal, strict=True))
        reach = torch.tensor([max(t - 1, 1) for t in trained], device=offsets[0].device)
        offset = coordinates(offsets) * (8.0 / reach)
        spaced = offset.sign() * torch.log2(1.0 + offset.abs()) / 3.0
        return (functional.pad(spaced, (top_rank(self.contract) - entry.ndim, 0)),)


class SwinV2Block(nn.Module):
    """Attend within windows and apply an MLP; each branch is normed before it is added."""

    def __init__(self, width: int, heads: int, rank: int, mlp_ratio: float, drop_path: float, extra_norm: bool) -> None:
        from timm.layers.drop import DropPath
        from timm.layers.mlp import Mlp

        super().__init__()
        self.attn = CosineAttention(width, heads, rank)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width) if extra_norm else None
        self.drop_path = DropPath(drop_path)
        for norm in (self.norm1, self.norm2):
            nn.init.constant_(norm.weight, RESIDUAL_START)

    def forward(self, tokens: Tensor, windows: Windows, positions: tuple[Tensor, ...]) -> Tensor:
        """Give tokens (B, N, D) the context of their windows."""
        mixed = join(self.attn(split(tokens, windows), windows, positions[0]), windows)
        tokens = tokens + self.drop_path(self.norm1(mixed))
        tokens = tokens + self.drop_path(self.norm2(self.mlp(tokens)))
        if self.norm3 is not None:
            tokens = self.norm3(tokens)
        return tokens


class CosineAttention(nn.Module):
    """Scaled cosine attention with a bias that a small network computes from offsets (equations 2 and 3)."""

    def __init__(self, width: int, heads: int, rank: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10.0)))
        self.pos_mlp = nn.Sequential(nn.Linear(rank, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.proj = nn.Linear(width, width)

    def forward(self, pieces: Tensor, windows: Windows, positions: Tensor) -> Tensor:
        """Mix the tokens of each window (B, W, M, D)."""
        qkv = qkv_without_key_bias(pieces, self.qkv.weight, self.q_bias, self.v_bias)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).unbind(3)
        scale = self.logit_scale.clamp(max=MOST_LOGIT_SCALE).exp()[:, None]
        query, key = functional.normalize(query, dim=-1) * scale, functional.normalize(key, dim=-1)
        bias = pair_bias(16.0 * self.pos_mlp(positions).sigmoid(), windows.index)
        mixed: Tensor = self.proj(attend(query.to(value.dtype), key.to(value.dtype), value, bias, windows.allowed))
        return mixed


class MergeV2(nn.Module):
    """Make one token of 2**ndim neighbours: reduce, then norm."""

    def __init__(self, width: int, ranks: list[int]) -> None:
        super().__init__()
        self.reductions = nn.ModuleDict({str(n): nn.Linear(width << n, 2 * width, bias=False) for n in ranks})
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, neighbours: Tensor, ndim: int) -> Tensor:
        """Reduce (B, M, 2**ndim * D) to (B, M, 2 D)."""
        merged: Tensor = self.norm(self.reductions[str(ndim)](neighbours))
        return merged
