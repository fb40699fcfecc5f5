"""The patch's own voxels: raw, or normalised within the patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
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

    def num_values(self, entry: Input) -> int:
        """All voxels of all bands, or of the largest group."""
        return max(len(group) for group in entry.groups or (entry.bands,)) * entry.grid().voxels

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the patch vectors, band-major, and 1 where they were measured."""
        value, weight = patchify(batch.image, grid.patch), self._measured(batch, grid)
        if self.normalise == "none":
            return value, weight
        mean, deviation = self._statistics(value, weight, batch.complete, grid)
        apart = (*mean.shape[:3], -1)
        return ((value.reshape(apart) - mean) / deviation).reshape(value.shape), weight

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Undo the normalisation with each true patch's own statistics, which a reader should be told."""
        if self.normalise == "none":
            return unpatchify(prediction, grid)
        value = patchify(batch.image, grid.patch)
        mean, deviation = self._statistics(value, self._measured(batch, grid), batch.complete, grid)
        apart = (*mean.shape[:3], -1)
        return unpatchify((prediction.reshape(apart) * deviation + mean).reshape(value.shape), grid)

    def _measured(self, batch: Batch, grid: Grid) -> Tensor:
        if batch.complete:
            everywhere = torch.ones((), dtype=torch.bool, device=batch.valid.device)
            return everywhere.expand(len(batch), grid.num_tokens, len(batch.bands) * grid.voxels)
        return patchify(batch.valid, grid.patch)

    def _statistics(self, value: Tensor, weight: Tensor, complete: bool, grid: Grid) -> tuple[Tensor, Tensor]:
        """Mean and deviation over measured voxels, (B, N, bands or 1, 1); the variance is unbiased, as MAE's."""
        bands = value.shape[2] // grid.voxels if self.normalise == "per_band" else 1
        v = value.reshape(*value.shape[:2], bands, -1)
        if complete and v.shape[3] > 1:
            variance, mean = torch.var_mean(v, dim=3, keepdim=True)
        else:
            w = weight.reshape(v.shape)
            count = w.sum(3, keepdim=True)
            mean = (v * w).sum(3, keepdim=True) / count.clamp(min=1)
            variance = ((v - mean).square() * w).sum(3, keepdim=True) / (count - 1).clamp(min=1)
        floored = variance + 1e-6 if self.normalise == "joint" else variance.clamp(min=self.variance_floor)
        return mean, floored.sqrt()
