"""Pure whole-number windows: how crops are placed and how an image is covered. No pixel is touched here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from core.errors import ShapeError
from core.preprocess import Window, centred

Starts = tuple[int, ...]


def cover(size: tuple[int, ...], tile: tuple[int, ...], overlap: tuple[int, ...] | None = None) -> Iterator[Window]:
    """Cover an image of `size` by windows of `tile` that share at least `overlap` voxels with their neighbours.

    Every voxel is in some window and every window is inside the image: the last one of an axis is moved back, never
    cut, except that an axis shorter than its tile gives one window of that whole axis. Raster order.

    Raises:
        ShapeError: ranks differ, or an overlap is not smaller than its tile.
    """
    overlap = overlap or (0,) * len(size)
    if not len(size) == len(tile) == len(overlap) or any(not 0 <= o < t for o, t in zip(overlap, tile, strict=True)):
        raise ShapeError(
            f"expected size, tile and overlap of one rank with overlap < tile, got {size}, {tile}, {overlap}."
        )
    axes = []
    for n, t, o in zip(size, tile, overlap, strict=True):
        steps = 0 if n <= t else math.ceil((n - t) / (t - o))
        axes.append([slice(start := min(i * (t - o), max(0, n - t)), min(n, start + t)) for i in range(steps + 1)])
    yield from itertools.product(*axes)


@lru_cache(maxsize=256)
def grid_starts(n: int, size: int, chunk: int) -> tuple[int, ...]:
    """Starts along one axis of windows of `size` that cover `n` voxels and touch as few chunks as they can.

    Windows at least as long as a chunk start on the chunk grid, as far apart as their size allows. Shorter ones lie side
    by side inside each chunk and never across two. The last window is moved back to end where the image does.
    """
    if n <= size:
        return (0,)
    if chunk <= size:
        found = list(range(0, n - size, size // chunk * chunk))
    else:
        inside = [min(start, chunk - size) for start in range(0, chunk, size)]
        found = [start for first in range(0, n, chunk) for part in inside if (start := first + part) < n - size]
    return (*found, n - size)


def grid_cells(n: int, size: int, chunk: int, part: slice) -> tuple[int, ...]:
    """Of the `grid_starts` of one axis, those whose windows reach into `part`; an axis that is too short is centred."""
    if n <= size:
        return centred((slice(0, n),), (size,))
    return tuple(start for start in grid_starts(n, size, chunk) if start < part.stop and start + size > part.start)


def within(window: Window, size: tuple[int, ...]) -> Window | None:
    """Give a window with start and stop on every axis; None when it is not step 1, not empty and inside an image of `size`."""
    if len(window) != len(size):
        return None
    ranges = []
    for part, n in zip(window, size, strict=True):
        start, stop = part.start or 0, n if part.stop is None else part.stop
        if part.step not in (None, 1) or not 0 <= start < stop <= n:
            return None
        ranges.append(slice(start, stop))
    return tuple(ranges)


def random_window(box: Window, size: tuple[int, ...], rng: np.random.Generator) -> Starts:
    """Draw the start of a window of `size` inside the box, uniformly; an axis where it does not fit is centred."""
    middle = centred(box, size)
    rooms = [part.stop - part.start - s for part, s in zip(box, size, strict=True)]
    draws = rng.random(len(size))
    return tuple(
        part.start + int(u * (room + 1)) if room > 0 else at
        for part, room, u, at in zip(box, rooms, draws, middle, strict=True)
    )


def random_crop(
    box: Window, scale: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> tuple[slice, slice]:
    """Draw a crop inside a 2D box: share of its area uniform in `scale`, width / height log-uniform in `aspect`.

    A side longer than the box is shortened to it. Szegedy et al. 2014, arXiv 1409.4842, section 6. Deviations: no
    rejection loop, so the number of draws is fixed.
    """
    height, width = (part.stop - part.start for part in box)
    u = rng.random(4)
    area = (scale[0] + u[0] * (scale[1] - scale[0])) * height * width
    ratio = math.exp(math.log(aspect[0]) + u[1] * math.log(aspect[1] / aspect[0]))
    h = min(height, max(1, round(math.sqrt(area / ratio))))
    w = min(width, max(1, round(math.sqrt(area * ratio))))
    y = box[0].start + int(u[2] * (height - h + 1))
    x = box[1].start + int(u[3] * (width - w + 1))
    return slice(y, y + h), slice(x, x + w)
