"""The target interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.shapes import Grid


class Target(ABC):
    """A pure function of the clean, prepared batch; nothing learns here.

    Attributes:
        is_code: the value is one code per token, (B, N, 1), and `num_values` counts the logits that are scored against it by
            cross-entropy; else values are numbers, as many as are predicted.
    """

    part_kind: ClassVar[str] = "targets"
    is_code: ClassVar[bool] = False

    @property
    def detail(self) -> int:
        """How many times the size of the encoder's input the batch is that it is called with: 1, unless it says otherwise."""
        return 1

    @abstractmethod
    def num_values(self, entry: Input) -> int:
        """P, the numbers to predict per token of an input; with band groups, of the largest group.

        Raises:
            ConfigError: the input's patch, bands or rank do not suit this target.
        """

    @abstractmethod
    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give value (B, N, P) float32 and weight (B, N, P) float or bool, 0 where the value rests on missing data.

        The grid has no band groups; `core.groups.by_group` calls a target once for each.
        """

    @abstractmethod
    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor | None:
        """Turn a prediction (B, N, P) into an image (B, C, *S) that people can look at; None = it cannot be drawn."""
