"""The exam that every reader passes: subclass `ReaderContract` in a test module and say how to write files.

It needs nothing but pytest. Each test writes the reader's own cases, so a new reader gets the whole exam by
describing two or three files.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import shutil
import tracemalloc
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.bands import BandNames
from core.errors import DataError
from core.geometry import Georeference, Spacing
from datasets.image import LazyImage
from datasets.readers import open_image
from datasets.readers.base import Reader


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and what reading it must give.

    Attributes:
        path: the file, whole and well-formed.
        image: (C, *S), the expected voxels with their dtype.
        bands: the expected names.
        spacing: the expected spacing.
        affine: the expected 4 x 4 matrix of (z, y, x, 1), or None.
        checked: whether the format has a checksum, so that every damaged byte must be noticed.
        georeference: the expected CRS and transform; not examined where None.
        nodata: the expected value per band; not examined where None.
        scaling: the expected (scale, offset) per band; not examined where None.
        valid: (C, *S) bool, what is measured data; not examined where None.
    """

    path: Path
    image: np.ndarray
    bands: BandNames
    spacing: Spacing
    affine: np.ndarray | None = None
    checked: bool = False
    georeference: Georeference | None = None
    nodata: tuple[float | None, ...] | None = None
    scaling: tuple[tuple[float, float], ...] | None = None
    valid: np.ndarray | None = None


