"""NumPy arrays: the reader's exam, axes, and every header that must be refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BandError, BudgetError, DamagedError, UnsupportedError
from core.geometry import Spacing
from datasets.image import LazyImage
from datasets.readers import open_image
from datasets.readers.numpy_array import NumpyArray
from datasets.testing.reader_contract import Case, ReaderContract


def voxels(shape: tuple[int, ...], dtype: str = "i2") -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 251).astype(dtype)


def saved(path: Path, data: np.ndarray) -> Path:
    np.save(path, data)
    return path


def headed(path: Path, header: str | bytes, content: bytes = b"", *, length: int | None = None) -> Path:
    """Write an .npy file with any header."""
    text = header.encode() if isinstance(header, str) else header
    size = (len(text) if length is None else length).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY\x01\x00" + size + text + content)
    return path


class TestNumpyArray(ReaderContract):
    def reader(self) -> NumpyArray:
        return NumpyArray()

    def cases(self, folder: Path) -> list[Case]:
        arrays = [voxels((9, 8)), voxels((9, 8), ">f4"), np.asfortranarray(voxels((9, 8), "u1")), voxels((9, 8), "f8")]
        return [
            Case(
                path=saved(folder / f"a{number}.npy", data),
                image=np.ascontiguousarray(data.astype(data.dtype.newbyteorder("=")))[None],
                bands=("band_1",),
                spacing=Spacing.pixels(2),
            )
            for number, data in enumerate(arrays)
        ]

    def large(self, folder: Path) -> Path:
        return saved(folder / "large.npy", np.zeros((2000, 2100), "i2"))


class TestVolumes(ReaderContract):
    """Three and four axes, named by an option."""

    def reader(self) -> NumpyArray:
        return NumpyArray(axes="zyxc", bands=("a", "b"))

    def cases(self, folder: Path) -> list[Case]:
        arrays = [voxels((9, 8, 7, 2), "u2"), np.asfortranarray(voxels((9, 8, 7, 2), "f4"))]
        return [
            Case(
                path=saved(folder / f"v{number}.npy", data),
                image=np.ascontiguousarray(data.transpose(3, 0, 1, 2)),
                bands=("a", "b"),
                spacing=Spacing.pixels(3),
            )
            for number, data in enumerate(arrays)
        ]

    def large(self, folder: Path) -> Path:
        return saved(folder / "large.npy", np.zeros((100, 100, 210, 2), "i2"))

    def test_content_decides_not_the_name(self, tmp_path: Path) -> None:
        """Opened without its axes, the content is recognised and the question asked."""
        renamed = tmp_path / "name.of.another.kind"
        saved(tmp_path / "a.npy", voxels((9, 8, 7))).rename(renamed)
        with pytest.raises(UnsupportedError, match=r"name\.of\.another\.kind.*numpy_array\.axes"):
            open_image(renamed)


def codes(image: LazyImage) -> set[str]:
    return {flag.code for flag in image.flags}


def test_axes_are_told_and_never_guessed(tmp_path: Path) -> None:
    data = voxels((3, 8, 7))
    path = saved(tmp_path / "a.npy", data)
    with pytest.raises(UnsupportedError, match="3 axes .* does not name them"):
        open_image(path)
    image = open_image(path, NumpyArray(axes="zyx"))
    assert np.array_equal(image.read(), data[None])
    assert (image.chunks, codes(image)) == ((1, 8, 7), {"unnamed_bands", "no_geometry"})
    image = open_image(path, NumpyArray(axes="yxc", bands=tuple("abcdefg")))
    assert (image.shape, codes(image)) == ((7, 3, 8), {"no_geometry"})
    got = image.read((slice(1, 3), slice(2, 5)), ["f", "b"])
    assert np.array_equal(got, data[1:3, 2:5, [5, 1]].transpose(2, 0, 1))
    with pytest.raises(UnsupportedError, match="axes 'cyy'"):
        open_image(path, NumpyArray(axes="cyy"))
    with pytest.raises(BandError, match="has 3 bands"):
        open_image(path, NumpyArray(axes="cyx", bands=("a",)))


def test_chunks_are_the_planes_that_lie_together(tmp_path: Path) -> None:
    reader = NumpyArray(axes="zyxc")
    assert open_image(saved(tmp_path / "c.npy", voxels((5, 6, 7, 2))), reader).chunks == (1, 6, 7)
    data = np.asfortranarray(voxels((5, 6, 7, 2)))
    assert open_image(saved(tmp_path / "f.npy", data), reader).chunks == (5, 6, 1)


def test_booleans_read_as_0_and_1(tmp_path: Path) -> None:
    image = open_image(saved(tmp_path / "a.npy", voxels((8, 7)) > 90))
    assert image.dtype == np.uint8
    assert np.array_equal(image.read()[0], (voxels((8, 7)) > 90).astype(np.uint8))


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "a.npy"
    np.save(path, np.array([[Bomb(target)]], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedError, match="never unpickled"):
        open_image(path)
    headed(path, "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 2)}", pickle.dumps(Bomb(target)))
    with pytest.raises(DamagedError, match="truncated or altered"):
        open_image(path)
    assert not target.exists()


@pytest.mark.parametrize("dtype", ["c8", "U3", "S3", "M8[s]", "i2,i2", "f16"])
def test_other_than_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UnsupportedError, match=r"a\.npy: expected whole, real or boolean numbers"):
        open_image(saved(tmp_path / "a.npy", np.zeros((3, 3), dtype=dtype)))


def test_an_npz_is_refused_with_the_cure(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=voxels((8, 7)))
    with pytest.raises(UnsupportedError, match=r"a single \.npy"):
        open_image(tmp_path / "a.npz")


GOOD = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 2)}"


@pytest.mark.parametrize(
    "header",
    [
        GOOD[:-1],
        GOOD.replace("(2, 2)", "(2, -2)"),
        GOOD.replace("(2, 2)", "[2, 2]"),
        GOOD.replace("(2, 2)", "(2, 2.0)"),
        GOOD.replace("False", "0"),
        GOOD.replace("'<i2'", "'?!'"),
        GOOD.replace("'shape'", "'shap'"),
        GOOD.replace("}", ", 'more': 1}"),
        "__import__('os').getcwd()",
        "(" * 5000,
        b"\xff\xfe",
        "1",
        "",
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: str | bytes) -> None:
    assert open_image(headed(tmp_path / "good.npy", GOOD, b"12345678")).shape == (1, 2, 2)
    with pytest.raises(DamagedError, match=r"a\.npy: its \.npy header is damaged"):
        open_image(headed(tmp_path / "a.npy", header, b"12345678"))


def test_lengths_must_agree(tmp_path: Path) -> None:
    for content in (b"", b"1234567", b"123456789"):
        with pytest.raises(DamagedError, match="truncated or altered"):
            open_image(headed(tmp_path / "a.npy", GOOD, content))
    with pytest.raises(DamagedError, match="truncated or altered"):
        open_image(headed(tmp_path / "a.npy", GOOD.replace("(2, 2)", "(2, 1099511627776)"), b"12345678"))
    path = tmp_path / "b.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + GOOD.encode())
    with pytest.raises(BudgetError, match="declares 1073741824 bytes"):
        open_image(path)
    with pytest.raises(UnsupportedError, match="at least two axes"):
        open_image(saved(tmp_path / "c.npy", voxels((9,))))
    with pytest.raises(UnsupportedError, match="at least two axes"):
        open_image(saved(tmp_path / "d.npy", np.zeros((0, 4))))


def test_a_file_that_was_cut_after_it_was_opened_is_refused_not_mapped(tmp_path: Path) -> None:
    image = open_image(saved(tmp_path / "a.npy", voxels((100, 100))))
    data = image.path.read_bytes()
    image.path.write_bytes(data[:5000])
    with pytest.raises(DamagedError, match="truncated"):
        image.read((slice(90, 100), slice(0, 100)))


def test_a_window_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    image = open_image(saved(tmp_path / "a.npy", voxels((100, 100))), NumpyArray(max_bytes=2000))
    assert image.read((slice(0, 10), slice(0, 100))).shape == (1, 10, 100)
    with pytest.raises(BudgetError, match=r"--options numpy_array\.max_bytes=\d+\."):
        image.read()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, voxels((8, 7)), version=version)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    assert np.array_equal(open_image(tmp_path / "a.npy").read()[0], voxels((8, 7)))
