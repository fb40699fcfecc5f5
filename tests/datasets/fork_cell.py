"""Cells of the fork matrix, as a program: a parent that reads an image, children that read it too, all at once.

    python -m tests.datasets.fork_cell METHOD before REPEATS KIND FILE ARRAY
    python -m tests.datasets.fork_cell METHOD after REPEATS KIND FILE ARRAY [KIND FILE ARRAY ...]

Prints one line per child: its kind and `right`, `refused: ...` or `wrong`. A parent that has not read before its children
start never reads, so that all kinds may have the same.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np

from core.preprocess import Window
from datasets.image import LazyImage
from datasets.readers import configured, open_image

READS = 12
OPTIONS = ["numpy_array.axes=cyx"]


def windows(size: tuple[int, ...], seed: int) -> list[Window]:
    """Draw windows of an image."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    found = []
    for _ in range(READS):
        starts = [int(rng.integers(0, n - n // 3)) for n in size]
        found.append(tuple(slice(start, start + n // 3) for start, n in zip(starts, size, strict=True)))
    return found


def reader_of(kind: str, image: LazyImage) -> Callable[[Window], np.ndarray]:
    """Give the way of reading that a cell is about."""
    if kind == "dask":
        lazy = image.dask()
        return lambda window: np.asarray(lazy[(slice(None), *window)].compute(scheduler="threads", num_workers=2))
    return image.read


def right(kind: str, image: LazyImage, expected: np.ndarray, seed: int) -> bool:
    """Read windows, with two threads where the cell asks for it, and compare."""
    read = reader_of(kind, image)
    results: list[bool] = []

    def work(number: int) -> None:
        for window in windows(image.size, seed + number):
            results.append(np.array_equal(read(window), expected[(slice(None), *window)]))

    if kind != "threads":
        work(0)
        return all(results)
    team = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return len(results) == 2 * READS and all(results)


def child(kind: str, image: LazyImage | str, array: str, seed: int, answers: SimpleQueue[str]) -> None:
    """Read in another process."""
    try:
        opened = open_image(image, *configured(OPTIONS)) if isinstance(image, str) else image
        answers.put("right" if right(kind, opened, np.load(array), seed) else "wrong")
    except Exception as error:
        answers.put(f"refused: {type(error).__name__}: {error}")


def cell(context: Any, kind: str, when: str, repeats: int, file: str, array: str) -> None:
    """Run a cell."""
    expected = np.load(array)
    image: LazyImage | str = file
    if when == "before":
        image = open_image(file, *configured(OPTIONS))
        assert right(kind, image, expected, 1)
    for repeat in range(repeats):
        answers = context.SimpleQueue()
        process = context.Process(target=child, args=(kind, image, array, 100 + repeat, answers))
        process.start()
        if isinstance(image, LazyImage):  # the parent goes on reading while its child does
            assert right(kind, image, expected, 200 + repeat)
        print(kind, answers.get(), flush=True)
        process.join()


def main(method: str, when: str, repeats: str, *kinds: str) -> None:
    """Run cells, one after another."""
    context: Any = multiprocessing.get_context(method)
    context.set_forkserver_preload(["torch"])  # which no reader uses; the server that forks knows nothing else
    assert when == "after" or len(kinds) == 3, "a parent that has read one kind is no parent for another"
    for place in range(0, len(kinds), 3):
        kind, file, array = kinds[place : place + 3]
        cell(context, kind, when, int(repeats), file, array)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])
