"""Windows in any order, collected into whole blocks of a file: every block is handed out once, and nothing is forgotten.

What is missing of each block is a list of boxes, exact to the voxel. Blocks that wait for their rest are held in memory
up to a budget, then in raw files. So memory stays flat whatever the order, and a compressed block is never written twice.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Index = tuple[int, ...]
Box = tuple[slice, ...]  # of every axis, bands included; start and stop given


class Coverage:
    """Which voxels of an array came, by blocks of a regular grid."""

    def __init__(self, shape: Index, block: Index) -> None:
        self._shape, self._block = shape, block
        self.grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
        self._whole = np.zeros(self.grid, dtype=bool)  # all voxels came
        self._rest: dict[Index, list[Box]] = {}  # of blocks that began and are not whole

    def home(self, index: Index) -> Box:
        """Where a block lies in the array; those at the far edges are smaller."""
        return tuple(slice(i * b, min(n, (i + 1) * b)) for i, b, n in zip(index, self._block, self._shape, strict=True))

    def add(self, box: Box) -> Iterator[tuple[Index, list[Box], bool]]:
        """Note that a box came: each block that gains by it, the boxes that are new, and whether the block is whole."""
        ranges = [range(part.start // b, -(-part.stop // b)) for part, b in zip(box, self._block, strict=True)]
        for index in itertools.product(*ranges):
            rest = [] if self._whole[index] else self._rest.get(index, [self.home(index)])
            new = [common for wanted in rest if (common := _common(wanted, box)) is not None]
            if not new:
                continue
            left = [piece for wanted in rest for piece in _minus(wanted, box)]
            self._rest[index] = left
            if not left:
                del self._rest[index]
                self._whole[index] = True
            yield index, new, not left

    def missing(self) -> Box | None:
        """Give a box of which nothing came, of the first block that is not whole, or None."""
        if self._whole.all():
            return None
        index = tuple(int(i) for i in np.unravel_index(int(np.argmin(self._whole)), self.grid))
        return self._rest[index][0] if index in self._rest else self.home(index)


class Blocks:
    """The voxels of an array (C, *S), block by block, while windows of it come in; those that came first stay."""

    def __init__(
        self, shape: Index, block: Index, dtype: np.dtype, *, spool: Path, name: str = "", budget: int = 256 << 20
    ) -> None:
        self.coverage = Coverage(shape, block)
        self._dtype, self._spool, self._name, self._budget = dtype, spool, name, budget
        self._held: dict[Index, np.ndarray] = {}
        self._spooled: set[Index] = set()
        self._bytes = 0

    def put(self, box: Box, voxels: np.ndarray) -> Iterator[Index]:
        """Take the voxels of a box and give the blocks that became whole by them, in raster order."""
        for index, new, whole in self.coverage.add(box):
            home = self.coverage.home(index)
            target = self._open(index, home)
            for piece in new:
                target[within(piece, home)] = voxels[within(piece, box)]
            del target
            if whole:
                yield index

    def take(self, index: Index) -> np.ndarray:
        """Give a whole block and forget it."""
        if index in self._held:
            block = self._held.pop(index)
            self._bytes -= block.nbytes
            return block
        self._spooled.remove(index)
        block = np.fromfile(self._file(index), dtype=self._dtype).reshape(lengths(self.coverage.home(index)))
        self._file(index).unlink()
        return block

    def _open(self, index: Index, home: Box) -> np.ndarray:
        """The block's array, new or known; a spooled one is mapped for as long as the caller holds it."""
        if index in self._held:
            return self._held[index]
        shape = lengths(home)
        size = math.prod(shape) * self._dtype.itemsize
        if index not in self._spooled and (not self._held or self._bytes + size <= self._budget):
            self._held[index] = np.empty(shape, dtype=self._dtype)
            self._bytes += size
            return self._held[index]
        if index not in self._spooled:
            reserve(self._file(index), size)
            self._spooled.add(index)
        return np.memmap(self._file(index), dtype=self._dtype, mode="r+", shape=shape)

    def _file(self, index: Index) -> Path:
        return self._spool / f"{self._name}{'.'.join(map(str, index))}.raw"


def reserve(path: Path, size: int) -> None:
    """Make a file of that many bytes that are really there: a full disk is an error now, not a crash when mapped."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def lengths(box: Box) -> Index:
    """The shape of a box."""
    return tuple(part.stop - part.start for part in box)


def within(box: Box, origin: Box) -> Box:
    """A box as seen from the start of another."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, origin, strict=True))


def _common(one: Box, other: Box) -> Box | None:
    parts = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return parts if all(part.start < part.stop for part in parts) else None


def _minus(box: Box, taken: Box) -> list[Box]:
    """What is left of a box without another, as boxes that do not overlap: at most two per axis."""
    common = _common(box, taken)
    if common is None:
        return [box]
    pieces, core = [], list(box)
    for axis, (whole, cut) in enumerate(zip(box, common, strict=True)):
        for part in (slice(whole.start, cut.start), slice(cut.stop, whole.stop)):
            if part.start < part.stop:
                pieces.append((*core[:axis], part, *core[axis + 1 :]))
        core[axis] = cut
    return pieces
