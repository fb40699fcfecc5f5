"""Colours for tokens: the three directions in which the tokens of a scene differ most, drawn as red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import DataError

_PERCENT = (1.0, 99.0)  # of the sample that are drawn as black and white


@dataclass(frozen=True, eq=False)
class TokenColours:
    """From tokens to three numbers in 0..1.

    Attributes:
        mean: (D,) of the sample.
        axes: (3, D) principal directions; those that a sample lacks are 0.
        low: (3,) and
        high: (3,): what is drawn black and white.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, sample: Tensor) -> TokenColours:
        """Find the directions of a sample of tokens (N, D); the same sample gives the same colours.

        The sign of each direction is fixed: its largest loading is positive.

        Raises:
            DataError: fewer than four tokens, or all of them alike.
        """
        if len(sample) < 4:
            raise DataError(f"expected at least 4 tokens to choose colours by, got {len(sample)}; map a larger scene.")
        tokens = sample.detach().to("cpu", torch.float64)
        mean = tokens.mean(0)
        _, spread, loadings = torch.linalg.svd(tokens - mean, full_matrices=False)
        if float(spread[0]) <= 1e-9 * float(tokens.abs().max().clamp(min=1e-30)):
            raise DataError("expected tokens that differ, but all of them are alike: the scene is the same everywhere.")
        axes = torch.zeros(3, tokens.shape[1], dtype=torch.float64)
        kept = loadings[:3][spread[:3] > 1e-9 * spread[0]]
        axes[: len(kept)] = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
        parts = (tokens - mean) @ axes.T
        low, high = (torch.quantile(parts, percent / 100, dim=0) for percent in _PERCENT)
        flat = high - low <= 0  # drawn mid-grey
        low, high = torch.where(flat, low - 0.5, low), torch.where(flat, high + 0.5, high)
        return cls(*(part.to(torch.float32) for part in (mean, axes, low, high)))

    def __call__(self, maps: Tensor) -> Tensor:
        """Colour maps of tokens (B, D, Y, X): (B, 3, Y, X), unbounded; 0 is black and 1 is white."""
        mean, axes, low, high = (part.to(maps.device) for part in (self.mean, self.axes, self.low, self.high))
        parts = torch.einsum("bdyx,cd->bcyx", maps.float() - mean[:, None, None], axes)
        return (parts - low[:, None, None]) / (high - low)[:, None, None]
