"""Classes per pixel from a pyramid of levels: context by pooling, then details from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import ConfigError
from core.heads._maps import Maps, conv, resized
from core.heads.base import HeadSpec, Reads


class Block(nn.Module):
    """A convolution that keeps the size, a norm over groups of features, and ReLU."""

    def __init__(self, ndim: int, inside: int, outside: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv(ndim, inside, outside, kernel)
        self.norm = nn.GroupNorm(math.gcd(outside, 32) if outside > 32 else 1, outside)

    def forward(self, value: Tensor) -> Tensor:
        """Convolve (B, D, *S)."""
        return F.relu(self.norm(self.conv(value)))


class Pyramid(nn.Module):
    """Several maps, finest first, to logits (B, K, *S)."""

    def __init__(self, spec: UPerNet, widths: tuple[int, ...], ndim: int) -> None:
        super().__init__()
        self.spec, width = spec, spec.width
        self.norms = nn.ModuleList([nn.GroupNorm(1, inside) for inside in widths])
        self.pools = nn.ModuleList([Block(ndim, widths[-1], width, 1) for _ in spec.pools])
        self.context = Block(ndim, widths[-1] + len(spec.pools) * width, width, 3)
        self.laterals = nn.ModuleList([Block(ndim, inside, width, 1) for inside in widths[:-1]])
        self.smooth = nn.ModuleList([Block(ndim, width, width, 3) for _ in widths[:-1]])
        self.fuse = Block(ndim, len(widths) * width, width, 3)
        self.classify = conv(ndim, width, spec.num_classes, 1)

    def forward(self, maps: Maps) -> Tensor:
        """Give logits at the voxels of the images."""
        levels = [
            norm(_scaled(one, factor))
            for one, factor, norm in zip(maps.maps, self.spec.factors, self.norms, strict=True)
        ]
        merged = [self._with_context(levels[-1])]
        for level, lateral in zip(reversed(levels[:-1]), reversed(self.laterals), strict=True):
            merged.insert(0, lateral(level) + resized(merged[0], tuple(level.shape[2:])))
        smoothed = [smooth(one) for smooth, one in zip(self.smooth, merged[:-1], strict=True)] + merged[-1:]
        finest = tuple(smoothed[0].shape[2:])
        fused = self.fuse(torch.cat([resized(one, finest) for one in smoothed], dim=1))
        return resized(self.classify(fused), maps.size)

    def _with_context(self, coarsest: Tensor) -> Tensor:
        size = tuple(coarsest.shape[2:])
        pooled = [
            resized(block(_averaged(coarsest, cells)), size)
            for cells, block in zip(self.spec.pools, self.pools, strict=True)
        ]
        merged: Tensor = self.context(torch.cat([coarsest, *pooled], dim=1))
        return merged


def _scaled(value: Tensor, factor: float) -> Tensor:
    return resized(value, tuple(max(1, round(n * factor)) for n in value.shape[2:]))


def _averaged(value: Tensor, cells: int) -> Tensor:
    pool: Callable[[Tensor, list[int]], Tensor] = F.adaptive_avg_pool3d if value.ndim == 5 else F.adaptive_avg_pool2d  # type: ignore[assignment]
    return pool(value, [min(cells, n) for n in value.shape[2:]])


@dataclass(frozen=True, kw_only=True)
class UPerNet(HeadSpec):
    """Pyramid pooling on the coarsest level, then a feature pyramid down to the finest, all of them fused.

    Xiao et al. 2018, arXiv 1807.10221, 3.1 (the pooling: Zhao et al. 2017, arXiv 1612.01105). Deviations: norms over
    groups of one image's features in place of batches, so that a window's batch mates change nothing; levels are normed
    before use; the levels of a plain transformer, which share one grid, are resized by interpolation where BEiT's code
    learns to; no auxiliary loss.

    Attributes:
        num_classes: K.
        width: D inside the head.
        pools: cells along each axis of the pooled context.
        levels: of the encoder, finest first; none = its stages, or four that are evenly spread.
        factors: by which each level's map is enlarged; none = 1 where the encoder merges tokens, else to a pyramid.
    """

    reads: ClassVar[Reads] = "levels"

    num_classes: int
    width: int = 128
    pools: tuple[int, ...] = (1, 2, 3, 6)
    levels: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.width < 1 or any(cells < 1 for cells in self.pools):
            raise ConfigError(f"expected at least 2 classes, a width and pools of at least 1, got {self}.")
        if any(level < 1 for level in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise ConfigError(f"expected levels that ascend from 1, finest first, got {self.levels}.")
        if any(factor <= 0 for factor in self.factors) or (
            self.factors and len(self.factors) != max(len(self.levels), 1)
        ):
            raise ConfigError(f"expected one factor above 0 for each of the levels {self.levels}, got {self.factors}.")

    def build(self, *widths: int, ndim: int = 2) -> Pyramid:
        """Make it, with fresh weights from torch's current generator.

        Raises:
            ConfigError: another number of levels than of factors.
        """
        if len(widths) != len(self.factors):
            raise ConfigError(f"expected a factor for each of {len(widths)} levels, got {self.factors}.")
        return Pyramid(self, widths, ndim)
