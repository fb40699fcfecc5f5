"""Which cell of a coarser grid a token lies in, for cells of any size, each sample its own."""

from __future__ import annotations

import torch
from torch import Tensor

from core.shapes import Grid


def cell_of(grid: Grid, size: Tensor) -> Tensor:
    """Number the cell of each place, (B, places) int64: the one that holds the token's centre; cells begin at the corner.

    Numbers are those of a token grid, first axis slowest, so they stay below `grid.num_places` whatever the size.

    Args:
        grid: the tokens; groups do not matter.
        size: (B, ndim) float, edges of a cell in token edges, at least 1.
    """
    along = []
    for axis, count in enumerate(grid.tokens):
        centre = torch.arange(count, device=size.device) + 0.5
        along.append((centre / size[:, axis, None]).floor().to(torch.int64))
    return numbered(along, grid)


def numbered(along: list[Tensor], grid: Grid) -> Tensor:
    """Combine a number along each axis, (B, tokens) each, into one for each place, (B, places)."""
    total = torch.zeros(1, *(1 for _ in grid.tokens), dtype=torch.int64, device=along[0].device)
    for axis, (number, count) in enumerate(zip(along, grid.tokens, strict=True)):
        shape = [len(number), *(count if other == axis else 1 for other in range(grid.ndim))]
        total = total * count + number.reshape(shape)
    return total.reshape(len(along[0]), -1)
