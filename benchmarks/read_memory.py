"""Memory of a two-million-row manifest in loader workers; run by benchmarks/read.py in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np

from core.contract import Input, Normalisation
from datasets import Manifest, StreamSpec, TileLoader, build_manifest

ROWS, STEPS, BATCH = 2_000_000, 400, 16


def private_bytes(process: int) -> int:
    """Sum what a process shares with nobody."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def repeated(manifest: Manifest, rows: int) -> Manifest:
    """A manifest that names the same files over and over, each row as its own group."""
    many = manifest.take(np.arange(rows) % len(manifest))
    return many.with_column("group", [str(number) for number in range(rows)])


def main(folder: Path) -> None:
    names = [folder / f"image_{number:03d}.npy" for number in range(64)]
    for number, name in enumerate(names):
        np.save(name, np.full((64, 64), number, np.uint8))
    few = build_manifest(names)
    index = folder / "index.parquet"
    repeated(few, 10_000).write(index)
    entry = Input(
        name="tile",
        bands=few.column("bands")[0],
        patch=(16, 16),
        size=(32, 32),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    stream = StreamSpec(input=entry, batch_size=BATCH, crop="native")
    loader = TileLoader(repeated(few, ROWS), [stream], seed=0, workers=2, worker_kind="process", cache_bytes=1 << 20)
    grown: list[int] = []
    before: dict[int, int] = {}
    for step, _ in enumerate(loader.batches(0, STEPS)):
        pids = [child.pid for child in multiprocessing.active_children() if child.pid]
        if step == 20:
            before = {pid: private_bytes(pid) for pid in pids}
        if step == STEPS - 2 * len(pids) - 4:
            grown = [private_bytes(pid) - before[pid] for pid in pids]
    found = {
        "private_growth_mb": round(max(grown) / 1e6, 2),
        "disk_per_row": round(index.stat().st_size / 10_000, 1),
        "memory_per_row": round(repeated(few, 10_000).table.nbytes / 10_000, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
