"""Where windows lie: how an image is covered, and how large the result is. Whole numbers only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from core.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How an image is covered by windows of one size.

    Attributes:
        size: voxels of the image, (Y X) or (Z Y X).
        window: voxels that the network sees at once; an image that is smaller is padded with what is not measured.
        overlap: voxels that neighbours share at least.
        cell: voxels per value of the result along each axis: 1 for a prediction per voxel, the patch for one per token.
        rows: the first row of the result that is wanted and the one after the last; none = all. They are the same as in the
            whole result, for every window that reaches into them is predicted.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    overlap: tuple[int, ...]
    cell: tuple[int, ...]
    rows: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len({len(self.size), len(self.window), len(self.overlap), len(self.cell)}) != 1 or len(self.size) < 2:
            raise ShapeError(
                f"expected size, window, overlap and cell of one rank, 2 or 3, got {self.size}, {self.window}, "
                f"{self.overlap} and {self.cell}."
            )
        axes = zip(self.size, self.window, self.overlap, self.cell, strict=True)
        if any(n < 1 or c < 1 or w % c or o % c or not 0 <= o < w for n, w, o, c in axes):
            raise ShapeError(
                f"expected a window and a smaller overlap that are multiples of {self.cell} for an image of {self.size}, "
                f"got {self.window} and {self.overlap}."
            )
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1] <= self.result[0]:
            raise ShapeError(f"expected rows inside the {self.result[0]} of the result, got {self.rows}.")

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where windows begin along each axis: as far apart as the overlap allows, the last one moved back to the end."""
        found = []
        for n, w, o in zip(self._padded, self.window, self.overlap, strict=True):
            steps = math.ceil((n - w) / (w - o))
            found.append(tuple(min(step * (w - o), n - w) for step in range(steps + 1)))
        first, stop = (row * self.cell[0] for row in self.wanted)
        found[0] = tuple(start for start in found[0] if start < stop and start + self.window[0] > first)
        return tuple(found)

    @property
    def wanted(self) -> tuple[int, int]:
        """The first row of the result that is wanted, and the one after the last."""
        return self.rows or (0, self.result[0])

    @property
    def result(self) -> tuple[int, ...]:
        """Values of the result along each axis; a cell that the image only touches has one too."""
        return tuple(-(-n // c) for n, c in zip(self.size, self.cell, strict=True))

    @property
    def values(self) -> tuple[int, ...]:
        """Values that one window gives along each axis."""
        return tuple(w // c for w, c in zip(self.window, self.cell, strict=True))

    @property
    def _padded(self) -> tuple[int, ...]:
        """Voxels that windows cover: whole cells, and at least one window."""
        return tuple(max(w, r * c) for w, r, c in zip(self.window, self.result, self.cell, strict=True))

    @property
    def padded_result(self) -> tuple[int, ...]:
        """Values that windows cover, those of the padding included."""
        return tuple(n // c for n, c in zip(self._padded, self.cell, strict=True))

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.starts)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Every window's start, in raster order."""
        return itertools.product(*self.starts)
