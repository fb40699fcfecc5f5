"""The exam that every reader passes: subclass `ReaderContract` in a test module and say how to write files.

It needs nothing but pytest's `tmp_path`. Each test writes the reader's own cases, so a new reader gets the whole exam by
describing two or three files.
"""

from __future__ import annotations

import itertools
import os
import pickle
import tracemalloc
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.bands import BandNames
from core.errors import DataError
from core.geometry import Spacing
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
    """

    path: Path
    image: np.ndarray
    bands: BandNames
    spacing: Spacing
    affine: np.ndarray | None = None
    checked: bool = False


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

    def test_content_decides_not_the_name(self, tmp_path: Path) -> None:
        case = self.cases(tmp_path)[0]
        renamed = tmp_path / "name.of.another.kind"
        renamed.write_bytes(case.path.read_bytes())
        assert np.array_equal(open_image(renamed).read(), case.image)

    def test_truncated_file_is_refused(self, tmp_path: Path) -> None:
        for case in self.cases(tmp_path):
            data = case.path.read_bytes()
            for share in (0.02, 0.3, 0.6, 0.9):
                broken = tmp_path / f"broken_{case.path.name}"
                broken.write_bytes(data[: max(1, int(share * len(data)))])
                _refused(lambda broken=broken: self._read(broken), broken)  # type: ignore[misc]

    def test_damage_is_noticed_where_the_format_can(self, tmp_path: Path) -> None:
        rng = np.random.Generator(np.random.Philox(key=7))
        for case in (case for case in self.cases(tmp_path) if case.checked):
            data = case.path.read_bytes()
            for place in rng.integers(0, len(data) * 8, 60):
                broken = tmp_path / f"broken_{case.path.name}"
                flipped = bytearray(data)
                flipped[place // 8] ^= 1 << (place % 8)
                broken.write_bytes(flipped)
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
