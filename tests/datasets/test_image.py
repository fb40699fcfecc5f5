"""LazyImage: the dask view and what it knows; reading windows is in the readers' exam."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.errors import DataError, MissingDataError
from core.geometry import Spacing
from core.preprocess import Window
from datasets.converting.derived import cropped
from datasets.image import LazyImage, Source
from datasets.readers import open_image

READ: list[Window] = []


@dataclass(frozen=True)
class Counted(Source):
    """Gives the voxel numbers and remembers what was asked."""

    size: tuple[int, int, int]

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        READ.append(window)
        return np.arange(np.prod(self.size)).reshape(1, *self.size)[(slice(None), *window)].astype(np.int32)


def lazy(tmp_path: Path, chunks: tuple[int, ...]) -> LazyImage:
    path = tmp_path / "a.nii"
    path.touch()
    return LazyImage(
        path=path,
        shape=(1, 6, 5, 4),
        dtype=np.dtype(np.int32),
        bands=("intensity",),
        spacing=Spacing((1.0, 1.0, 1.0), "mm"),
        affine=None,
        chunks=chunks,
        source=Counted((6, 5, 4)),
    )


def test_dask_reads_only_the_chunks_that_are_asked_for(tmp_path: Path) -> None:
    READ.clear()
    view = lazy(tmp_path, (1, 5, 4)).dask()
    assert READ == []
    part = view[:, 2:4, 1:3].compute(scheduler="synchronous")
    assert np.array_equal(part, np.arange(120).reshape(1, 6, 5, 4)[:, 2:4, 1:3])
    assert {window[0].start for window in READ} == {2, 3}


def test_windowed_says_whether_windows_are_cheap(tmp_path: Path) -> None:
    assert lazy(tmp_path, (1, 5, 4)).windowed
    assert not lazy(tmp_path, (6, 5, 4)).windowed


def test_open_slices_of_a_window_mean_the_whole_axis(tmp_path: Path) -> None:
    image = lazy(tmp_path, (6, 5, 4))
    assert image.read((slice(None), slice(3, None), slice(None, 2))).shape == (1, 6, 2, 2)


def test_dask_never_takes_two_images_of_one_file_for_one(tmp_path: Path) -> None:
    import dask.array as da

    image = lazy(tmp_path, (6, 5, 4))
    lower = cropped(image, (slice(3, 6), slice(0, 5), slice(0, 4)))
    upper = cropped(image, (slice(0, 3), slice(0, 5), slice(0, 4)))
    both = da.stack([lower.dask(), upper.dask()]).compute(scheduler="synchronous")
    assert np.array_equal(both[0], lower.read())
    assert np.array_equal(both[1], upper.read())
    assert image.dask().name == pickle.loads(pickle.dumps(image)).dask().name


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.npy", "a.png"])
def test_a_file_that_is_gone_since_it_was_opened_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.zeros((4, 4), np.uint8))
    elif name.endswith(".png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    else:
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    image = open_image(path)
    path.unlink()
    with pytest.raises((DataError, MissingDataError), match=name):
        image.read_valid()
