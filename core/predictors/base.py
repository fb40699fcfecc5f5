"""The predictor interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from core.contract import Contract


class PredictorSpec(ABC):
    """A frozen description of a predictor."""

    part_kind: ClassVar[str] = "predictors"

    @abstractmethod
    def build(self, encoder_width: int, contract: Contract, num_values: dict[str, int]) -> nn.Module:
        """Make the module: forward(tokens: Tokens, plan: Plan, batch: Batch) -> (B, N, P).

        Args:
            encoder_width: D of the tokens it reads.
            contract: the inputs, for positions at their nominal spacing.
            num_values: P of each input, by name.
        """
