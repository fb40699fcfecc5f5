"""Nothing: the encoder computes on the seen tokens alone, as MAE's does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Drop(Fill):
    """Leave hidden tokens out (He et al. 2021, arXiv 2111.06377, 3)."""

    ability: ClassVar[Ability] = "drop"

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch as it is; the encoder leaves out what the plan hides."""
        return batch
