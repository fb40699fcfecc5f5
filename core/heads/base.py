"""The head interface: a frozen spec that builds a module from features (B, D) to an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class HeadSpec(ABC):
    """A frozen description of a head."""

    part_kind: ClassVar[str] = "heads"

    @abstractmethod
    def build(self, num_features: int) -> nn.Module:
        """Make it for features of width `num_features`, with fresh weights from torch's current generator."""
