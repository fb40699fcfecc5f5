"""The masker interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from core.batch import Batch
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


class Masker(ABC):
    """Decide what is seen and what is hidden: a pure function of the batch's validity and the samples' random streams."""

    part_kind: ClassVar[str] = "maskers"

    @abstractmethod
    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng) -> Plan:
        """Plan one batch; hidden tokens = ratio x valid tokens, exactly, in every sample."""
