"""Where windows lie: how an image is covered, and how large the result is. Whole numbers only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from core.errors import ShapeError
from core.preprocess import Window, centred


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How an image is covered by windows of one size.

    Attributes:
        size: voxels of the image, (Y X) or (Z Y X).
        window: voxels that the network sees at once; an image that is smaller lies in its middle, as whole images do
            (`core.preprocess.fit`), and what is not measured is around it.
        overlap: voxels that neighbours share at least.
        cell: voxels per value of the result along each axis: 1 for a prediction per voxel, the patch for one per token.
        rows: the first row of the result that is wanted and the one after the last; none = all. They are the same as in the
            whole result, for every window that reaches into them is predicted.
        content: the part of an image of one window that lies in its middle; none = all of the image. Only where one value
            stands for a whole window.
        seen: voxels to which each window of a 2D image is resized before the network sees it, as whole images are
            (`core.preprocess.fit`): an image of one window by its content, the windows of a larger one all alike. None = it
            sees them as they are. Only where one value stands for a whole window.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    overlap: tuple[int, ...]
    cell: tuple[int, ...]
    rows: tuple[int, int] | None = None
    content: Window | None = None
    seen: tuple[int, ...] | None = None

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
        if self.content is not None and not (self.single and self.cell == self.window):
            raise ShapeError(
                f"expected no content of an image of {self.size} in windows of {self.window} with cells of {self.cell}: "
                "only what is one window and one value is placed by it."
            )
        resizable = self.cell == self.window and len(self.size) == 2
        if self.seen is not None and not (resizable and len(self.seen) == 2 and min(self.seen) > 0):
            raise ShapeError(
                f"expected windows of {self.window} that are resized to two lengths above 0 and have one value each, got "
                f"{self.seen} and cells of {self.cell}: only what is seen as a whole may be resized."
            )

    @property
    def single(self) -> bool:
        """Whether the image is no larger than one window."""
        return all(n <= w for n, w in zip(self.size, self.window, strict=True))

    @property
    def shown(self) -> tuple[int, ...]:
        """Voxels of a window as the network sees it."""
        return self.window if self.seen is None else self.seen

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

    @cached_property
    def before(self) -> tuple[int, ...]:
        """Voxels along each axis between the begin of a window and that of an image which is no larger, else 0.

        Whole cells, so that values lie on the image's grid, unless one value stands for the whole window; below 0 where
        the image begins with what is not content.
        """
        image = tuple(slice(0, n) for n in self.size)
        first = centred(image if self.content is None else self.content, self.window)
        found = []
        for n, w, c, start in zip(self.size, self.window, self.cell, first, strict=True):
            found.append(0 if n > w else -start if c == w else -start // c * c)
        return tuple(found)

    @property
    def shift(self) -> tuple[int, ...]:
        """Values along each axis that a window gives before the first one of the image."""
        axes = zip(self.before, self.window, self.cell, strict=True)
        return tuple(0 if c == w else before // c for before, w, c in axes)

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
