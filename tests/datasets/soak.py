"""Many reads of many files with few file handles, as a program: prints JSON of what memory and handles did.

python -m tests.datasets.soak MANIFEST READS
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from core.contract import Input, Normalisation, Tiles
from datasets.loader import TileLoader
from datasets.manifest import Manifest
from datasets.sample import StreamSpec

HANDLES = 256
BATCH = 20
POINTS = 20


def megabytes() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def handles() -> int:
    """Open file handles of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not walked


def main(manifest: str, reads: int) -> None:
    """Read, and watch."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (HANDLES, HANDLES))
    norm = Normalisation(method="per_image")
    flat = Input(
        name="flat", bands=("gray",), patch=(8, 8), size=(16, 16), spacing=(1.0, 1.0), unit="px", normalisation=norm
    )
    solid = Input(
        name="solid",
        bands=("intensity",),
        patch=(4, 4, 4),
        size=(8, 8, 8),
        spacing=(1.0,) * 3,
        unit="mm",
        normalisation=norm,
    )
    scene = Input(
        name="scene",
        bands=("red", "nir"),
        patch=(8, 8),
        size=(16, 16),
        spacing=(10.0,) * 2,
        unit="m",
        normalisation=norm,
    )
    streams = [
        StreamSpec(input=entry, batch_size=BATCH, tiles=Tiles(per_image=4, per_visit=2, window=4))
        for entry in (scene, flat, solid)
    ]
    loader = TileLoader(Manifest.read(manifest), streams, seed=0, workers=2, worker_kind="thread", cache_bytes=1 << 20)
    steps = reads // BATCH
    list(loader.batches(0, 30))
    gc.collect()
    base, most = handles(), 0
    places, memory = [], []
    began = time.monotonic()
    made = loader.batches(0, steps)
    for step, batch in enumerate(made):
        assert len(batch) == BATCH
        if step % max(1, steps // POINTS) == 0:
            most = max(most, handles())
            places.append(step * BATCH)
            memory.append(megabytes())
    seconds = time.monotonic() - began
    del made
    gc.collect()
    kept = len(places) // 3  # of the points, the first third is warm-up
    slope = float(np.polyfit(places[kept:], memory[kept:], 1)[0]) * 10_000
    patience = time.monotonic() + 10  # a thread's handles are closed when the thread has ended
    while handles() > base and time.monotonic() < patience:
        time.sleep(0.05)
    facts = {"reads": steps * BATCH, "seconds": seconds, "base": base, "most": most, "after": handles()}
    print(json.dumps(facts | {"slope_mb_per_10k": slope, "first_mb": memory[0], "last_mb": memory[-1]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
