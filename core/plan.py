"""Plan: what the encoder may see, what is hidden, and where each loss is scored; three separate decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from core.errors import ConfigError
from core.shapes import Grid

Where = Literal["hide", "see", "both"]
"""Where a loss is scored: at hidden tokens, at seen ones, or at both."""


@dataclass(frozen=True)
class Guide:
    """What a masker may know beside the batch itself.

    Attributes:
        hint: (B, N) real, higher = more worth hiding: attention, predicted loss. None = this step has none.
        progress: scalar tensor, share of the training that is done, 0 to 1; 0 in evaluation, so that masks are fixed.
    """

    hint: Tensor | None = None
    progress: Tensor | None = None


NO_GUIDE = Guide()


@dataclass(frozen=True)
class Plan:
    """One batch's masking decision over the tokens of a grid.

    Attributes:
        see: (B, N) bool, True = the encoder may read this token. Never an invalid token.
        hide: (B, N) bool, True = this token is to be predicted. Never an invalid token.
        score: per named loss term (B, N) weight, float or bool; a term that is absent is scored on `hide`.
        voxels: (B, 1 or C, *S) bool, True = this voxel is hidden, for masks that do not follow tokens; None = they do.
        covered: (B, N) float, share of each hidden token that `voxels` hides; None = all of it.
    """

    see: Tensor
    hide: Tensor
    score: dict[str, Tensor] = field(default_factory=dict)
    voxels: Tensor | None = None
    covered: Tensor | None = None

    @cached_property
    def seen_index(self) -> tuple[Tensor, Tensor]:
        """Where the seen tokens are, as `visible_index` gives it; computed once for all who gather them."""
        return visible_index(self.see)

    @cached_property
    def complete(self) -> bool:
        """True where every token is seen or hidden, so that none of them is invalid."""
        return bool((self.see | self.hide).all())

    def weigh(self, weight: Tensor, term: str, where: Where = "hide") -> Tensor:
        """Restrict a target's weight (B, N, P) to where a loss term is scored: its own tokens, or those of `where`.

        A hidden token counts as far as it is covered. Yes-or-no weights stay boolean, which keeps the loss cheap.
        """
        tokens = {"hide": self.hide, "see": self.see, "both": self.hide | self.see}[where]
        scored = self.score.get(term, tokens)
        if self.covered is not None:
            scored = scored * torch.where(self.hide, self.covered, 1.0)
        scored = scored[..., None]
        both = weight.dtype == scored.dtype == torch.bool
        return weight & scored if both else weight * scored


def hide_share(priority: Tensor, valid: Tensor, ratio: float) -> Plan:
    """Hide the exact share `ratio` of each sample's valid tokens, highest priority first; the rest is seen.

    Hidden are ceil(ratio * valid tokens), one less where that would leave nothing to see. Ties fall in raster order.

    Args:
        priority: (B, N) any real dtype, the score field of a masker; (B, places) stands for every group of bands alike.
        valid: (B, N) bool; other tokens are neither seen nor hidden and never counted.
        ratio: hidden share, 0 to 1.
    """
    return hide_number(priority, valid, hidden_count(valid, ratio))


def hide_number(priority: Tensor, valid: Tensor, hidden: Tensor) -> Plan:
    """Hide so many of each sample's valid tokens (B,), highest priority first; arguments else as `hide_share`."""
    priority = priority.repeat(1, valid.shape[1] // priority.shape[1])
    rank = ranked(torch.where(valid, priority, torch.inf))
    see = valid & (rank < (valid.sum(dim=1) - hidden)[:, None])
    return Plan(see=see, hide=valid & ~see)


def ranked(score: Tensor) -> Tensor:
    """Give each entry's place in its row when sorted, smallest = 0; equal ones in the order they stand, (B, N) int64."""
    order = score.argsort(dim=1, stable=True)
    places = torch.arange(score.shape[1], device=score.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def hidden_count(valid: Tensor, ratio: float | Tensor) -> Tensor:
    """Count how many of each sample's valid tokens (B, N) are hidden, (B,) int64; one at least stays to be seen.

    Args:
        valid: (B, N) bool.
        ratio: hidden share, 0 to 1, of all samples, or (B,) each sample's own.
    """
    # whole numbers: 10 tokens at 0.9 must hide 9 on every device
    if isinstance(ratio, Tensor):
        millionths: int | Tensor = (ratio.to(torch.float64) * 1_000_000).round().to(torch.int64)
    else:
        millionths = round(ratio * 1_000_000)
    counted = valid.sum(dim=1, dtype=torch.int64)
    hidden = (counted * millionths + 999_999) // 1_000_000
    return torch.minimum(hidden, (counted - 1).clamp(min=0))


def check_ratio(ratio: float) -> None:
    """Refuse a ratio that hides nothing or everything.

    Raises:
        ConfigError: it is not above 0 and below 1.
    """
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"expected a mask ratio above 0 and below 1, got {ratio}.")


def check_grid(grid: Grid) -> None:
    """Refuse a grid on which nothing can be hidden while something is seen.

    Raises:
        ConfigError: it has fewer than two tokens.
    """
    if grid.num_tokens < 2:
        raise ConfigError(
            f"expected at least two tokens, one to see and one to hide, got {grid.num_tokens} for patch {grid.patch}: "
            "choose a smaller patch or a larger crop."
        )


def visible_index(see: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a boolean choice (B, N) into gather indices (B, V) and which of them are real, (B, V) bool.

    V is the largest count of the batch; shorter samples are padded with slots that are not real.
    """
    count = see.sum(dim=1)
    longest = int(count.max()) if len(count) else 0
    index = torch.argsort((~see).to(torch.uint8), dim=1, stable=True)[:, :longest]
    return index, torch.arange(longest, device=see.device)[None] < count[:, None]


def spread(visible: Tensor, see: Tensor, fill: Tensor) -> Tensor:
    """Put visible tokens (B, V, D), raster order, back on the full grid (B, N, D) with `fill` everywhere else."""
    if visible.shape[1] == 0:
        return fill.expand(*see.shape, visible.shape[2])
    slot = (see.cumsum(dim=1) - 1).clamp(min=0)
    full = visible.gather(1, slot[..., None].expand(-1, -1, visible.shape[2]))
    return torch.where(see[..., None], full, fill)
