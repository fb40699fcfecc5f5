"""Each band's mean over the patch: the spectrum that per-band normalised pixels leave out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError
from core.shapes import Grid, patchify, unpatchify
from core.targets.base import Target


@dataclass(frozen=True, kw_only=True)
class BandMean(Target):
    """Predict one number per token and band, a companion of `pixels` that are normalised per band.

    Source: ours. Statistics of all bands together make a target that is mostly the offset between bands, statistics per
    band remove it; the pair of targets keeps both in proportion.
    Deviations: none, there is no reference.

    Attributes:
        least: share of a patch's voxels of a band that must be measured for its mean to count, above 0 and at most 1.
    """

    least: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"expected a share above 0 and at most 1, got {self.least}.")

    def num_values(self, entry: Input) -> int:
        """Bands, or those of the largest group."""
        return max(len(group) for group in entry.groups or (entry.bands,))

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give means over measured voxels, and 1 where enough of them were."""
        apart = (len(batch), grid.num_tokens, len(batch.bands), grid.voxels)
        value = patchify(batch.image, grid.patch).reshape(apart)
        if batch.complete:
            mean = value.mean(-1)
            return mean, torch.ones((), dtype=torch.bool, device=mean.device).expand_as(mean)
        known = patchify(batch.valid, grid.patch).reshape(apart)
        count = known.sum(-1)
        mean = torch.where(known, value, 0.0).sum(-1) / count.clamp(min=1)
        return mean, count >= self.least * grid.voxels

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Fill each patch with its means."""
        return unpatchify(prediction.repeat_interleave(grid.voxels, dim=2), grid)
