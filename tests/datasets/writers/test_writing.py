"""Windows that are pushed: from another thread, and what is left when the pusher fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError, RunFolderError
from core.geometry import Spacing
from datasets import open_image
from datasets.writers import Facts, writing

FACTS = Facts(shape=(1, 40, 60), dtype=np.dtype(np.uint16), bands=("B04",), spacing=Spacing((10.0, 10.0), "px"))
VOXELS = np.arange(2400, dtype=np.uint16).reshape(1, 40, 60)
PARTS = [(slice(0, 40), slice(x, x + 20)) for x in (20, 0, 40)]


def push(path: Path, number: int, *, overwrite: bool = False) -> None:
    with writing(path, FACTS, overwrite=overwrite) as put, ThreadPoolExecutor(1) as thread:
        for rows, columns in PARTS[:number]:
            thread.submit(put, ((rows, columns), VOXELS[:, rows, columns])).result()


@pytest.mark.parametrize("name", ["scene.tif", "scene.zarr"])
def test_windows_may_be_pushed_by_another_thread(tmp_path: Path, name: str) -> None:
    push(tmp_path / name, 3)
    assert np.array_equal(open_image(tmp_path / name).read(), VOXELS)
    with pytest.raises(RunFolderError, match="exists already"):
        push(tmp_path / name, 3)
    push(tmp_path / name, 3, overwrite=True)


@pytest.mark.parametrize("name", ["scene.tif", "scene.zarr"])
def test_a_pusher_that_fails_or_stops_early_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="0:40, 40:60 never came"):
        push(tmp_path / name, 2)
    with pytest.raises(KeyError), writing(tmp_path / name, FACTS):
        raise KeyError("the network failed")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    push(tmp_path / "scene.tif", 3)
    with pytest.raises(DataError, match="never came"):
        push(tmp_path / "scene.tif", 1, overwrite=True)
    assert np.array_equal(open_image(tmp_path / "scene.tif").read(), VOXELS)
