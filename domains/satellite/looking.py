"""Whole scenes and whole maps at a size that fits a page, read block by block: pictures, areas of classes, spread of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Input
from core.inference import Windows
from core.preprocess import Window
from core.viz import Pixels, colours, natural
from datasets import LazyImage, open_image
from datasets.readers import configured
from domains.satellite.products import Legend
from domains.satellite.scenes import held

STRENGTH = 0.45
"""Of the colours of classes over a scene."""

_LONGEST = 720  # pixels of a picture's longer side
_SIDE = 1024  # pixels along an edge of what is read at once, of maps of few bands
_VALUES = 1 << 23  # of a map that are read at once


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """The pixels of a scene that a picture shows: the middle one of each square of `step` pixels.

    Attributes:
        size: of the scene (Y X).
        cell: pixels (Y X) that one value of its map stands for.
    """

    size: tuple[int, int]
    cell: tuple[int, int]

    @classmethod
    def of(cls, windows: Windows) -> Lattice:
        """Give that of a map."""
        (y, x), (down, right) = windows.size, windows.cell
        return cls(size=(y, x), cell=(down, right))

    @property
    def step(self) -> int:
        """Pixels of the scene along the side of one of the picture."""
        return max(1, math.ceil(max(self.size) / _LONGEST))

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the map that are shown, ascending."""
        y, x = (
            np.minimum(np.arange(0, n, self.step) + self.step // 2, n - 1) // c
            for n, c in zip(self.size, self.cell, strict=True)
        )
        return y, x

    @property
    def shape(self) -> tuple[int, int]:
        """Of the picture (Y X)."""
        return len(self.places[0]), len(self.places[1])

    def weights(self, window: Window) -> NDArray[np.int64]:
        """Count the pixels of the scene under each value of a window of the map; a cell may reach beyond its rim."""
        axes = []
        for part, n, c in zip(window, self.size, self.cell, strict=True):
            edges = np.minimum(np.arange(part.start, part.stop + 1) * c, n)
            axes.append(np.diff(edges))
        return np.outer(*axes)


def blocks(size: tuple[int, ...], side: int) -> Iterator[tuple[slice, slice]]:
    """Cut an image into blocks, each pixel in one; those at the rim are smaller."""
    for y in range(0, size[0], side):
        for x in range(0, size[1], side):
            yield slice(y, min(size[0], y + side)), slice(x, min(size[1], x + side))


def scene_picture(image: LazyImage, entry: Input, lattice: Lattice) -> tuple[Pixels, NDArray[np.bool_]]:
    """Draw a whole scene, each pixel the mean of what is measured in its square, and say where something is.

    Raises:
        DataError: it is damaged.
    """
    shown = tuple(entry.bands[band] for band in colours(entry.bands, entry.sensor).bands)
    step, source = lattice.step, held(image)
    total = np.zeros((len(shown), *lattice.shape))
    count = np.zeros((len(shown), *lattice.shape))
    for rows, columns in blocks(image.size, max(1, _SIDE // step) * step):
        voxels, valid = source.read_valid((rows, columns), shown)
        place = (slice(None), *(slice(part.start // step, -(-part.stop // step)) for part in (rows, columns)))
        total[place] = _sums(np.where(valid, voxels, 0).astype(np.float64), step)
        count[place] = _sums(valid.astype(np.float64), step)
    known = count > 0
    mean = np.divide(total, count, out=np.zeros_like(total), where=known)
    everywhere: NDArray[np.bool_] = np.logical_and.reduce(known)
    return natural(torch.from_numpy(mean), torch.from_numpy(known), shown, entry.sensor), everywhere


def _sums(values: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Add up squares of `step` pixels; those at the rim are smaller."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[1], step), axis=1)
    found: NDArray[np.float64] = np.add.reduceat(rows, np.arange(0, values.shape[2], step), axis=2)
    return found


def open_map(path: Path) -> LazyImage:
    """Open a map that was just written; class numbers, not their colours."""
    return open_image(path, *configured(["geotiff.palette=index"]))


def numbers_of(legend: Legend) -> NDArray[np.int32]:
    """Give a table from what a map holds to class numbers 0..K-1; -1 = not measured."""
    table = np.full(max(*legend.codes, legend.nodata) + 1, -1, dtype=np.int32)
    table[list(legend.codes)] = np.arange(len(legend.codes))
    return table


def map_blocks(made: LazyImage) -> Iterator[tuple[slice, slice]]:
    """Cut a map into blocks that fit into memory, however many bands it has."""
    return blocks(made.size, max(1, min(_SIDE, math.isqrt(_VALUES // made.shape[0]))))


def map_picture(
    made: LazyImage,
    lattice: Lattice,
    look: Callable[[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]], NDArray[Any]],
) -> NDArray[Any]:
    """Go over a whole map once, and give what is shown of it, (C, *lattice.shape).

    Args:
        made: the map.
        lattice: what is shown.
        look: is given each block once: its values (K Y X), what of it is known (Y X) and the pixels of the scene under
            each value (Y X); gives what to show of it, (C Y X), always of one type and C.
    """
    y, x = lattice.places
    found: NDArray[Any] | None = None
    for rows, columns in map_blocks(made):
        values, valid = made.read_valid((rows, columns))
        told = look(values, np.logical_and.reduce(valid), lattice.weights((rows, columns)))
        if found is None:
            found = np.zeros((len(told), *lattice.shape), dtype=told.dtype)
        inside = [slice(*np.searchsorted(axis, (part.start, part.stop))) for axis, part in ((y, rows), (x, columns))]
        picked = told[:, y[inside[0]] - rows.start][:, :, x[inside[1]] - columns.start]
        found[:, inside[0], inside[1]] = picked
    assert found is not None, "an image has a pixel"
    return found
