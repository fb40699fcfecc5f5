"""A scene that exists only as a formula, larger than memory: run as a program, it says what a task took.

python virtual.py tile|zarr|tiff|sparse SIDE FOLDER
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.geometry import Georeference, Spacing
from core.preprocess import Window
from datasets.image import LazyImage, Source
from datasets.readers import open_image
from datasets.tiling import cover, random_window
from datasets.writers import Facts, plan, write_image

BANDS = ("blue", "green", "red", "nir")


@dataclass(frozen=True)
class Formula(Source):
    """Pixels by their place: cheap to make, cheap to pack, and every 64 x 64 square differs from its neighbours."""

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        rows, columns = (np.arange(part.start, part.stop) // 64 for part in window)
        plane = ((rows[:, None] * 131 + columns[None] * 17) % 9973).astype(np.uint16)
        return np.stack([plane + np.uint16(1000 * band + 1) for band in bands])


def virtual(side: int) -> LazyImage:
    return LazyImage(
        path=Path("formula"),
        shape=(4, side, side),
        dtype=np.dtype(np.uint16),
        bands=BANDS,
        spacing=Spacing((10.0, 10.0), "m"),
        georeference=Georeference("EPSG:32633", (10.0, 0.0, 4e5, 0.0, -10.0, 5.1e6)),
        chunks=(512, 512),
        source=Formula(),
        nodata=(0.0,) * 4,
    )


def tile(side: int, folder: Path) -> int:
    """Cover the scene by overlapping tiles, and read a thousand of them and a thousand random windows."""
    image = virtual(side)
    step = 512 - 64
    count = 0
    every = max(1, math.ceil((side - 64) / step) ** 2 // 1000)
    for window in cover(image.size, (512, 512), (64, 64)):
        if count % every == 0:
            assert image.read(window).shape == (4, 512, 512)
        count += 1
    rng = np.random.Generator(np.random.Philox(key=1))
    check(image, image, rng, 1000)
    assert count == math.ceil((side - 64) / step) ** 2
    return count


def check(image: LazyImage, expected: LazyImage, rng: np.random.Generator, number: int) -> None:
    whole = tuple(slice(0, n) for n in image.size)
    for _ in range(number):
        start = random_window(whole, (200, 300), rng)
        window = (slice(start[0], start[0] + 200), slice(start[1], start[1] + 300))
        voxels, valid = image.read_valid(window)
        assert np.array_equal(voxels, expected.source.read(window, (0, 1, 2, 3))), window
        assert valid.all()


def write(side: int, path: Path) -> int:
    """Write all of it window by window, and compare 300 random windows of the file."""
    image = virtual(side)
    facts = Facts.of(image)
    write_image(path, facts, ((window, image.read(window)) for window in plan(path, facts)))
    written = open_image(path)
    assert (written.shape, written.bands, written.nodata) == (image.shape, BANDS, image.nodata)
    assert written.georeference == image.georeference
    check(written, image, np.random.Generator(np.random.Philox(key=2)), 300)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def sparse(side: int, folder: Path) -> int:
    """A Zarr store of that size with one chunk in it: tiled, sampled and read."""
    import zarr

    array = zarr.create_array(
        folder / "sparse.zarr",
        shape=(4, side, side),
        chunks=(4, 512, 512),
        dtype="uint16",
        dimension_names=("c", "y", "x"),
    )
    array[:, 512:1024, 512:1024] = 7
    image = open_image(folder / "sparse.zarr")
    tiles = sum(1 for _ in cover(image.size, (512, 512)))
    rng = np.random.Generator(np.random.Philox(key=3))
    whole = tuple(slice(0, n) for n in image.size)
    for _ in range(1000):
        y, x = random_window(whole, (256, 256), rng)
        image.read((slice(y, y + 256), slice(x, x + 256)))
    assert image.read((slice(500, 600), slice(500, 600))).sum() == 4 * 88 * 88 * 7
    return tiles


def peak() -> int:
    """Bytes that this program held at most; Linux's `ru_maxrss` would be at least what the starting process held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    task, side, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    begun = time.monotonic()
    work = {
        "tile": lambda: tile(side, folder),
        "sparse": lambda: sparse(side, folder),
        "zarr": lambda: write(side, folder / "scene.zarr"),
        "tiff": lambda: write(side, folder / "scene.tif"),
    }[task]
    result = work()
    facts = {"task": task, "voxels_gb": 8 * side * side / 1e9, "result": result, "peak_mb": round(peak() / 1e6)}
    print(json.dumps(facts | {"seconds": round(time.monotonic() - begun, 1)}))


if __name__ == "__main__":
    main()
