"""A learned token in place of each hidden one, at the entrance of the encoder or at a later stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.errors import ConfigError
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class MaskToken(Fill):
    """Replace hidden tokens by one learned vector (SimMIM, Xie et al. 2021, arXiv 2111.09886, 3.2).

    Attributes:
        stage: level of the encoder after which tokens are replaced; 0 = right after the patch embedding.
    """

    ability: ClassVar[Ability] = "token"
    stage: int = 0

    def __post_init__(self) -> None:
        if self.stage < 0:
            raise ConfigError(f"expected a stage of 0 or more for the mask token, got {self.stage}.")

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch as it is; the encoder puts the token where the plan hides."""
        return batch
