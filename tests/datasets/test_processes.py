"""Forks, threads and long hauls: right bytes or a refusal, never a hang; memory and file handles stay flat.

HALFSEEN_REPEATS sets the children of each cell of the matrix (2; the programme's number is 20), HALFSEEN_SOAK the reads of
the soak (20,000; the programme's number is 1,000,000).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.contract import Input
from core.geometry import Georeference, Spacing
from datasets.index import build_manifest
from datasets.loader import TileLoader
from datasets.manifest import Manifest
from datasets.sample import StreamSpec
from datasets.workers import _Process
from datasets.writers import Facts, write_image
from tests.programs import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
REPEATS = int(os.environ.get("HALFSEEN_REPEATS", "2"))
SOAK = int(os.environ.get("HALFSEEN_SOAK", "20000"))
METHODS = ("fork", "forkserver", "spawn")
KINDS = ("zarr", "rasterio", "threads", "nifti", "dask", "numpy")  # threads: rasterio, by two threads at a time
WHEN = ("before", "after")


def _write_scene(path: Path, image: np.ndarray, bands: tuple[str, ...]) -> None:
    facts = Facts(
        shape=image.shape,
        dtype=image.dtype,
        bands=bands,
        spacing=Spacing((10.0, 10.0), "m"),
        georeference=Georeference("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)),
    )
    write_image(path, facts, [(tuple(slice(0, n) for n in image.shape[1:]), image)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """One image of each format, and its voxels as they must arrive."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.Generator(np.random.Philox(key=5))
    scene = rng.integers(0, 60_000, (3, 500, 600)).astype(np.uint16)
    volume = rng.integers(-900, 900, (1, 40, 60, 50)).astype(np.int16)
    for name, array in (("scene", scene), ("volume", volume)):
        np.save(root / f"{name}-expected.npy", array)
    _write_scene(root / "scene.tif", scene, ("red", "green", "nir"))
    _write_scene(root / "scene.zarr", scene, ("red", "green", "nir"))
    nib.save(nib.Nifti1Image(volume[0].transpose(2, 1, 0), np.eye(4)), root / "volume.nii.gz")
    np.save(root / "scene.npy", scene)
    expected = {"volume.nii.gz": "volume"}
    chosen = {
        "zarr": "scene.zarr",
        "rasterio": "scene.tif",
        "threads": "scene.tif",
        "dask": "scene.zarr",
        "nifti": "volume.nii.gz",
        "numpy": "scene.npy",
    }
    return {kind: (root / file, root / f"{expected.get(file, 'scene')}-expected.npy") for kind, file in chosen.items()}


CELLS = [
    *((method, "after", KINDS) for method in METHODS),
    # A new interpreter knows nothing of before: CI leaves those cells to the full matrix, HALFSEEN_REPEATS=20.
    *((method, "before", (kind,)) for method in METHODS for kind in KINDS if method == "fork" or REPEATS >= 20),
]


@pytest.mark.parametrize(("method", "when", "kinds"), CELLS, ids=["-".join((*cell[:2], *cell[2])) for cell in CELLS])
def test_right_bytes_in_every_process_and_never_a_hang(
    warm: Server, files: dict[str, tuple[Path, Path]], method: str, when: str, kinds: tuple[str, ...]
) -> None:
    cells = [word for kind in kinds for word in (kind, *files[kind])]
    patience_s = len(kinds) * (60 + 20 * REPEATS)
    uncached = {
        "GDAL_CACHEMAX": "1"
    }  # MB, less than an image: else a handle that is shared by mistake may never be used
    outcome = warm.run(
        "tests.datasets.fork_cell", method, when, REPEATS, *cells, environment=uncached, timeout_s=patience_s
    )
    assert outcome.code == 0, outcome.err[-3000:]
    answers = outcome.out.splitlines()
    assert answers == [f"{kind} right" for kind in kinds for _ in range(REPEATS)], Counter(answers)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 600 small files in five formats."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.Generator(np.random.Philox(key=6))
    for number in range(120):
        volume = nib.Nifti1Image(rng.integers(0, 99, (16, 16, 16)).astype(np.int16), np.eye(4))
        nib.save(volume, root / f"a{number}.nii")
        nib.save(volume, root / f"b{number}.nii.gz")
        Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(root / f"c{number}.png")
        scene = rng.integers(0, 9000, (2, 64, 64)).astype(np.uint16)
        _write_scene(root / f"d{number}.tif", scene, ("red", "nir"))
        _write_scene(root / f"e{number}.zarr", scene, ("red", "nir"))
    build_manifest([root]).write(root / "all.parquet")
    return root / "all.parquet"


def test_a_long_haul_keeps_memory_and_handles_flat(many: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.datasets.soak", str(many), str(SOAK)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        timeout=600 + SOAK // 50,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    facts = json.loads(outcome.stdout.splitlines()[-1])
    print(facts)
    assert facts["reads"] == SOAK // 20 * 20
    assert facts["most"] < 200
    assert facts["after"] <= facts["base"]
    if SOAK >= 20_000:
        assert facts["slope_mb_per_10k"] < (1.0 if SOAK >= 200_000 else 5.0)


def _anonymous_mb(pid: int) -> float:
    line = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


def test_two_million_rows_cost_a_worker_little(
    tmp_path: Path, photograph_input: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gate P8: a worker's own memory, with an index of two million rows and with one of two hundred."""
    import pyarrow as pa

    pixels = np.random.Generator(np.random.Philox(key=1)).integers(90, 230, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one = build_manifest([tmp_path / "a.png"])
    workers: list[_Process] = []
    start = _Process.__init__
    monkeypatch.setattr(_Process, "__init__", lambda self, *given: workers.append(self) or start(self, *given))
    held = {}
    for count in (200, 2_000_000):
        manifest = Manifest(one.table.take(pa.array(np.zeros(count, dtype=np.int64))))
        manifest = manifest.with_column("group", [f"patient {number}" for number in range(count)])
        stream = StreamSpec(input=photograph_input, batch_size=32)
        loader = TileLoader(manifest, [stream], seed=0, workers=2, worker_kind="process", cache_bytes=0)
        made = loader.batches(0, 200)
        for _ in range(198):
            next(made)
        held[count] = [_anonymous_mb(worker.process.pid) for worker in workers[-2:]]
        made.close()
    growth = max(held[2_000_000]) - min(held[200])
    print(f"per worker: {held}, growth {growth:.1f} MB")
    assert growth < 20
