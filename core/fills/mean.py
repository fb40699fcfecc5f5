"""The mean of what is visible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.fills._visible import filled, hidden_voxels, visible_statistics
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Mean(Fill):
    """Replace hidden voxels by the mean of the sample's visible ones, band by band (A2MIM, Li et al. 2022, arXiv 2205.13943).

    Deviations: the reference takes the mean of the whole image, hidden part included, over all bands; here nothing of what
    is hidden enters it, and missing voxels do not either.
    """

    ability: ClassVar[Ability] = "dense"

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch with its hidden voxels replaced."""
        mean, _ = visible_statistics(batch, plan, grid)
        return filled(batch, mean, hidden_voxels(batch, plan, grid))
