"""Noise as bright and as strong as what is visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.errors import ConfigError
from core.fills._visible import filled, hidden_voxels, visible_statistics
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Noise(Fill):
    """Replace hidden voxels by normal noise (GMML, Atito et al. 2022, arXiv 2205.14986, 3.1).

    Its mean and deviation are those of the sample's visible voxels, band by band, so that noise differs from tissue in
    texture and not in brightness.

    Deviations: the reference's noise has the same range for all images.

    Attributes:
        strength: deviation of the noise, in deviations of the visible voxels.
    """

    ability: ClassVar[Ability] = "dense"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.strength > 0.0:
            raise ConfigError(f"expected noise of a strength above 0, got {self.strength}; fill 'mean' has none.")

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch with its hidden voxels replaced."""
        mean, deviation = visible_statistics(batch, plan, grid)
        uniform = rng.split("noise fill").uniform(*batch.image.shape[1:])
        normal = (2.0 * uniform - 1.0 + 2.0**-24).erfinv() * 2.0**0.5  # half a step up: erfinv(-1) is not finite
        return filled(batch, mean + self.strength * deviation * normal, hidden_voxels(batch, plan, grid))
