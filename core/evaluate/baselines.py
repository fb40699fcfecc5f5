"""What every encoder must beat: pixel statistics, which know no structure, and itself with random weights.

The second is built where encoders are built: the same spec, freshly initialised, never trained, once per seed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch

ENCODER = "encoder"
RANDOM_WEIGHTS = "random weights"
PIXEL_STATISTICS = "pixel statistics"

PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
GRID = {2: 8, 3: 4}
"""Cells along each axis of the downscaled image: 64 in 2D and in 3D."""


def pixel_statistics(batch: Batch) -> Tensor:
    """Describe each image by its intensities, (B, F) float32 in the encoder's value space; only measured voxels count.

    Per band: mean, standard deviation, percentiles 5 25 50 75 95, and the means of 8 x 8 (2D) or 4 x 4 x 4 (3D) cells;
    F = 71 bands. A cell without measured voxels takes the band's mean; a band without any is 0 throughout.
    """
    batch = batch.normalised()
    image, valid = batch.image, batch.valid
    values, measured = image.flatten(2), valid.flatten(2)
    count = measured.sum(-1)
    total = count.clamp(min=1)
    mean = values.sum(-1) / total  # `normalised` left zeros where nothing was measured
    centred = (values - mean[..., None]) * measured
    std = (centred.square().sum(-1) / total).sqrt()
    statistics = [mean[..., None], std[..., None], _percentiles(values, measured), _cells(image, valid, mean)]
    return torch.cat(statistics, dim=-1).flatten(1)


def _percentiles(values: Tensor, measured: Tensor) -> Tensor:
    """Interpolate linearly between order statistics as numpy does, (B, C, 5)."""
    ordered = torch.where(measured, values, torch.inf).sort(dim=-1).values
    last = (measured.sum(-1, keepdim=True) - 1).clamp(min=0)
    position = last * torch.tensor(PERCENTILES, device=values.device, dtype=torch.float64) / 100
    low = position.floor().long()
    high = torch.minimum(low + 1, last)
    share = (position - low).to(values.dtype)
    found = torch.lerp(ordered.gather(-1, low), ordered.gather(-1, high), share)
    return torch.where(measured.any(-1, keepdim=True), found, 0.0)


def _cells(image: Tensor, valid: Tensor, mean: Tensor) -> Tensor:
    """Average the measured voxels of each cell, (B, C, cells)."""
    ndim = image.ndim - 2
    pool = F.adaptive_avg_pool2d if ndim == 2 else F.adaptive_avg_pool3d
    share = pool(valid.to(image.dtype), GRID[ndim])
    total = pool(image, GRID[ndim])
    cells = torch.where(share > 0, total / share.clamp(min=1e-12), mean.reshape(*mean.shape, *(1,) * ndim))
    return cells.flatten(2)
