"""Ranking tokens where `core.plan.hide_share` alone is not enough: ties that fall either way, ranks within a part of a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from core.rng import SampleRng


def either_way(priority: Tensor, rng: SampleRng) -> Tensor:
    """Let equal priorities (B, places) fall in raster order in one half of the samples, against it in the other, float64.

    A cell or box of which only a part is hidden would otherwise always lose its first tokens.
    """
    way = torch.where(rng.split("way").uniform(1) < 0.5, -1.0, 1.0)
    index = torch.arange(priority.shape[1], device=priority.device)
    return priority.double() + (way * index).double() * 2.0**-50  # below the 24 bits of a draw, for 2^26 places


def ranked_within(score: Tensor, part: Tensor, counted: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Rank the counted entries of each part of each row by themselves.

    Args:
        score: (B, N) in [0, 1].
        part: (B, N) int64, which of the `parts` an entry belongs to.
        counted: (B, N) bool; the rank of other entries means nothing.
        parts: how many there are.

    Returns:
        The rank within its part, smallest score = 0, (B, N) int64; and the counted entries of each part, (B, parts) int64.
    """
    owner = torch.where(counted, part, parts)
    each = torch.nn.functional.one_hot(owner, parts + 1).sum(dim=1)
    before = each.cumsum(dim=1) - each
    # two stable sorts, because part + score in one float would lose the score's last digits
    by_score = score.argsort(dim=1, stable=True)
    order = by_score.gather(1, owner.gather(1, by_score).argsort(dim=1, stable=True))
    places = torch.arange(score.shape[1], device=score.device).expand_as(order)
    position = torch.empty_like(order).scatter_(1, order, places)
    return position - before.gather(1, owner), each[:, :parts]
