"""The amplitude spectrum of each patch: how strong each spatial frequency is, wherever in the patch it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError
from core.shapes import Grid, patchify
from core.targets.base import Target


@dataclass(frozen=True, kw_only=True)
class Frequency(Target):
    """Predict the amplitudes of a patch's Fourier transform, band by band.

    Source: the Fourier domain as a place of reconstruction (Ge2-AE, Liu et al. 2022, arXiv 2204.08227). Deviations:
    amplitudes alone, so that texture counts and its exact place does not; per patch and band, so that missing data
    weakens only the tokens that it lies in; any rank.

    A spectrum mixes all voxels of a patch: a patch with a missing voxel in a band has no weight in that band.

    Attributes:
        scale: `log`: log(1 + amplitude), because low frequencies are orders of magnitude stronger than high ones;
            `none`: the amplitude, orthonormal, in the encoder's value space.
    """

    scale: Literal["log", "none"] = "log"

    def __post_init__(self) -> None:
        if self.scale not in ("log", "none"):
            raise ConfigError(f"expected the scale 'log' or 'none' for amplitudes, got '{self.scale}'.")

    def num_values(self, entry: Input) -> int:
        """Half of the spectrum of every band, the other half being its mirror; of the largest group."""
        return max(len(group) for group in entry.groups or (entry.bands,)) * _frequencies(entry.patch)

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the amplitudes, band-major and the last axis halved, and whether the patch is whole in that band."""
        image = patchify(batch.image, grid.patch).unflatten(2, (len(batch.bands), *grid.patch))
        axes = tuple(range(3, image.ndim))
        amplitude = torch.fft.rfftn(image, dim=axes, norm="ortho").abs()
        if self.scale == "log":
            amplitude = torch.log1p(amplitude)
        if batch.complete:
            whole = torch.ones((), dtype=torch.bool, device=image.device).expand(image.shape[:3])
        else:
            whole = patchify(batch.valid, grid.patch).unflatten(2, (len(batch.bands), -1)).all(3)
        weight = whole[..., None].expand(-1, -1, -1, _frequencies(grid.patch))
        return amplitude.flatten(2), weight.flatten(2)

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> None:
        """None: amplitudes without phases are no image."""
        return


def _frequencies(patch: tuple[int, ...]) -> int:
    return math.prod(patch[:-1]) * (patch[-1] // 2 + 1)
