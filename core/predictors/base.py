"""The predictor interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from core.encoders.base import Backbone


class PredictorSpec(ABC):
    """A frozen description of a predictor."""

    part_kind: ClassVar[str] = "predictors"

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
