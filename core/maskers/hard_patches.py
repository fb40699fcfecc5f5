"""Patches that are hard to reconstruct: the share of them among what is hidden grows as training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._hints import descending_ranks, hint_of, share_of
from core.maskers.base import Hint, Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count, hide_share
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class HardPatches(Masker):
    """Hide what a network predicts to be hard, easy to hard (HPM, Wang et al. 2023, arXiv 2304.05919).

    Of the hidden tokens a share with the highest predicted loss is certain; the rest are random. The share rises linearly
    with the training's progress.

    Deviations: counts are of each sample's *valid* tokens; equal predictions fall by chance.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        start: share of the hidden tokens that are chosen for hardness at the beginning of the training, and wherever the
            guide does not say how far it is.
        end: that share at its end.
    """

    hint: ClassVar[Hint | None] = "loss"
    ratio: float = 0.75
    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ConfigError(f"expected 0 <= start <= end <= 1, got start {self.start} and end {self.end}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token."""
        check_grid(grid)

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch.

        Raises:
            ConfigError: the guide has no hint.
        """
        valid = valid_tokens(batch, grid)
        noise = rng.split("hard patches").uniform(grid.num_tokens)
        rank = descending_ranks(hint_of(guide, valid, "hard_patches"), valid, noise)
        progress = torch.zeros((), device=noise.device) if guide.progress is None else guide.progress
        share = self.start + (self.end - self.start) * progress
        certain = rank < share_of(hidden_count(valid, self.ratio), share)[:, None]
        return hide_share(noise + certain, valid, self.ratio)
