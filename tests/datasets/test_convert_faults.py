"""Conversions that are killed, divided among processes, or larger than memory. Slow; HALFSEEN_FULL=1 for full size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.geometry import Georeference, Spacing
from datasets.content import digest_of
from datasets.converting.prepare import convert
from datasets.manifest import Manifest
from datasets.writers import Facts, write_image

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
FULL = os.environ.get("HALFSEEN_FULL") == "1"

pytestmark = pytest.mark.slow

# The command with large images divided from 1 MB on, so that small tests divide.
DIVIDED = """
import sys
import datasets.converting.dispatch, datasets.converting.job
datasets.converting.job._LARGE = 1 << 20
datasets.converting.dispatch._TASK_BYTES = 1 << 18
from datasets.convert import main
main(sys.argv[1:])
"""

CLUSTER = """
import os, signal, sys
from pathlib import Path

def start(dask_worker):
    return os.getpid()

def go():
    import datasets.converting.dispatch, datasets.converting.job
    datasets.converting.job._LARGE = 1 << 20
    datasets.converting.dispatch._TASK_BYTES = 1 << 18
    from distributed import Client, LocalCluster
    from datasets.converting.prepare import convert
    from datasets.converting.job import Settings
    source, out = sys.argv[1:]
    killed = []
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            pids = list(client.run(start).values())
            def progress(what, done, total):
                if what == "converting" and done >= total // 2 and not killed:
                    killed.append(pids[0])
                    os.kill(pids[0], signal.SIGKILL)
            report = convert([source], out, Settings(shard=((128, 128),)), scheduler=cluster.scheduler_address, progress=progress)
    assert len(set(pids)) == 2 and killed, (pids, killed)
    assert not report.failed, report.failed
    print("converted", report.converted, "killed", len(killed))

if __name__ == "__main__":
    go()
"""


def collection(folder: Path) -> Path:
    """Twenty-four volumes and two scenes that are large enough to be divided."""
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(key=8))
    for number in range(24):
        data = rng.integers(-500, 500, (40, 50, 30 + number)).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.5, 2.0, 1.0])), folder / f"v{number:02d}.nii.gz")
    for number in range(2):
        voxels = rng.normal(0, 1, (3, 500, 470 + number)).astype(np.float32)
        facts = Facts(
            shape=voxels.shape,
            dtype=voxels.dtype,
            bands=("a", "b", "c"),
            spacing=Spacing((30.0, 30.0), "m"),
            georeference=Georeference("EPSG:32615", (30.0, 0.0, 5e5, 0.0, -30.0, 1e6)),
            valid=1,
        )
        whole = (slice(0, 500), slice(0, 470 + number))
        write_image(folder / f"s{number}.zarr", facts, [(whole, voxels, rng.random((1, 500, 470 + number)) < 0.9)])
    return folder


def digests(out: Path) -> dict[str, str]:
    found = {str(path.relative_to(out)): digest_of(path) for path in sorted((out / "images").rglob("*.zarr"))}
    return found | {
        "statistics": digest_of(out / "statistics.json"),
        "rows": Manifest.read(out / "manifest.parquet").digest,
    }


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GDAL_CACHEMAX": "64"}


def test_killed_again_and_again_the_result_is_the_same_to_the_byte(tmp_path: Path) -> None:
    source = collection(tmp_path / "source")
    shards = ("--shard", "128,128")
    command = [sys.executable, "-c", DIVIDED, str(source)]
    quiet = {"cwd": ROOT, "env": environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    subprocess.run([*command, str(tmp_path / "whole"), *shards, "--quiet"], check=True, **quiet)  # type: ignore[call-overload]
    expected = digests(tmp_path / "whole")
    assert len(expected) == 26 + 2

    out, seen = tmp_path / "out", 0
    for wanted in (3, 9, 16, 22):
        child = subprocess.Popen([*command, str(out), *shards, "--quiet"], **quiet)  # type: ignore[call-overload]
        limit = time.monotonic() + 60
        while len(list((out / "images").glob("[!.]*.zarr"))) < wanted and child.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.005)
        child.kill()
        if child.wait() == -signal.SIGKILL:
            seen += 1
            assert not (out / "manifest.parquet").exists()
        child.communicate()
    assert seen >= 3, "the kills came too late to test anything"
    subprocess.run([*command, str(out), *shards, "--quiet"], check=True, **quiet)  # type: ignore[call-overload]
    assert digests(out) == expected
    assert not [path for path in out.rglob("*") if path.name.endswith("-draft")]


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(tmp_path: Path) -> None:
    from datasets.converting.job import Settings

    source = collection(tmp_path / "source")
    convert([source], tmp_path / "here", Settings(shard=((128, 128),)))
    program = tmp_path / "cluster.py"
    program.write_text(CLUSTER)
    result = subprocess.run(
        [sys.executable, str(program), str(source), str(tmp_path / "there")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "converted 26 killed 1" in result.stdout
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


@pytest.mark.timeout(4000 if FULL else 240)
@pytest.mark.parametrize("task", ["tile", "sparse", "zarr", "tiff"])
def test_a_scene_larger_than_memory_is_tiled_sampled_and_written(tmp_path: Path, task: str) -> None:
    """40 GB in less than 2 GB with HALFSEEN_FULL=1; else 0.5 GB of voxels on top of what importing takes."""
    side, bound = (70_000, 2000) if FULL else (8000, 900)
    result = subprocess.run(
        [sys.executable, str(HERE / "virtual.py"), task, str(side), str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3600 if FULL else 200,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    facts = json.loads(result.stdout.splitlines()[-1])
    print(facts)
    assert facts["voxels_gb"] > (39 if FULL else 0.5)
    assert facts["peak_mb"] < bound