class ReaderContract(ABC):
    """Laziness, windows, types, geometry, processes and threads, damage."""

    @abstractmethod
    def reader(self) -> Reader:
        """The reader with default options."""

    @abstractmethod
    def cases(self, folder: Path) -> list[Case]:
        """Write files that differ in what the format allows, and give what they hold."""

    @abstractmethod
    def large(self, folder: Path) -> Path:
        """Write a file of at least 8 MB of voxels."""

    def content(self, path: Path) -> Path:
        """The file that the exam damages: the image itself or, where the image is a folder, the largest file in it."""
        if path.is_file():
            return path
        return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)

    def test_facts_and_voxels_are_those_written(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            assert (image.shape, image.dtype, image.bands) == (case.image.shape, case.image.dtype, case.bands), (
                case.path
            )
            assert image.spacing == case.spacing, case.path
            voxels = image.read()
            assert voxels.dtype == case.image.dtype
            assert voxels.dtype.isnative
            assert np.array_equal(voxels, case.image), case.path

    def test_affine_round_trip(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            assert (image.affine is None) == (case.affine is None)
            if image.affine is not None and case.affine is not None:
                np.testing.assert_allclose(image.affine.matrix, case.affine, atol=1e-5)
                np.testing.assert_allclose(image.affine.spacing.values, image.spacing.values, atol=1e-5)
                start = (1, 2, 1)
                moved = image.affine.shifted(start).matrix @ [0, 0, 0, 1]
                np.testing.assert_allclose(moved, case.affine @ [*start, 1], atol=1e-5)

    def test_georeference_round_trip(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            if case.georeference is None:
                continue
            found = self._open(case).georeference
            assert found is not None, case.path
            assert found.crs == case.georeference.crs, case.path
            np.testing.assert_allclose(found.transform, case.georeference.transform, rtol=1e-12, atol=1e-9)
            a, b, c, d, e, f = case.georeference.transform
            moved = found.shifted((3, 2)).transform  # of a window that begins at row 3, column 2
            np.testing.assert_allclose(moved, (a, b, c + 2 * a + 3 * b, d, e, f + 2 * d + 3 * e), rtol=1e-12, atol=1e-9)

    def test_nodata_scaling_and_validity_are_those_written(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            if case.nodata is not None:
                assert image.nodata == case.nodata, case.path
            if case.scaling is not None:
                assert image.scaling == case.scaling, case.path
            voxels, valid = image.read_valid()
            assert (valid.shape, valid.dtype) == (case.image.shape, np.dtype(bool)), case.path
            assert np.array_equal(voxels, case.image, equal_nan=case.image.dtype.kind == "f"), case.path
            if case.valid is not None:
                assert np.array_equal(valid, case.valid), case.path
            for window in _windows(image):
                assert np.array_equal(image.read_valid(window)[1], valid[(slice(None), *window)]), (case.path, window)

    def test_bands_by_name_equal_that_slice(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            window = tuple(slice(0, max(1, n // 2)) for n in image.size)
            part, valid = case.image[(slice(None), *window)], image.read_valid(window)[1]
            for picked in (image.bands[::-1], image.bands[-1:], image.bands[:1]):
                rows = [image.bands.index(name) for name in picked]
                voxels, measured = image.read_valid(window, picked)
                assert np.array_equal(image.read(window, picked), part[rows]), (case.path, picked)
                assert np.array_equal(voxels, part[rows]), (case.path, picked)
                assert np.array_equal(measured, valid[rows]), (case.path, picked)

    def test_one_window_takes_few_bytes_of_the_file(self, tmp_path: Path) -> None:
        path = self.large(tmp_path)
        image = open_image(path, self.reader())
        counter = Path("/proc/self/io")
        if not (image.windowed and counter.exists()):
            return  # a format without cheap windows, or a system that does not count
        window = tuple(
            slice(n // 2 // c * c, min(n, (n // 2 // c + 1) * c)) for n, c in zip(image.size, image.chunks, strict=True)
        )
        image.read(tuple(slice(0, 1) for _ in image.size))  # what is read once for all windows
        stored = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        before = _bytes_read(counter)
        image.read(window)
        taken = _bytes_read(counter) - before
        assert taken <= max(stored // 4, 1 << 20), f"one chunk took {taken} of {stored} bytes"

    def test_opening_decodes_nothing(self, tmp_path: Path) -> None:
        path = self.large(tmp_path)
        self.reader().open(path)  # imports happen here
        tracemalloc.start()
        try:
            image = self.reader().open(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        voxels = int(np.prod(image.shape)) * image.dtype.itemsize
        assert voxels >= 8_000_000, "the exam needs a file of at least 8 MB of voxels"
        assert peak < 1_000_000, f"opening took {peak} bytes of memory"

    def test_window_equals_slice_of_full_read(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            for window in _windows(image):
                assert np.array_equal(image.read(window), case.image[(slice(None), *window)]), (case.path, window)

    def test_window_past_the_edge_is_refused(self, tmp_path: Path) -> None:
        case = self.cases(tmp_path)[0]
        image = self._open(case)
        whole = [slice(0, n) for n in image.size]
        n = image.size[0]
        for bad in (slice(-1, 2), slice(0, n + 1), slice(n, n + 1), slice(1, 1), slice(0, n, 2), slice(n - 1, 0, -1)):
            _refused(lambda bad=bad: image.read((bad, *whole[1:])), case.path)  # type: ignore[misc]
        _refused(lambda: image.read(tuple(whole[1:])), case.path)
        _refused(lambda: image.read((*whole, slice(0, 1))), case.path)

    def test_reads_are_fresh_arrays(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            first = image.read()
            assert first.flags.c_contiguous
            assert first.flags.writeable
            first[...] = 0
            assert np.array_equal(image.read(), case.image)

    def test_dask_view_equals_read(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            lazy = self._open(case).dask()
            assert (lazy.shape, lazy.dtype) == (case.image.shape, case.image.dtype)
            assert np.array_equal(lazy.compute(scheduler="synchronous"), case.image)
            part = lazy[:, 1:3, ::2].compute(scheduler="synchronous")
            assert np.array_equal(part, case.image[:, 1:3, ::2])

    def test_pickles(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            image.read()
            assert np.array_equal(pickle.loads(pickle.dumps(image)).read(), case.image)

    def test_threads_read_right_voxels(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            image = self._open(case)
            windows = _windows(image) * 5
            with ThreadPoolExecutor(4) as pool:
                for window, voxels in zip(windows, pool.map(image.read, windows), strict=True):
                    assert np.array_equal(voxels, case.image[(slice(None), *window)])

    def test_forked_process_reads_right_voxels(self, tmp_path: Path) -> None:
        if not hasattr(os, "fork"):
            return
        for case in self.cases(tmp_path):
            image = self._open(case)
            image.read()
            children = [_forked(lambda image=image, case=case: _reads_right(image, case.image)) for _ in range(2)]  # type: ignore[misc]
            assert _reads_right(image, case.image)
            assert [os.waitpid(child, 0)[1] for child in children] == [0, 0], case.path

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_new_process_reads_right_voxels(self, method: str, tmp_path: Path) -> None:
        if method not in multiprocessing.get_all_start_methods():
            return
        context: Any = multiprocessing.get_context(method)
        images = [(self._open(case), case.image) for case in self.cases(tmp_path)]
        for image, _ in images:
            image.read()
        child = context.Process(target=_exit_if_wrong, args=(images,))
        child.start()
        child.join(120)
        assert child.exitcode == 0, f"{method}: exit code {child.exitcode}"

    def test_content_decides_not_the_name(self, tmp_path: Path) -> None:
        case = self.cases(tmp_path)[0]
        renamed = tmp_path / "name.of.another.kind"
        _copy(case.path, renamed)
        assert np.array_equal(open_image(renamed).read(), case.image)

    def test_truncated_file_is_refused(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            broken = tmp_path / f"broken_{case.path.name}"
            _copy(case.path, broken)
            content = self.content(broken)
            data = content.read_bytes()
            for share in (0.02, 0.3, 0.6, 0.9):
                content.write_bytes(data[: max(1, int(share * len(data)))])
                _refused(lambda broken=broken: self._read(broken), broken)  # type: ignore[misc]

    def test_damage_is_noticed_where_the_format_can(self, tmp_path: Path) -> None:
        rng = np.random.Generator(np.random.Philox(key=7))
        for case in (case for case in self.cases(tmp_path) if case.checked):
            broken = tmp_path / f"broken_{case.path.name}"
            _copy(case.path, broken)
            content = self.content(broken)
            data = content.read_bytes()
            for place in rng.integers(0, len(data) * 8, 60):
                flipped = bytearray(data)
                flipped[place // 8] ^= 1 << (place % 8)
                content.write_bytes(flipped)
                voxels, error = None, None
                try:
                    voxels = self._read(broken)
                except DataError as caught:
                    error = caught
                if voxels is None:
                    assert broken.name in str(error)
                else:
                    assert np.array_equal(voxels, case.image), f"bit {place}: wrong voxels, no error"

    def _open(self, case: Case) -> LazyImage:
        return open_image(case.path, self.reader())

    def _read(self, path: Path) -> np.ndarray:
        return open_image(path, self.reader()).read()


def _exit_if_wrong(images: list[tuple[LazyImage, np.ndarray]]) -> None:
    raise SystemExit(0 if all(_reads_right(image, expected) for image, expected in images) else 2)


def _bytes_read(counter: Path) -> int:
    """Bytes that this process asked the system for."""
    line = next(line for line in counter.read_text().splitlines() if line.startswith("rchar"))
    return int(line.split()[1])


def _copy(image: Path, to: Path) -> None:
    if image.is_dir():
        shutil.copytree(image, to)
    else:
        shutil.copyfile(image, to)


def _windows(image: LazyImage) -> list[tuple[slice, ...]]:
    """Windows at every corner, in the middle, one voxel, and everything."""
    ends = [((0, max(1, n // 2)), (n // 2, n), (n // 3, n // 3 + 1)) for n in image.size]
    corners = [tuple(slice(a, b) for a, b in choice) for choice in itertools.product(*ends)]
    return [*corners, tuple(slice(None) for _ in image.size)]


def _refused(read: Callable[[], object], path: Path) -> None:
    error: DataError | None = None
    try:
        read()
    except DataError as caught:
        error = caught
    assert error is not None, f"{path} was read without an error"
    assert path.name in str(error), f"the message must name the file: {error}"


def _reads_right(image: LazyImage, expected: np.ndarray) -> bool:
    windows = _windows(image) * 3
    return all(np.array_equal(image.read(window), expected[(slice(None), *window)]) for window in windows)


def _forked(work: Callable[[], bool]) -> int:
    """Fork; the child works, then leaves with 0 for True. Gives the child's process id."""
    import signal

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12: "fork with threads may deadlock": it must not
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(20)
        code = 0 if work() else 2
    finally:
        os._exit(code)
