"""Windows of scenes with their labels, as batches: drawn at random to train on, or one for each cell to score.

A window may show the surroundings of its cell, but never the labels of another split. Workers are threads here: what they do
is to decode windows of rasters, which runs beside Python, and the labels are in memory once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from core.batch import Batch
from core.contract import Input
from core.finetune import Example, Split
from core.inference import Scene
from core.preprocess import cut
from core.rng import numpy_rng
from domains.satellite.cells import Cell


def ahead(made: Callable[[int], Example], numbers: Sequence[int], workers: int) -> Iterator[Example]:
    """Make the examples of some numbers in their order, two ahead for each worker; no thread is left when it is closed."""
    if not workers:
        yield from map(made, numbers)
        return
    rest = iter(numbers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="halfseen-windows")
    try:
        waiting = deque(pool.submit(made, number) for number in islice(rest, 2 * workers))
        while waiting:
            example = waiting.popleft().result()
            waiting.extend(pool.submit(made, number) for number in islice(rest, 1))
            yield example
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, eq=False)
class LabelWindows:
    """Windows of scenes with their labels, as batches.

    Attributes:
        cells: the rows.
        split: of each cell.
        scenes: by the manifest's row.
        sizes: of the scenes, by the manifest's row.
        entry: the encoder's input; its `whole` is the size of a window.
        flips: per axis, whether a mirror image is as legal.
        seed: of the draws.
        workers: threads that read batches ahead; 0 = each is read when it is wanted. The batches are the same.
    """

    cells: Sequence[Cell]
    split: Sequence[Split]
    scenes: Mapping[int, Scene]
    sizes: Mapping[int, tuple[int, ...]]
    entry: Input
    flips: tuple[bool, ...]
    seed: int
    workers: int = 0

    def whole(self, rows: Sequence[int], batch_size: int) -> Iterator[Example]:
        """Give each cell once, in the middle of its window where the scene allows, with the labels of that cell alone."""

        def made(first: int) -> Example:
            return self._stack([self._around(row) for row in rows[first : first + batch_size]])

        yield from ahead(made, range(0, len(rows), batch_size), self.workers)

    def drawn(self, rows: Sequence[int], batch_size: int) -> Callable[[int, int], Iterator[Example]]:
        """Draw windows with at least one labelled pixel, mirrored; the same ones for a step, whatever came before."""

        def made(step: int) -> Example:
            return self._stack([self._draw(rows, step, number) for number in range(batch_size)])

        return lambda start, stop: ahead(made, range(start, stop), self.workers)

    def _around(self, row: int) -> _Sample:
        cell = self.cells[row]
        start = self._inside(cell, [(a + b - n) // 2 for a, b, n in self._axes(cell)])
        label = np.full(self.entry.whole, -1, dtype=np.int16)
        _paste(label, start, cell)
        return self._read(row, start, label)

    def _draw(self, rows: Sequence[int], step: int, number: int) -> _Sample:
        rng = numpy_rng(self.seed, "label windows", step, number)
        row = rows[int(rng.integers(len(rows)))]
        cell = self.cells[row]
        places = np.argwhere(cell.label >= 0)
        pixel = places[int(rng.integers(len(places)))] + (cell.box[0], cell.box[2])
        start = self._inside(cell, [int(p - rng.integers(n)) for p, n in zip(pixel, self.entry.whole, strict=True)])
        label = np.full(self.entry.whole, -1, dtype=np.int16)
        for other in self._near(cell.scene, start):
            if self.split[other] == self.split[row]:
                _paste(label, start, self.cells[other])
        sample = self._read(row, start, label)
        turned = [axis for axis, legal in enumerate(self.flips) if legal and rng.random() < 0.5]
        return sample.flipped(turned)

    def _axes(self, cell: Cell) -> Iterator[tuple[int, int, int]]:
        yield from zip(cell.box[::2], cell.box[1::2], self.entry.whole, strict=True)

    def _inside(self, cell: Cell, start: Sequence[int]) -> tuple[int, int]:
        """Move a window into its scene; a scene that is smaller is in its middle."""
        y, x = (
            min(max(0, at), length - n) if length > n else -((n - length) // 2)
            for at, length, n in zip(start, self.sizes[cell.scene], self.entry.whole, strict=True)
        )
        return y, x

    def _near(self, scene: int, start: tuple[int, int]) -> NDArray[np.int64]:
        """List the cells of a scene that a window touches."""
        rows, boxes = self._boxes[scene]
        stop = [at + n for at, n in zip(start, self.entry.whole, strict=True)]
        hit = (boxes[:, 0] < stop[0]) & (boxes[:, 1] > start[0]) & (boxes[:, 2] < stop[1]) & (boxes[:, 3] > start[1])
        return rows[hit]

    @cached_property
    def _boxes(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Cells and their boxes, (n, 4), by scene."""
        scene = np.array([cell.scene for cell in self.cells])
        box = np.array([cell.box for cell in self.cells])
        return {int(n): (np.flatnonzero(scene == n), box[scene == n]) for n in np.unique(scene)}

    def _read(self, row: int, start: tuple[int, int], label: NDArray[np.int16]) -> _Sample:
        scene, length = self.scenes[self.cells[row].scene], self.sizes[self.cells[row].scene]
        size = self.entry.whole
        box = tuple(slice(max(0, at), min(total, at + n)) for at, n, total in zip(start, size, length, strict=True))
        values, valid = scene.read(box)
        image, inside = cut(values, valid, tuple(at - part.start for at, part in zip(start, box, strict=True)), size)
        return _Sample(row, np.where(inside, image, 0).astype(np.float32), inside, label)

    def _stack(self, samples: Sequence[_Sample]) -> Example:
        scenes = [self.scenes[self.cells[sample.row].scene] for sample in samples]
        rows = torch.tensor([sample.row for sample in samples])
        batch = Batch(
            image=torch.from_numpy(np.stack([sample.image for sample in samples])),
            valid=torch.from_numpy(np.stack([sample.valid for sample in samples])),
            bands=self.entry.bands,
            spacing=torch.tensor([scene.spacing.values for scene in scenes], dtype=torch.float32),
            unit=self.entry.unit,
            offset=torch.from_numpy(np.stack([scene.offset for scene in scenes]).astype(np.float32)),
            scale=torch.from_numpy(np.stack([scene.scale for scene in scenes]).astype(np.float32)),
            key=rows.clone(),
            index=rows.clone(),
            row=rows,
        )
        return Example(batch, torch.from_numpy(np.stack([sample.label for sample in samples]).astype(np.int64)))


@dataclass(frozen=True, eq=False)
class _Sample:
    row: int
    image: NDArray[np.float32]
    valid: NDArray[np.bool_]
    label: NDArray[np.int16]

    def flipped(self, axes: Sequence[int]) -> _Sample:
        behind = tuple(axis - 2 for axis in axes)
        return _Sample(
            self.row,
            np.flip(self.image, behind).copy(),
            np.flip(self.valid, behind).copy(),
            np.flip(self.label, behind).copy(),
        )


def _paste(label: NDArray[np.int16], start: tuple[int, int], cell: Cell) -> None:
    """Write the labels of a cell into those of the window that begins at `start`."""
    top, left = max(cell.box[0], start[0]), max(cell.box[2], start[1])
    bottom, right = min(cell.box[1], start[0] + label.shape[0]), min(cell.box[3], start[1] + label.shape[1])
    given = cell.label[top - cell.box[0] : bottom - cell.box[0], left - cell.box[2] : right - cell.box[2]]
    label[top - start[0] : bottom - start[0], left - start[1] : right - start[1]] = given
