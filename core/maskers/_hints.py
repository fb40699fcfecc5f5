"""Ranks of tokens by a score, for maskers that follow a guide's hint."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import ConfigError, ShapeError
from core.plan import Guide


def hint_of(guide: Guide, valid: Tensor, masker: str) -> Tensor:
    """Give the guide's hint, (B, N) float32 without gradient.

    Args:
        guide: what the recipe tells its masker.
        valid: (B, N) bool, whose shape the hint must have.
        masker: its name, for the error.

    Raises:
        ConfigError: there is none.
        ShapeError: it is not of this grid.
    """
    if guide.hint is None:
        raise ConfigError(
            f"masker '{masker}' ranks tokens by a hint and got none: use it in a recipe whose network gives one at "
            "every step, or choose a masker that needs no network, such as 'random'."
        )
    if guide.hint.shape != valid.shape:
        raise ShapeError(
            f"masker '{masker}': expected a hint for each token, {tuple(valid.shape)}, got {tuple(guide.hint.shape)}."
        )
    return guide.hint.detach().to(torch.float32)


def descending_ranks(score: Tensor, among: Tensor, noise: Tensor) -> Tensor:
    """Rank tokens by score, (B, N) int64, 0 = highest; all tokens that are not `among` come last.

    Ties fall by noise, so that a score that is equal everywhere prefers no corner of the image. NaN is lowest.
    """
    lowest = torch.finfo(torch.float32).min
    score = torch.nan_to_num(score.to(torch.float32), nan=lowest, neginf=lowest)
    shuffled = noise.argsort(dim=1)
    score = torch.where(among, score, -torch.inf).gather(1, shuffled)
    order = shuffled.gather(1, score.argsort(dim=1, descending=True, stable=True))
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def share_of(count: Tensor, share: float | Tensor) -> Tensor:
    """Take the whole part of a share of counts (B,) int64, in whole numbers, so that it is the same on every device."""
    if isinstance(share, Tensor):
        millionths = (share.to(torch.float64) * 1_000_000).round().to(torch.int64)
        return count * millionths // 1_000_000
    return count * round(share * 1_000_000) // 1_000_000
