"""The masker interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from core.batch import Batch
from core.plan import NO_GUIDE, Guide, Plan
from core.rng import SampleRng
from core.shapes import Grid

Hint = Literal["attention", "loss"]


class Masker(ABC):
    """Decide what is seen and what is hidden: a pure function of the batch, the guide and the samples' random streams.

    A masker is a frozen dataclass. Nearly every one is a score field that `core.plan.hide_share` ranks.

    Attributes:
        ratio: hidden share of the valid tokens.
        hint: the guide's hint that it needs; None = it needs no network.
    """

    part_kind: ClassVar[str] = "maskers"
    hint: ClassVar[Hint | None] = None
    ratio: float

    @abstractmethod
    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid on which it cannot work as meant, when a recipe is built; `core.plan.check_grid` at least.

        Args:
            grid: of the input.
            spacing: nominal spacing of the input, array order, in its unit per voxel; a sample's own may differ.

        Raises:
            ConfigError: such as a box that is smaller than a token.
        """

    @abstractmethod
    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one prepared batch; hidden tokens = ratio x valid tokens, exactly, in every sample."""
