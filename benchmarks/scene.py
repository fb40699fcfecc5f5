"""Mapping scenes larger than memory: what it holds, and how much slower it is than the network alone.

    python -m benchmarks.scene [--side 20000] [--rounds 3] [--json FILE] [--check] [--only memory speed]

memory  A scene of 14 bands that exists as a formula, with a strip of nodata, is mapped to a COG in a process of its own by a
        cheap network; its peak must stay below 2 GB. What was said beforehand stands beside it.
speed   A scene of 14 bands on disk (COG, deflate) is mapped to a COG by a ViT-S/16 with five classes on one thread, by turns
        with the same network on the same windows in memory. Throughput must be at least 90 % of the network's alone. On a
        machine with busy neighbours look at the second gate: what the network's own thread computed, whatever they did.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.files import scene as drawn
from benchmarks.measure import Ratio, gate, interleave, machine, publish, say_gates
from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.geometry import Georeference, Spacing
from core.heads.load import Model
from core.heads.segment import Segment
from core.inference import Scene, Windows, memory_bytes, network_bytes, predict_windows
from core.preprocess import Window
from core.weights import Placement
from datasets import LazyImage, open_image, write_image
from datasets.image import Source
from datasets.writers import Facts, writing
from datasets.writers.geotiff import GeoTiff

BANDS = tuple(f"B{number:02d}" for number in range(1, 15))
CLASSES = 5
LEGEND = tuple((code, f"class {code}", (40 * code, 200 - 40 * code, 90)) for code in range(CLASSES))
LIMIT_BYTES = 2e9
WINDOW, OVERLAP, BATCH = 224, 32, 8
_FILES = (256 + 128) << 20  # what writing and GDAL's caches hold


@dataclass(frozen=True)
class Formula(Source):
    """Pixels by their place; every 100th column of squares is nodata."""

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Compute a window."""
        rows, columns = (np.arange(part.start, part.stop) // 64 for part in window)
        plane = ((rows[:, None] * 131 + columns[None] * 17) % 9973 + 1).astype(np.uint16)
        plane[:, columns % 100 == 99] = 0
        return np.stack([plane if band == 0 else plane * np.uint16(band % 5 + 1) for band in bands])


def virtual(side: int) -> LazyImage:
    """A scene of (14, side, side) uint16, in squares of 64 pixels."""
    return LazyImage(
        path=Path("formula"),
        shape=(14, side, side),
        dtype=np.dtype(np.uint16),
        bands=BANDS,
        spacing=Spacing((10.0, 10.0), "m"),
        georeference=Georeference("EPSG:32633", (10.0, 0.0, 4e5, 0.0, -10.0, 5.1e6)),
        chunks=(512, 512),
        source=Formula(),
        nodata=(0.0,) * 14,
    )


def map_scene(image: LazyImage, function: Callable[[Batch], Tensor], path: Path) -> int:
    """Map a scene to classes; gives the number of windows that had data."""
    scene = Scene(
        read=lambda window: image.read_valid(window, BANDS),
        dtype=image.dtype,
        bands=BANDS,
        spacing=image.spacing,
        offset=np.full(14, 2500.0),
        scale=np.full(14, 1e-3),
    )
    facts = Facts(
        shape=(1, *image.size),
        dtype=np.dtype(np.uint8),
        bands=("class",),
        spacing=image.spacing,
        georeference=image.georeference,
        nodata=(255.0,),
    )
    with writing(path, facts, writer=GeoTiff(overviews="nearest", legend=LEGEND)) as put:

        def write(window: Window, values: np.ndarray, valid: np.ndarray) -> None:
            put((window, np.where(valid, values.argmax(0), 255).astype(np.uint8)[None]))

        return predict_windows(function, scene, covered(image), write, values=CLASSES, batch_size=BATCH)


def covered(image: LazyImage) -> Windows:
    """The windows of a scene."""
    return Windows(size=image.size, window=(WINDOW, WINDOW), overlap=(OVERLAP, OVERLAP), cell=(1, 1))


def cheap(batch: Batch) -> Tensor:
    """Five classes by a look at each pixel: the cost of a real network's first lines."""
    image = batch.normalised().image
    return torch.einsum("bcyx,ck->bkyx", image, torch.linspace(-1, 1, 14 * CLASSES).reshape(14, CLASSES)).softmax(1)


def hold(side: int) -> None:
    """Map a virtual scene and print what it took; run in a process of its own."""
    torch.set_num_threads(1)
    image, before = virtual(side), peak()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = map_scene(image, cheap, Path(folder) / "map.tif")
        nodata = _wrong(image, open_image(Path(folder) / "map.tif", *_indexed()))
    parts = memory_bytes(covered(image), bands=14, itemsize=2, values=CLASSES, batch_size=BATCH)
    work = network_bytes(cheap, covered(image), bands=BANDS, spacing=image.spacing, batch_size=BATCH)
    said = sum(parts.values()) + work + _FILES
    found = {
        "side": side,
        "windows": len(covered(image)),
        "seen": seen,
        "wrong_nodata": nodata,
        "libraries_mb": round(before / 1e6),
        "said_mb": round(said / 1e6),
        "peak_mb": round(peak() / 1e6),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(found))


def _indexed() -> tuple[Any, ...]:
    from datasets.readers import configured

    return configured(["geotiff.palette=index"])


def _wrong(image: LazyImage, made: LazyImage) -> int:
    """Count pixels of a few rows whose nodata is not that of the scene."""
    rows = (slice(image.size[0] // 2, image.size[0] // 2 + 8), slice(0, image.size[1]))
    return int((made.read(rows)[0] == 255).sum() - (image.read(rows)[0] == 0).sum())


def peak() -> int:
    """Bytes that this program held at most; Linux's `ru_maxrss` would be at least what the starting process held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(side: int) -> list[dict[str, Any]]:
    """Peak memory of a whole run, Python and its libraries included, over 2 GB."""
    words = [sys.executable, "-m", "benchmarks.scene", "--hold", str(side)]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = json.loads(out.splitlines()[-1])
    share = found["peak_mb"] * 1e6 / LIMIT_BYTES
    return [
        {"scene": "memory", **found},
        gate(f"peak of {side} x {side} x 14 / 2 GB", Ratio(share, share), limit=1.0),
        gate("pixels whose nodata is wrong", Ratio(found["wrong_nodata"], found["wrong_nodata"]), limit=0.0),
    ]


def network() -> Model:
    """A ViT-S/16 with one linear map per token."""
    entry = Input(
        name="scene",
        bands=BANDS,
        patch=(16, 16),
        size=(WINDOW, WINDOW),
        spacing=(10.0, 10.0),
        unit="m",
        normalisation=Normalisation(method="fixed", mean=(2500.0,) * 14, std=(1000.0,) * 14, full_scale=False),
    )
    torch.manual_seed(0)
    backbone = ViTSpec(contract=Contract(inputs=(entry,)), width=384, depth=12, heads=6).build()
    encoder = Encoder(backbone, pool="mean", report=Placement(()))
    names = tuple(name for _, name, _ in LEGEND)
    return Model(encoder, Segment(num_classes=CLASSES), task="segment", classes=names).eval()


def speed(side: int, rounds: int) -> list[dict[str, Any]]:
    """Throughput of a run over that of its network alone on the same windows."""
    torch.set_num_threads(1)
    model = network()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "scene.tif"
        pixels = drawn(side=side)
        whole = (slice(0, side), slice(0, side))
        write_image(source, Facts.of(virtual(side)), [(whole, pixels)], writer=GeoTiff(tile=256))
        batches: list[Batch] = []

        def keep(batch: Batch) -> Tensor:
            batches.append(batch)
            return torch.zeros(len(batch), CLASSES, WINDOW, WINDOW)

        windows = map_scene(open_image(source), keep, Path(folder) / "none.tif")

        @torch.inference_mode()
        def alone() -> None:
            for batch in batches:
                model.probabilities(batch)

        def mapped() -> None:
            path = Path(folder) / "map.tif"
            map_scene(open_image(source), model.probabilities, path)
            path.unlink()

        steps = {"alone": alone, "mapped": mapped}
        own: dict[str, list[float]] = {name: [] for name in steps}

        def timed(name: str) -> Callable[[], None]:
            def step() -> None:
                begun = time.thread_time()
                steps[name]()
                own[name].append(time.thread_time() - begun)

            return step

        times = interleave({name: timed(name) for name in steps}, rounds)
    own = {name: values[1:] for name, values in own.items()}  # the first of each is not timed
    ratio = Ratio.of(times["alone"], times["mapped"])
    rates = {name: round(windows / min(values), 2) for name, values in times.items()}
    facts = {"scene": "speed", "side": side, "windows": windows, "windows_per_s": rates, "rounds": rounds}
    return [
        facts,
        gate("throughput of mapping / of the network alone", ratio, floor=0.9),
        gate(
            "the same by the seconds that the network's own thread computed",
            Ratio.of(own["alone"], own["mapped"]),
            floor=0.9,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=20_000, help="pixels along an edge of the virtual scene")
    parser.add_argument("--timed-side", type=int, default=3072, help="pixels along an edge of the scene that is timed")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing; each maps the scene once")
    parser.add_argument("--json", type=Path, help="append one JSON line per record to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a gate does not hold")
    parser.add_argument("--only", nargs="+", choices=("memory", "speed"), default=("memory", "speed"))
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(options.hold)
        return 0
    torch.set_num_threads(1)
    where = {"date": time.strftime("%Y-%m-%d"), "machine": machine(torch.device("cpu")), "torch": torch.__version__}
    sections = {"memory": lambda: memory(options.side), "speed": lambda: speed(options.timed_side, options.rounds)}
    records = [record for name in options.only for record in sections[name]()]
    publish(records, where, options.json)
    return 1 if not say_gates(records) and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
