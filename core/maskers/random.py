"""Uniformly random tokens, the masker of MAE."""

from __future__ import annotations

from dataclasses import dataclass

from core.batch import Batch, valid_tokens
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
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
        check_ratio(self.ratio)

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token."""
        check_grid(grid)

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        noise = rng.split("random").uniform(grid.num_tokens)
        return hide_share(noise, valid_tokens(batch, grid), self.ratio)
