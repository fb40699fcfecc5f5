"""Complete batches of any shape for the tests of maskers."""

from __future__ import annotations

import torch

from core.batch import Batch
from core.rng import SampleRng, key
from core.shapes import Grid
from tests.parity.fixture import make_batch, make_input


def complete(
    count: int,
    grid: Grid,
    *,
    bands: int = 1,
    spacing: tuple[float, ...] | None = None,
    image: torch.Tensor | None = None,
) -> Batch:
    """Make images of noise, all valid, with keys of their own; spacing in mm."""
    entry = make_input("image", bands, grid.patch, grid.size)
    made = make_batch(torch.randn(count, bands, *grid.size) if image is None else image, entry)
    made.spacing.copy_(torch.tensor(spacing or (1.0,) * grid.ndim))
    object.__setattr__(made, "unit", "mm")
    object.__setattr__(made, "key", torch.tensor([key(0, "maskers", index) for index in range(count)]))
    return made


def streams(count: int) -> SampleRng:
    """Give independent streams."""
    return SampleRng(torch.tensor([key(1, "streams", index) for index in range(count)]))


def agreement(hide: torch.Tensor, axis: int) -> float:
    """Measure how often neighbours along an axis of (B, *tokens) are both hidden or both not."""
    one, two = hide.narrow(axis, 1, hide.shape[axis] - 1), hide.narrow(axis, 0, hide.shape[axis] - 1)
    return float((one == two).float().mean())
