"""Plan: what the encoder may see, what is hidden, and where each loss is scored; three separate decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """One batch's masking decision over the tokens of a grid.

    Attributes:
        see: (B, N) bool, True = the encoder may read this token. Never an invalid token.
        hide: (B, N) bool, True = this token is to be predicted. Never an invalid token.
        score: per named loss term (B, N) weight, float or bool; a term that is absent is scored on `hide`.
    """

    see: Tensor
    hide: Tensor
    score: dict[str, Tensor] = field(default_factory=dict)

    def weigh(self, weight: Tensor, term: str) -> Tensor:
        """Restrict a target's weight (B, N, P) to where a loss term is scored: its own tokens, or the hidden ones.

        Yes-or-no weights stay boolean, which keeps the loss cheap.
        """
        where = self.score.get(term, self.hide)[..., None]
        both = weight.dtype == where.dtype == torch.bool
        return weight & where if both else weight * where


def hide_share(priority: Tensor, valid: Tensor, ratio: float) -> Plan:
    """Hide the exact share `ratio` of each sample's valid tokens, highest priority first; the rest is seen.

    Hidden are ceil(ratio * valid tokens), one less where that would leave nothing to see. Ties fall in raster order.

    Args:
        priority: (B, N) any real dtype, the score field of a masker.
        valid: (B, N) bool; other tokens are neither seen nor hidden and never counted.
        ratio: hidden share, 0 to 1.
    """
    millionths = round(ratio * 1_000_000)  # whole numbers: 10 tokens at 0.9 must hide 9 on every device
    counted = valid.sum(dim=1, dtype=torch.int64)
    hidden = (counted * millionths + 999_999) // 1_000_000
    kept = counted - torch.minimum(hidden, (counted - 1).clamp(min=0))
    order = torch.where(valid, priority, torch.inf).argsort(dim=1, stable=True)
    places = torch.arange(priority.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    see = valid & (rank < kept[:, None])
    return Plan(see=see, hide=valid & ~see)


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
