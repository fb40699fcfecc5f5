"""What a teacher attends to: hide the most attended tokens, or all but some of them, or keep what it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._hints import descending_ranks, hint_of, share_of
from core.maskers.base import Hint, Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class AttentionGuided(Masker):
    """Hide by a teacher's class attention, averaged over heads (AttMask, Kakogeorgiou et al. 2022, arXiv 2203.12719).

    Mode `sample` is MaskAlign's (Xue et al. 2023, arXiv 2211.08887): what stays visible is drawn without replacement
    in proportion to attention, which is to keep the highest of log attention plus Gumbel noise.

    Deviations: shares are of each sample's *valid* tokens; in mode `hint` the next most attended tokens are hidden for
    those that are revealed, so that the hidden count is exact. `count="floor"` is the release: whole part of the share,
    revealed tokens make it fewer. Equal attention falls by chance, not in raster order.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        mode: `high`: the most attended are hidden; `low`: the least; `hint`: the most, but a few of the top are revealed;
            `sample`: the least, by chance.
        reveal: share of tokens that are revealed, of the `top` share of tokens; mode `hint` only.
        top: share of tokens from which the revealed ones are drawn.
        applied: share of samples that are masked at all; in the others everything is seen and nothing hidden. AttMask
            masks half of them; below 1 the hidden count is exact only in samples that are masked.
        count: `ceil`, or `floor` as the release counts.
    """

    hint: ClassVar[Hint | None] = "attention"
    ratio: float = 0.3
    mode: Literal["high", "low", "hint", "sample"] = "high"
    reveal: float = 0.05
    top: float = 0.1
    applied: float = 1.0
    count: Literal["ceil", "floor"] = "ceil"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 < self.reveal <= self.top <= 1.0 - self.reveal:
            raise ConfigError(
                f"expected 0 < reveal <= top <= 1 - reveal, as shares of all tokens, got reveal {self.reveal} "
                f"and top {self.top}."
            )
        if self.mode == "hint" and self.ratio + self.reveal >= 1.0:
            raise ConfigError(
                f"expected ratio + reveal below 1, so that revealed tokens find others to hide in their place, "
                f"got {self.ratio} and {self.reveal}."
            )
        if not 0.0 < self.applied <= 1.0:
            raise ConfigError(f"expected a share of masked samples above 0 and at most 1, got {self.applied}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token."""
        check_grid(grid)

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch.

        Raises:
            ConfigError: the guide has no hint.
        """
        valid = valid_tokens(batch, grid)
        score = hint_of(guide, valid, "attention")
        noise = rng.split("attention").uniform(grid.num_tokens)
        if self.mode == "low":
            score = -score
        elif self.mode == "sample":
            gumbel = -torch.log(-torch.log(rng.split("attention sample").uniform(grid.num_tokens) + 1e-12) + 1e-12)
            score = -(torch.log(score) + gumbel)  # attention 0 is never kept while another can be

        rank = descending_ranks(score, valid, noise)
        total = valid.sum(dim=1, dtype=torch.int64)
        hidden = hidden_count(valid, self.ratio) if self.count == "ceil" else share_of(total, self.ratio)
        if self.mode == "hint":
            among = valid & (rank < share_of(total, self.top)[:, None])
            drawn = descending_ranks(rng.split("attention reveal").uniform(grid.num_tokens), among, noise)
            revealed = among & (drawn < share_of(total, self.reveal)[:, None])
            if self.count == "ceil":
                rank = descending_ranks(score, valid & ~revealed, noise)
            hide = valid & ~revealed & (rank < hidden[:, None])
        else:
            hide = valid & (rank < hidden[:, None])
        if self.applied < 1.0:
            hide = hide & (rng.split("attention applied").uniform() <= self.applied)[:, None]
        return Plan(see=valid & ~hide, hide=hide)
