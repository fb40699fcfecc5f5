"""Uniformly random tokens, the masker of MAE."""

from __future__ import annotations

from dataclasses import dataclass

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers.base import Masker
from core.plan import Plan, hide_share
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Random(Masker):
    """Hide a share of the valid tokens, all equally likely (He et al. 2021, arXiv 2111.06377, 3).

    Deviations: the share is of each sample's *valid* tokens.

    Attributes:
        ratio: hidden share, above 0 and below 1.
    """

    ratio: float = 0.75

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0:
            raise ConfigError(f"expected a mask ratio above 0 and below 1, got {self.ratio}.")

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng) -> Plan:
        """Plan one batch."""
        noise = rng.split("random").uniform(grid.num_tokens)
        return hide_share(noise, valid_tokens(batch, grid), self.ratio)
