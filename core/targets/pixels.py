"""The patch's own voxels: raw, or normalised within the patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch
from core.errors import ConfigError
from core.shapes import Grid, patchify, unpatchify
from core.targets.base import Target


@dataclass(frozen=True, kw_only=True)
class Pixels(Target):
    """Predict voxels (He et al. 2021, arXiv 2111.06377, 3 and Table 1d).

    Deviations: normalisation is per band, so that the spectrum's offsets do not fill the target, over measured voxels
    only, with a floor on the variance, so that air, ocean or fill do not become unit-variance noise.

    Attributes:
        normalise: `per_band`: subtract each patch's and band's mean and divide by its deviation; `joint`: all bands
            together, variance + 1e-6, as the reference does; `none`: the encoder's value space as it is.
        variance_floor: smallest variance that is divided by, in squared units of the value space; `per_band` only.
    """

    normalise: Literal["per_band", "joint", "none"] = "per_band"
    variance_floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.variance_floor <= 0:
            raise ConfigError(f"expected a variance floor above 0, got {self.variance_floor}.")

    def num_values(self, bands: int, patch: tuple[int, ...]) -> int:
        """All voxels of all bands."""
        return bands * Grid(patch, patch).voxels

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the patch vectors, band-major, and 1 where they were measured."""
        value = patchify(batch.image, grid.patch)
        weight = patchify(batch.valid, grid.patch).to(value.dtype)
        mean, deviation = self._statistics(value, weight, grid)
        return (value - mean) / deviation, weight

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Undo the normalisation with each true patch's own statistics, which a reader should be told."""
        weight = patchify(batch.valid, grid.patch).to(torch.float32)
        mean, deviation = self._statistics(patchify(batch.image, grid.patch), weight, grid)
        return unpatchify(prediction * deviation + mean, grid)

    def _statistics(self, value: Tensor, weight: Tensor, grid: Grid) -> tuple[Tensor | float, Tensor | float]:
        """Mean and deviation over measured voxels, expanded to (B, N, P)."""
        if self.normalise == "none":
            return 0.0, 1.0
        bands = value.shape[2] // grid.voxels if self.normalise == "per_band" else 1
        apart = (*value.shape[:2], bands, -1)
        v, w = value.reshape(apart), weight.reshape(apart)
        count = w.sum(-1, keepdim=True)
        mean = (v * w).sum(-1, keepdim=True) / count.clamp(min=1.0)
        variance = ((v - mean).square() * w).sum(-1, keepdim=True) / (count - 1.0).clamp(min=1.0)  # unbiased, as MAE
        floored = variance + 1e-6 if self.normalise == "joint" else variance.clamp(min=self.variance_floor)
        return mean.expand_as(v).reshape(value.shape), floored.sqrt().expand_as(v).reshape(value.shape)
