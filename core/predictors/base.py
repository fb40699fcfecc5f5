"""The predictor interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from core.encoders.base import Backbone


class PredictorSpec(ABC):
    """A frozen description of a predictor."""

    part_kind: ClassVar[str] = "predictors"

    @property
    def reads_hidden(self) -> bool:
        """Whether it reads hidden tokens as the encoder returned them, and has nothing to say of those that were left out."""
        return False

    @property
    def scale(self) -> float:
        """Tokens that it predicts over tokens of the plan along an axis: 1, unless it says otherwise."""
        return 1.0

    @abstractmethod
    def levels(self, num_levels: int) -> tuple[int, ...]:
        """Name the inner stages whose tokens it reads, of an encoder with that many; usually none."""

    @abstractmethod
    def build(self, encoder: Backbone, num_values: dict[str, int]) -> nn.Module:
        """Make the module: forward(tokens: Tokens, plan: Plan, batch: Batch) -> (B, N, P) on the plan's grid.

        Args:
            encoder: whose tokens it reads: their widths, grids and inputs.
            num_values: P of each input, by name.

        Raises:
            ConfigError: the encoder's tokens do not suit it.
        """
