"""The fill interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


class Fill(ABC):
    """Decide what stands where content is hidden: nothing, a learned token, or other voxels.

    Attributes:
        ability: what the encoder must be able to do: `drop` = compute on the seen tokens alone; `token` = put a learned
            token in place of a hidden one; `dense` = read an image that was changed beforehand.
    """

    part_kind: ClassVar[str] = "fills"
    ability: ClassVar[Ability]

    @abstractmethod
    def check(self, entry: Input) -> None:
        """Refuse an input that it cannot fill, when a recipe is built: what it needs must be there.

        Raises:
            ConfigError: such as a file that is missing, or that is not for these bands and this patch.
        """

    @abstractmethod
    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the prepared batch as the encoder is shown it; a `drop` or `token` fill changes nothing."""
