"""Histograms of oriented gradients, in 2D and, plane by plane, in 3D.

Here live the target and its few functions. The scales of LocalMIM are this target on grids of other patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError
from core.shapes import Grid, patchify, unpatchify
from core.targets._eroded import eroded
from core.targets._standardise import standardised
from core.targets.base import Target

_GAIN = 8.0  # what the integer Sobel filter makes of a slope of 1 per voxel


@dataclass(frozen=True, kw_only=True)
class Hog(Target):
    """Predict gradient orientations (MaskFeat, Wei et al. 2021, arXiv 2112.09133, 3.2; FG-MAE, Wang et al. 2023, 2310.18653).

    The vector of a token is ordered (band, plane, bin, cell), cells in raster order; 2D has one plane, 3D the planes
    (z, y), (z, x) and (y, x). Bin b holds gradients whose angle from the first axis of the plane, modulo a half turn, is
    in [b, b + 1) * 180 / bins degrees. A histogram is the sum of gradient magnitudes (integer Sobel weights) per voxel of
    the finest edge: a derivative along a coarser axis is divided by the ratio of the spacings.

    Deviations: any rank; spacing; a voxel counts only where its whole 3 x 3 neighbourhood was measured, so that the edge
    of missing data is no gradient; a cell counts where at least half of its voxels do, and its sum is scaled up to the
    whole cell; a floor keeps sensor noise in air, ocean or fill from becoming a histogram of unit length.

    Attributes:
        pool: voxels of a cell along each axis, at most the token's own edge there; a tuple names each axis, for inputs of
            one rank; None = the token is one cell (LocalMIM).
        bins: orientations within a half turn.
        gaussian: edge in voxels of a Gaussian window that is tiled over the image and weighs the magnitudes, deviation
            half the edge; 0 = none. FG-MAE's release and mmpretrain's MaskFeat use 16, SlowFast's MaskFeat none.
        normalise: to unit Euclidean length: `bins`: each cell of a band and plane; `token`: each band's whole vector;
            `none`: sums as they are.
        floor: smallest length that is divided by, as a slope of the value space per voxel over the whole cell; the
            references have none (1e-12 of a sum).
        standardise: subtract each token's mean and divide by its deviation afterwards, as FG-MAE's release does.
    """

    pool: int | tuple[int, ...] | None = 8
    bins: int = 9
    gaussian: int = 0
    normalise: Literal["bins", "token", "none"] = "bins"
    floor: float = 1e-3
    standardise: bool = False

    def __post_init__(self) -> None:
        edges = (self.pool,) if isinstance(self.pool, int) else self.pool or ()
        if self.bins < 2 or self.gaussian < 0 or not self.floor > 0 or any(edge < 1 for edge in edges):
            raise ConfigError(
                "expected cells of one voxel or more, two bins or more, a Gaussian window of 0 or more voxels and a floor "
                f"above 0, got {self}."
            )

    def num_values(self, entry: Input) -> int:
        """Bands of the largest group x planes x bins x cells of a token.

        Raises:
            ConfigError: the cells do not divide the patch.
        """
        bands = max(len(group) for group in entry.groups or (entry.bands,))
        return bands * math.comb(entry.ndim, 2) * self.bins * math.prod(self.cells(entry.patch))

    def cells(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Count the cells of a token along each axis.

        Raises:
            ConfigError: the cells do not divide the patch.
        """
        pool = (self.pool,) * len(patch) if self.pool is None or isinstance(self.pool, int) else self.pool
        if len(pool) != len(patch):
            raise ConfigError(f"expected cells of {len(patch)} axes for the patch {patch}, got pool {self.pool}.")
        edges = [edge if cell is None else min(edge, cell) for edge, cell in zip(patch, pool, strict=True)]
        if any(edge % cell for edge, cell in zip(patch, edges, strict=True)):
            raise ConfigError(
                f"expected cells that divide the patch {patch}, got {tuple(edges)} voxels: choose another `pool`."
            )
        return tuple(edge // cell for edge, cell in zip(patch, edges, strict=True))

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the histograms, and 1 where at least half of a cell's gradients rest on measured data alone."""
        cells = self.cells(grid.patch)
        edges = tuple(edge // count for edge, count in zip(grid.patch, cells, strict=True))
        # on a CPU sample by sample: what one needs then stays in the cache, which is two to five times faster
        step = 1 if batch.image.device.type == "cpu" else max(len(batch), 1)
        parts = [self._histograms(batch.take(slice(i, i + step)), edges) for i in range(0, max(len(batch), 1), step)]
        histogram, solid = (torch.cat(part) for part in zip(*parts, strict=True))
        value, weight = (patchify(part.flatten(1, 3), cells) for part in (histogram, solid))
        if self.normalise == "token":
            apart = value.unflatten(2, (len(batch.bands), -1))
            least = self.floor * _GAIN * math.prod(edges)
            value = functional.normalize(apart, dim=-1, eps=least).flatten(2)
        return (standardised(value, weight), weight) if self.standardise else (value, weight)

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Draw a stroke along the edge for each bin of each cell, as bright as the bin is high; planes are added."""
        cells = self.cells(grid.patch)
        edges = tuple(edge // count for edge, count in zip(grid.patch, cells, strict=True))
        strokes = glyphs(edges, self.bins).flatten(0, 1).flatten(1).to(prediction)  # planes * bins, voxels of a cell
        image = unpatchify(prediction.clamp(min=0.0), Grid(grid.tokens, cells))  # B, C * planes * bins, *cells
        heights = image.flatten(2).unflatten(1, (-1, len(strokes)))
        drawn = torch.einsum("bckm,kv->bmcv", heights, strokes)
        return unpatchify(drawn.flatten(2), Grid(tuple(image.shape[2:]), edges))

    def _histograms(self, batch: Batch, edges: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Histograms (B, C, planes, bins, *cells), and which of them count, bool of the same shape."""
        planes = [self._plane(batch, axes, edges) for axes in combinations(range(len(edges)), 2)]
        histogram = torch.stack([sums for sums, _ in planes], dim=2)
        return histogram, torch.stack([counts for _, counts in planes], dim=2).expand_as(histogram)

    def _plane(self, batch: Batch, axes: tuple[int, int], edges: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Histograms (B, C, bins, *cells) in one plane, and which of them count, (B, C, 1, *cells) bool."""
        first, second = plane_gradient(batch.image.detach(), batch.spacing, axes)
        bin_of = torch.atan2(second, first).div_(math.pi).mul_(self.bins).floor_().remainder_(self.bins)
        magnitude = first.square_().addcmul_(second, second).sqrt_()
        window = self._window(batch.size, axes).to(magnitude)
        if self.gaussian:
            magnitude = magnitude.mul_(window)
        share = None
        if not batch.complete:
            solid = eroded(batch.valid, axes=axes)
            magnitude = magnitude.masked_fill_(~solid, 0.0)
            whole = by_cell(window.expand(1, 1, *batch.size), edges).sum(-1)
            share = by_cell(solid * window, edges).sum(-1) / whole
        sums = binned(by_cell(magnitude, edges), by_cell(bin_of, edges), self.bins)
        if share is None:
            counts = torch.ones((), dtype=torch.bool, device=sums.device).expand_as(sums[:, :, :1])
        else:
            counts = (share >= 0.5)[:, :, None]
            sums = torch.where(counts, sums / share.clamp(min=0.5)[:, :, None], 0.0)
        if self.normalise == "bins":
            sums = functional.normalize(sums, dim=2, eps=self.floor * _GAIN * math.prod(edges))
        return sums, counts

    def _window(self, size: tuple[int, ...], axes: tuple[int, int]) -> Tensor:
        """Weight of every voxel, of a shape that broadcasts to `size`; sums to 1 over one tile of the plane."""
        window = torch.ones((1,) * len(size))
        for axis in axes if self.gaussian else ():
            place = torch.arange(self.gaussian, dtype=torch.float32) - (self.gaussian - 1) / 2
            bell = torch.exp(-0.5 * (place / (self.gaussian / 2)).square())
            bell = (bell / bell.sum())[torch.arange(size[axis]) % self.gaussian]
            window = window * bell.reshape([-1 if i == axis else 1 for i in range(len(size))])
        return window


def plane_gradient(image: Tensor, spacing: Tensor, axes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Differentiate (B, C, *S) images along the two axes of a plane with integer Sobel weights, within that plane.

    Per voxel of the finest edge of `spacing` (B, ndim), all axes considered; the sign is the references': a slope that
    rises along an axis is negative. Borders are reflected.
    """
    slopes = []
    for along, across in (axes, axes[::-1]):
        slope = _smoothed(_difference(image, 2 + along), 2 + across)
        ratio = spacing.amin(1) / spacing[:, along]
        slopes.append(slope.mul_(ratio.reshape(-1, *(1,) * (image.ndim - 1)).to(slope)))
    return slopes[0], slopes[1]


def binned(magnitude: Tensor, bin_of: Tensor, bins: int) -> Tensor:
    """Add up magnitudes (B, C, *cells, voxels) by their whole-numbered bin, (B, C, bins, *cells); repeatable bit by bit.

    On a GPU each bin is summed by itself: scattered additions, several times faster on a CPU, have no fixed order there.
    """
    add = scattered if magnitude.device.type == "cpu" else bin_by_bin
    return add(magnitude, bin_of, bins).movedim(-1, 2)


def scattered(magnitude: Tensor, bin_of: Tensor, bins: int) -> Tensor:
    """Add (..., voxels) up to (..., bins) in one pass."""
    sums = magnitude.new_zeros(*magnitude.shape[:-1], bins)
    return sums.scatter_add_(-1, bin_of.to(torch.int64), magnitude)


def bin_by_bin(magnitude: Tensor, bin_of: Tensor, bins: int) -> Tensor:
    """Add (..., voxels) up to (..., bins) in a pass for each bin."""
    bin_of = bin_of.to(torch.uint8)
    return torch.stack([torch.where(bin_of == b, magnitude, 0.0).sum(-1) for b in range(bins)], dim=-1)


def by_cell(image: Tensor, edges: tuple[int, ...]) -> Tensor:
    """Cut images (B, C, *S) into cells, (B, C, *cells, voxels)."""
    ndim = len(edges)
    split = [n for size, edge in zip(image.shape[2:], edges, strict=True) for n in (size // edge, edge)]
    order = [0, 1, *range(2, 2 + 2 * ndim, 2), *range(3, 3 + 2 * ndim, 2)]
    return image.reshape(*image.shape[:2], *split).permute(order).flatten(2 + ndim)


def glyphs(edges: tuple[int, ...], bins: int) -> Tensor:
    """Draw one stroke per plane and bin, at right angles to the bin's gradients, (planes, bins, *edges) in 0 to 1."""
    places = torch.meshgrid(*(torch.arange(edge) - (edge - 1) / 2 for edge in edges), indexing="ij")
    angles = (torch.arange(bins) + 0.5) * math.pi / bins
    turned = angles.reshape(-1, *(1,) * len(edges))
    planes = [
        torch.exp(-2.0 * (places[a] * turned.cos() + places[b] * turned.sin()).square())
        for a, b in combinations(range(len(edges)), 2)
    ]
    return torch.stack(planes)


def _difference(image: Tensor, axis: int) -> Tensor:
    """Subtract from the voxel before the one after; 0 at both ends, where reflection makes them equal."""
    result, inner = torch.zeros_like(image), image.shape[axis] - 2
    if inner > 0:
        torch.sub(image.narrow(axis, 0, inner), image.narrow(axis, 2, inner), out=result.narrow(axis, 1, inner))
    return result


def _smoothed(image: Tensor, axis: int) -> Tensor:
    """Add to twice a voxel its two neighbours, reflected at the ends; an axis of one voxel is its own neighbour."""
    result, last = image * 2.0, image.shape[axis] - 1
    result.narrow(axis, 1, last).add_(image.narrow(axis, 0, last))
    result.narrow(axis, 0, last).add_(image.narrow(axis, 1, last))
    for end, neighbour in ((0, min(1, last)), (last, max(last - 1, 0))):
        result.narrow(axis, end, 1).add_(image.narrow(axis, neighbour, 1))
    return result
