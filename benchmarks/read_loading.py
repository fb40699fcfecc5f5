"""What stands between a file and a training step: tile plans, workers, transport, prefetch, memory; and the peers."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.files import Files
from benchmarks.measure import Ratio, gate, interleave
from benchmarks.read_peers import monai_crops, torchgeo_tiles
from core.batch import Batch
from core.contract import Input, Normalisation, Tiles
from datasets import Manifest, StreamSpec, TileLoader, build_manifest, open_image
from datasets.batch import Packed, pack, unpack
from datasets.workers import WorkerKind, in_order

TILE, CROP = 128, 96
STUB_S = 0.05  # the training step that reading hides behind
CACHE = 64 << 20  # decoded volumes that we and MONAI may keep


def scene_loader(
    path: Path, *, batch: int, plan: str = "free", workers: int = 0, kind: WorkerKind = "thread"
) -> TileLoader:
    """Read 128-pixel tiles of one scene of 14 bands."""
    image = open_image(path)
    entry = Input(
        name="scene",
        bands=image.bands,
        patch=(16, 16),
        size=(TILE, TILE),
        spacing=image.spacing.values,
        unit="m",
        normalisation=Normalisation(method="per_image"),
    )
    tiles = Tiles(per_image=None, plan=plan)  # type: ignore[arg-type]
    return _loader(build_manifest([path]), StreamSpec(input=entry, batch_size=batch, tiles=tiles), workers, kind)


def volume_loader(manifest: Manifest, *, batch: int, per_visit: int, window: int) -> TileLoader:
    """Read 96^3 crops of volumes, several from each while it is decoded."""
    entry = Input(
        name="volume",
        bands=("intensity",),
        patch=(16, 16, 16),
        size=(CROP,) * 3,
        spacing=(1.0, 1.0, 1.0),
        unit="mm",
        normalisation=Normalisation(method="per_image"),
    )
    tiles = Tiles(per_image=per_visit, per_visit=per_visit, window=window)
    return _loader(manifest, StreamSpec(input=entry, batch_size=batch, tiles=tiles), 0, "thread", cache=CACHE)


def _loader(
    manifest: Manifest, stream: StreamSpec, workers: int, kind: WorkerKind, *, cache: int = CACHE
) -> TileLoader:
    return TileLoader(manifest, [stream], seed=0, workers=workers, worker_kind=kind, cache_bytes=cache)


def _taking(loader: TileLoader, steps: int) -> Callable[[], None]:
    """Read the next `steps` batches at each call, from a stream that stays open."""
    stream: Iterator[Any] = loader.batches(0, 1 << 40)

    def read() -> None:
        for _ in range(steps):
            next(stream)

    return read


def plans(files: Files, rounds: int) -> list[dict[str, Any]]:
    """P4: tiles on the file's grid against tiles anywhere."""
    loaders = {plan: scene_loader(files.tiled128, batch=16, plan=plan) for plan in ("aligned", "free")}
    times = interleave({plan: _cold(loader, 4) for plan, loader in loaders.items()}, rounds)
    return [
        gate("P4 random-offset tiles / aligned tiles (128-tiles)", Ratio.of(times["free"], times["aligned"]), floor=2.5)
    ]


def _cold(loader: TileLoader, steps: int) -> Callable[[], None]:
    """Read the next `steps` batches at each call, nothing being read ahead between calls."""
    done = [0]

    def read() -> None:
        for _ in loader.batches(done[0], done[0] + steps):
            pass
        done[0] += steps

    return read


