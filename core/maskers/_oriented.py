"""How much of each token's gradient runs one way: edges and vessels score high, noise of the same contrast low."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.shapes import Grid
from core.targets._eroded import eroded
from core.targets.gradient import sobel

_BINS = 9


def oriented_energy(batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
    """Measure the length of each token's histogram of gradient orientations, as a target does: (B, N, C) and its weight.

    Orientations have no sign and nine bins, as in HOG (Dalal and Triggs 2005), one cell per token, in every plane of two
    axes; bins hold the mean gradient magnitude per unit of spacing over voxels whose neighbours are measured, each band in
    units of its own root mean square over the image. The weight is the share of such voxels.
    """
    steps = [batch.spacing[:, axis].reshape(-1, *(1,) * (grid.ndim + 1)) for axis in range(grid.ndim)]
    slopes = [sobel(batch.image, axis, 3) / step for axis, step in enumerate(steps)]
    solid = batch.valid if batch.complete else eroded(batch.valid)
    histograms = []
    for first, second in itertools.combinations(slopes, 2):
        length = torch.where(solid, (first.square() + second.square()).sqrt(), 0.0)
        turn = torch.atan2(first, second) / math.pi % 1.0  # half a turn, since an edge has no sign
        bin_of = (turn * _BINS).long().clamp(max=_BINS - 1)
        histograms += [_token_means(torch.where(bin_of == number, length, 0.0), grid) for number in range(_BINS)]
    energy = torch.stack(histograms).square().sum(dim=0).sqrt()
    share = _token_means(solid.to(torch.float32), grid)
    size = (energy.square().sum(1, keepdim=True) / (share > 0).sum(1, keepdim=True).clamp(min=1)).sqrt()
    return energy / share.clamp(min=1e-6) / size.clamp(min=1e-6), share


def _token_means(image: Tensor, grid: Grid) -> Tensor:
    """Average over each token's voxels, band by band, (B, N, C)."""
    pool = functional.avg_pool2d if grid.ndim == 2 else functional.avg_pool3d
    return pool(image, grid.patch).flatten(2).transpose(1, 2)
