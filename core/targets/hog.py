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
from core.shapes import Grid, unpatchify
from core.targets._eroded import eroded
from core.targets._orientations import (
    binned,
    bordered,
    by_cell,
    difference,
    orientations,
    pieces,
    places_of,
    slopes,
)
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
        image, ndim, cells = batch.image.detach(), grid.ndim, self.cells(grid.patch)
        edges = tuple(edge // count for edge, count in zip(grid.patch, cells, strict=True))
        planes = tuple(combinations(range(ndim), 2))
        value = image.new_empty(len(image), *grid.tokens, len(batch.bands), len(planes), self.bins, *cells)
        weight = torch.ones_like(value, dtype=torch.bool)
        by_axis = [n for axis in range(ndim) for n in (1 + axis, 4 + ndim + axis)]  # tokens and cells, axis by axis
        order = (0, *range(1 + ndim, 4 + ndim), *by_axis)
        self._fill(value.permute(order), weight.permute(order), batch, edges, planes)
        value, weight = (part.flatten(1, ndim).flatten(2) for part in (value, weight))
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

    def _fill(
        self,
        histogram: Tensor,
        weight: Tensor,
        batch: Batch,
        edges: tuple[int, ...],
        planes: tuple[tuple[int, int], ...],
    ) -> None:
        """Write histograms (B, C, planes, bins, tokens, cells, tokens, cells, ...), and which of them count."""
        image = batch.image.detach()
        patch = image.shape[2] // histogram.shape[4]
        share = batch.spacing.amin(1, keepdim=True) / batch.spacing
        even = image.device.type == "cpu" and bool((share == 1).all())  # a GPU would be waited for
        windows = [self._window(batch.size, axes).to(image) for axes in planes]
        places = places_of(edges, batch.size, self.bins, image.device)
        for piece in pieces(image, patch):
            part = bordered(image[piece.samples, piece.bands, piece.rows], piece.ends)
            differences = {axis: difference(part, axis) for axis in range(len(edges))}
            valid = None if batch.complete else batch.valid[piece.samples, piece.bands, piece.rows]
            for plane, (axes, window) in enumerate(zip(planes, windows, strict=True)):
                found = slopes(differences, None if even else share[piece.samples], axes)
                magnitude, number = orientations(*found, self.bins)
                if len(window) > 1:
                    window = window[piece.own]
                solid = None if valid is None else eroded(valid, axes=axes)[:, :, piece.inner]
                if self.gaussian:
                    magnitude *= window
                if solid is not None:
                    magnitude.masked_fill_(~solid, 0.0)
                sums = binned(magnitude, number, edges, self.bins, places)
                place = piece.samples, piece.bands, plane, slice(None), piece.tokens
                if solid is not None:
                    counts = _measured(solid, window, edges)
                    sums = torch.where(counts >= 0.5, sums / counts.clamp(min=0.5), 0.0)
                    weight[place] = _apart(counts >= 0.5, weight[place].shape)
                if self.normalise == "bins":
                    length = sums.square().sum(3, keepdim=True).sqrt_()  # 20 times as fast as a norm over this axis
                    sums /= length.clamp_(min=self.floor * _GAIN * math.prod(edges))
                histogram[place] = _apart(sums, histogram[place].shape)

    def _window(self, size: tuple[int, ...], axes: tuple[int, int]) -> Tensor:
        """Weight of every voxel, of a shape that broadcasts to `size`; sums to 1 over one tile of the plane."""
        window = torch.ones((1,) * len(size))
        for axis in axes if self.gaussian else ():
            place = torch.arange(self.gaussian, dtype=torch.float32) - (self.gaussian - 1) / 2
            bell = torch.exp(-0.5 * (place / (self.gaussian / 2)).square())
            bell = (bell / bell.sum())[torch.arange(size[axis]) % self.gaussian]
            window = window * bell.reshape([-1 if i == axis else 1 for i in range(len(size))])
        return window


def _measured(solid: Tensor, window: Tensor, edges: tuple[int, ...]) -> Tensor:
    """Measure how much of each cell's window rests on data, (B, C, cells of the first axis, 1, *other cells)."""
    whole = by_cell(window.expand(1, 1, *solid.shape[2:]), edges).sum(-1)
    return (by_cell(solid * window, edges).sum(-1) / whole).unsqueeze(3)


def _apart(cells: Tensor, shape: torch.Size) -> Tensor:
    """Turn (B, C, cells of the first axis, bins, *other cells) into (B, C, bins, tokens, cells, tokens, cells, ...)."""
    return cells.movedim(3, 2).reshape(*shape[:2], cells.shape[3], *shape[3:])


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
