"""Sizes that are given in token edges or in the batch's own unit of length, mm or m."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import ConfigError
from core.shapes import Grid


def token_edges(spacing: Tensor, grid: Grid) -> Tensor:
    """Measure the edges of a token for each row of `spacing` (B, ndim), (B, ndim) float32 in the same unit."""
    patch = torch.tensor(grid.patch, dtype=torch.float32, device=spacing.device)
    return spacing.to(torch.float32) * patch


def at_least_a_token(length: float, spacing: Tensor, grid: Grid, *, what: str) -> Tensor:
    """Express a length in token edges along each axis, (B, ndim) float32, no less than 1.

    Args:
        length: in the unit of `spacing`.
        spacing: (B, ndim) of the samples, or (1, ndim) the nominal one of an input.
        grid: its tokens.
        what: is that long, for the error.

    Raises:
        ConfigError: it is shorter than a token along every axis of a sample, so that it would mean nothing.
    """
    edges = token_edges(spacing, grid)
    if bool((edges.amin(dim=1) > length * 1.0001).any()):
        raise ConfigError(
            f"expected {what} no smaller than a token, got {length:g} on tokens of "
            f"{' x '.join(f'{edge:g}' for edge in edges[edges.amin(dim=1).argmax()].tolist())}, both in the "
            "unit of the spacing: choose a longer one, or a smaller patch."
        )
    return (length / edges).clamp(min=1.0)
