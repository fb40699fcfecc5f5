"""Blending windows into one result, exactly where they agree, and handing on what is finished."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.inference.windows import Windows
from core.preprocess import Window

Write = Callable[[Window, np.ndarray, np.ndarray], None]
"""Takes a finished part of the result: where, values (K, *part) float32 and valid (*part) bool. Parts come once each, from
another thread but never two at a time, and together they are the whole result. Values that are not valid are 0."""


class Blend:
    """The running weighted mean of one row of windows; what no further window reaches is handed on and forgotten.

    Rows move up column by column, as the next row of windows advances, so that writing is spread evenly over time.
    """

    def __init__(self, windows: Windows, values: int, write: Write) -> None:
        self._windows, self._write = windows, write
        shape = (windows.values[0], *windows.padded_result[1:])
        self._mean = np.zeros((values, *shape), dtype=np.float32)
        self._weight = np.zeros(shape, dtype=np.float32)
        self._valid = np.zeros(shape, dtype=bool)
        self._taper = taper(windows)
        self._before: int | None = None  # first row of the row of windows before this one
        self._row = windows.starts[0][0] // windows.cell[0]
        self._moved = 0  # columns that have moved up to `_row`

    def add_all(
        self,
        starts: tuple[tuple[int, ...], ...],
        kept: tuple[int, ...],
        predicted: np.ndarray | None,
        valid: np.ndarray,
    ) -> None:
        """Take the windows of a group, in raster order."""
        numbers = {number: place for place, number in enumerate(kept)}
        for number, start in enumerate(starts):
            place = tuple(a // c for a, c in zip(start, self._windows.cell, strict=True))
            if place[0] != self._row:
                self._before, self._row, self._moved = self._row, place[0], 0
            self._move(place[1] + self._windows.values[1])
            if number in numbers and predicted is not None:
                self._add(place, predicted[numbers[number]], valid[number])

    def finish(self) -> None:
        """Hand on the last row of windows."""
        self._before, self._row, self._moved = self._row, self._row + self._windows.values[0], 0
        for start in self._windows.starts[1]:
            self._move(start // self._windows.cell[1] + self._windows.values[1])

    def _add(self, place: tuple[int, ...], predicted: np.ndarray, valid: np.ndarray) -> None:
        columns = tuple(slice(a, a + n) for a, n in zip(place[1:], self._windows.values[1:], strict=True))
        weight = self._weight[(slice(None), *columns)]
        weight += self._taper
        mean = self._mean[(slice(None), slice(None), *columns)]
        # mean + (new - mean) * w / W, not sum(w * new) / W: what all windows agree on comes out as it went in.
        step = predicted - mean
        step *= self._taper / weight
        mean += step
        self._valid[(slice(None), *columns)] |= valid

    def _move(self, stop: int) -> None:
        """Hand on the rows above `_row` of the columns from `_moved` to `stop`, and move the others up."""
        columns = slice(self._moved, stop)
        if stop <= self._moved or self._before is None:
            self._moved = max(self._moved, stop)
            return
        count = self._row - self._before
        self._hand_on(count, columns)
        for array in (self._mean, self._weight[None], self._valid[None]):
            array[:, : array.shape[1] - count, columns] = array[:, count:, columns]
            array[:, array.shape[1] - count :, columns] = 0
        self._moved = stop

    def _hand_on(self, count: int, columns: slice) -> None:
        assert self._before is not None
        starts = (self._before, columns.start, *(0 for _ in self._windows.size[2:]))
        stops = (self._before + count, columns.stop, *self._windows.result[2:])
        box = tuple(slice(a, min(b, n)) for a, b, n in zip(starts, stops, self._windows.result, strict=True))
        first, stop = self._windows.wanted
        box = (slice(max(box[0].start, first), min(box[0].stop, stop)), *box[1:])
        if any(part.stop <= part.start for part in box):
            return  # padding, and rows that nobody wants
        inside = (slice(box[0].start - self._before, box[0].stop - self._before), *box[1:])
        valid = self._valid[inside].copy()
        self._write(box, np.where(valid, self._mean[(slice(None), *inside)], np.float32(0)), valid)


def taper(windows: Windows) -> np.ndarray:
    """Give the weight of each value of a window, (*values) float32 in (0, 1]: sin^2 over the overlap, 1 inside it."""
    weight = np.ones((), dtype=np.float64)
    for n, overlap, cell in zip(windows.values, windows.overlap, windows.cell, strict=True):
        rim = overlap // cell
        depth = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0
        axis = np.sin(np.pi / 2 * np.minimum(1.0, depth / (rim + 1))) ** 2
        weight = weight[..., None] * axis
    return weight.astype(np.float32)