def peers(files: Files, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Samples per second against MONAI on packed volumes and TorchGeo on a tiled scene; one reading thread each."""
    many = folder / "many"
    many.mkdir()
    copies = [many / f"{number:02d}.nii.gz" for number in range(16)]
    for number, copy in enumerate(copies):
        shutil.copy(files.packed[number % len(files.packed)], copy)
    ours = _cold(volume_loader(build_manifest([many]), batch=8, per_visit=8, window=2), 4)
    decoded = open_image(copies[0]).size
    kept = CACHE // (4 * int(np.prod(decoded)))  # MONAI keeps float32
    plain, cached = monai_crops(copies, CROP), monai_crops(copies, CROP, cached=kept)
    times = interleave({"ours": ours, "plain": lambda: plain(32), "cached": lambda: cached(32)}, rounds)
    scene = {plan: _cold(scene_loader(files.tiled128, batch=16, plan=plan), 4) for plan in ("aligned", "free")}
    geo = torchgeo_tiles(files.tiled128.parent, files.tiled128.name, TILE)
    tiles = interleave({**scene, "torchgeo": lambda: geo(64)}, rounds)
    return [
        gate("MONAI LoadImaged + random crop / ours (.nii.gz, 96^3)", Ratio.of(times["plain"], times["ours"]), floor=5),
        gate(
            f"MONAI CacheDataset, {kept} of 16 volumes in 64 MB / ours in 64 MB",
            Ratio.of(times["cached"], times["ours"]),
            floor=5,
        ),
        gate(
            "TorchGeo RandomGeoSampler / ours, aligned (14 bands, 128-tiles)",
            Ratio.of(tiles["torchgeo"], tiles["aligned"]),
            floor=3,
        ),
        gate("TorchGeo RandomGeoSampler / ours, free", Ratio.of(tiles["torchgeo"], tiles["free"])),
    ]


def workers(files: Files, rounds: int) -> list[dict[str, Any]]:
    """P7: two workers against one, the cost of sending a batch, and how much of reading a step hides."""
    records = []
    for kind in ("thread", "process"):
        loaders = {n: scene_loader(files.tiled256, batch=16, workers=n, kind=kind) for n in (1, 2)}  # type: ignore[arg-type]
        times = interleave({str(n): _taking(loader, 8) for n, loader in loaders.items()}, rounds)
        floor = 1.6 if kind == "process" else None  # the default kind
        records.append(
            gate(f"P7 two workers against one, kind {kind} (256-tiles)", Ratio.of(times["1"], times["2"]), floor=floor)
        )
    return [*records, _transport(files, rounds), _hidden(files)]


class _Ready:
    """Give the same samples again and again: what remains is packing and sending them."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __getitems__(self, _: list[Any]) -> list[Any]:
        # As a reader gives them: all of it measured, which pickling on the way here wrote out voxel by voxel.
        return [replace(one, valid=np.broadcast_to(np.True_, one.image.shape)) for one in self.samples]


class _Empty:
    """Give bare memory of a size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitems__(self, _: list[int]) -> torch.Tensor:
        return torch.empty(self.size, dtype=torch.uint8)


def _transport(files: Files, rounds: int) -> dict[str, Any]:
    """Compare sending a batch with torch's loader sending torch.empty of as many bytes; one process each."""
    loader = scene_loader(files.tiled128, batch=16)
    items = loader._items(0)
    samples = loader._dataset.__getitems__(items)
    packed = pack(samples)
    size = packed.image.nbytes + (0 if packed.valid is None else packed.valid.nbytes)
    ours = in_order(
        _Ready(samples), itertools.repeat(items), workers=1, kind="process", timeout_s=60.0, name=lambda item: str(item)
    )
    empty = DataLoader(
        _Empty(size),  # type: ignore[arg-type]
        batch_sampler=itertools.repeat([0]),  # type: ignore[arg-type]
        num_workers=1,
        multiprocessing_context="forkserver",
        collate_fn=_as_it_is,
    )
    sent = {"ours": _drawing(map(_opened, ours)), "empty": _drawing(map(_touched, empty))}
    times = interleave(sent, rounds)
    ours.close()
    name = f"P7 sending a batch of {size / 1e6:.1f} MB / sending torch.empty of as many bytes"
    return gate(name, Ratio.of(times["ours"], times["empty"]), limit=1.2)


def _as_it_is(made: torch.Tensor) -> torch.Tensor:
    return made


def _opened(packed: Any) -> Batch:
    assert isinstance(packed, Packed)
    batch = unpack(packed)
    _touched(batch.image.view(torch.uint8).view(-1))
    return batch


def _touched(memory: torch.Tensor) -> torch.Tensor:
    """Read one byte of each page: what was sent has not arrived before it can be read."""
    assert int(memory[::4096].sum()) >= 0
    return memory


def _drawing(stream: Iterator[Any]) -> Callable[[], None]:
    def read() -> None:
        for _ in range(32):
            next(stream)

    return read


def _hidden(files: Files) -> dict[str, Any]:
    """Share of the reading time that a 50 ms step hides, one thread; reading alone takes less than the step."""
    steps, shares, loads = 40, [], []
    loader = scene_loader(files.tiled256, batch=2)
    for turn in range(5):
        first = 2 * steps * turn
        alone = _seconds(loader, first, first + steps, 0.0)
        together = _seconds(loader, first + steps, first + 2 * steps, STUB_S)
        shares.append(1 - (together - steps * STUB_S) / alone)
        loads.append(alone / steps / STUB_S)
    name = f"P7 share of reading hidden behind a 50 ms step (reading takes {statistics.median(loads):.2f} of it)"
    return gate(name, Ratio(statistics.median(shares), max(shares)), floor=0.9)


def _seconds(loader: TileLoader, start: int, stop: int, step: float) -> float:
    begun = time.perf_counter()
    for _ in loader.batches(start, stop):
        time.sleep(step)
    return time.perf_counter() - begun


def memory() -> list[dict[str, Any]]:
    """P8: what two million rows cost, in a fresh process with two worker processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.read_memory", folder],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    names = {
        "private_growth_mb": ("private growth per worker at 2 million rows (MB)", 20),
        "disk_per_row": ("bytes per row of an index of 10,000 files, on disk", 300),
        "memory_per_row": ("the same read into memory, 1 band (workers map it instead)", 300),
    }
    return [
        {"gate": f"P8 {words}", "ratio": found[name], "limit": limit, "ok": found[name] < limit}
        for name, (words, limit) in names.items()
    ]
