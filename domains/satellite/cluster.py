"""Mapping one scene on the workers of a `dask.distributed` cluster: each predicts some rows, and this process writes them.

Every part is predicted with the windows that reach into it from its neighbours, so the map is the same as without a cluster.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.inference import Windows
from core.preprocess import Window
from datasets.converting.dispatch import connected

Part = tuple[Window, np.ndarray, int]
"""Rows of a map, their voxels (C, rows, X), and how many windows with data they took."""

_PART_BYTES = 64 << 20  # of a result that travels at once
_STEPS = 8  # rows of windows per part, at most; at each seam one of them is predicted twice
_PER_WORKER = 2  # parts that are out at a time


def parts_of(windows: Windows, row_bytes: int) -> list[Windows]:
    """Cut a map into runs of rows that are small enough to travel."""
    step = max(1, (windows.window[0] - windows.overlap[0]) // windows.cell[0])
    rows = max(1, min(_STEPS * step, _PART_BYTES // row_bytes))
    height = windows.result[0]
    return [replace(windows, rows=(first, min(height, first + rows))) for first in range(0, height, rows)]


def on_cluster(address: str, work: Callable[[Windows], Part], parts: list[Windows], out: Path) -> Iterator[Part]:
    """Give the parts of a map as they are done, in any order.

    Args:
        address: of the scheduler, such as tcp://host:8786; its workers need this checkout and the same paths.
        work: predicts one part; it is sent to the workers.
        parts: what is to be done.
        out: a folder that workers must see.

    Raises:
        ConfigError: no scheduler answers, or its workers run other code.
        DataError: they do not see the folder, or worker after worker died.
    """
    with connected(address, out) as client:
        from distributed import KilledWorker, as_completed

        waiting = iter(parts)
        most = _PER_WORKER * sum(client.nthreads().values())
        futures = [client.submit(work, part, pure=False) for part in itertools.islice(waiting, most)]
        queue = as_completed(futures, loop=client.loop)
        try:
            for future in queue:
                try:
                    yield future.result()
                except KilledWorker:
                    raise DataError(
                        f"{out}: every worker that mapped a part of it died; give them more memory."
                    ) from None
                future.release()
                if (part := next(waiting, None)) is not None:
                    queue.add(client.submit(work, part, pure=False))
        finally:
            client.cancel(list(queue.futures))
