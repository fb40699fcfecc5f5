"""The exam that every writer passes: subclass `WriterContract` in a test module and say what the format keeps.

Files are read back through `open_image`, so a writer and the reader of its format are examined together.
"""

from __future__ import annotations

import itertools
import math
import os
import resource
import signal
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError, HalfseenError, RunFolderError
from core.geometry import Affine, Spacing
from core.preprocess import Window
from datasets.image import LazyImage
from datasets.readers import open_image
from datasets.readers.base import Reader
from datasets.tiling import cover
from datasets.writers import Facts, Writer, plan, write_image
from datasets.writers.base import Part

KEPT = ("bands", "spacing", "affine", "georeference", "nodata", "scaling", "units")


class WriterContract(ABC):
    """Round trip, order, coverage, refusal, interruption, memory, repeatability."""

    kept: tuple[str, ...] = KEPT  # facts that the format keeps

    @abstractmethod
    def writer(self) -> Writer:
        """The writer with default options."""

    @abstractmethod
    def name(self) -> str:
        """A file name with the format's ending."""

    @abstractmethod
    def facts(self) -> list[Facts]:
        """Facts of small images that differ in what the format can keep: dtypes, bands, geometry, odd sizes, masks."""

    @abstractmethod
    def large(self) -> Facts:
        """Facts of an image of about half a gigabyte without mask, whose blocks are much smaller."""

    def readers(self) -> tuple[Reader, ...]:
        """Readers whose options what was written needs."""
        return ()

    def test_facts_and_voxels_come_back(self, tmp_path: Path) -> None:
        for number, facts in enumerate(self.facts()):
            voxels, valid = _content(facts, number)
            windows = list(cover(facts.size, tuple(max(1, n // 3) for n in facts.size)))
            path = write_image(tmp_path / f"{number}{self.name()}", facts, _parts(windows, voxels, valid))
            image = self._open(path)
            assert image.shape == facts.shape
            for fact in self.kept:
                assert _equal(getattr(image, fact), getattr(facts, fact)), (fact, getattr(image, fact))
            assert image.affine is None or facts.affine is not None
            read, measured = image.read_valid()
            if "scaling" in self.kept or facts.scaling is None:
                assert read.dtype == facts.dtype
                assert np.array_equal(read, voxels, equal_nan=facts.dtype.kind == "f")
            assert np.array_equal(measured, _measured(facts, voxels, valid))

    def test_windows_in_any_order_give_the_same_bytes(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 1)
        windows = list(plan(self.name(), facts, writer=self.writer()))
        windows = windows if len(windows) > 3 else list(cover(facts.size, tuple(max(1, n // 3) for n in facts.size)))
        rng = np.random.Generator(np.random.Philox(key=3))
        orders = [windows, windows[::-1], [windows[i] for i in rng.permutation(len(windows))]]
        digests = []
        for number, order in enumerate(orders):
            path = write_image(tmp_path / f"{number}{self.name()}", facts, _parts(order, voxels, valid))
            assert np.array_equal(self._open(path).read(), voxels, equal_nan=facts.dtype.kind == "f")
            digests.append(_bytes_of(path))
        assert digests[0] == digests[1] == digests[2]

    def test_single_voxels_and_odd_edges_fit_together(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 2)
        first = tuple(slice(0, 1) for _ in facts.size)
        rows = cover(facts.size, (1, *facts.size[1:]))
        path = write_image(tmp_path / self.name(), facts, _parts([first, *rows], voxels, valid))
        assert np.array_equal(self._open(path).read(), voxels, equal_nan=facts.dtype.kind == "f")

    def test_where_windows_overlap_the_first_stays(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 3)
        whole = tuple(slice(0, n) for n in facts.size)
        corner = tuple(slice(0, max(1, n // 2)) for n in facts.size)
        other = np.zeros_like(voxels)
        parts = [*_parts([corner], other, valid), *_parts([whole], voxels, valid)]
        path = write_image(tmp_path / self.name(), facts, parts)
        expected = voxels.copy()
        expected[(slice(None), *corner)] = 0
        assert np.array_equal(self._open(path).read(), expected, equal_nan=facts.dtype.kind == "f")

    def test_a_hole_is_refused_and_nothing_is_left(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 4)
        windows = list(cover(facts.size, (1, *facts.size[1:])))
        del windows[len(windows) // 2]
        path = tmp_path / self.name()
        message = _refused(lambda: write_image(path, facts, _parts(windows, voxels, valid)))
        assert f"{facts.size[0] // 2}:" in message
        assert list(tmp_path.iterdir()) == []

    def test_wrong_windows_types_and_shapes_are_refused(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 5)
        whole = tuple(slice(0, n) for n in facts.size)
        mask = () if valid is None else (valid,)
        n = facts.size[0]
        wrong: list[tuple[object, ...]] = [
            (whole, voxels.astype(np.complex64), *mask),
            (whole, voxels[:, 1:], *mask),
            (whole, voxels[0], *mask),
            ((slice(0, n + 1), *whole[1:]), voxels, *mask),
            ((slice(0, n, 2), *whole[1:]), voxels[:, ::2], *mask),
            (whole[1:], voxels, *mask),
            (whole, voxels) if mask else (whole, voxels, np.ones((1, *facts.size), dtype=bool)),
            (whole, voxels, np.ones(facts.size, dtype=bool)),
        ]
        for part in wrong:
            message = _refused(lambda part=part: write_image(tmp_path / self.name(), facts, [part]))
            assert "expected" in message, message
        assert list(tmp_path.iterdir()) == []

    def test_a_name_that_is_taken_is_refused_and_kept(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        whole = [tuple(slice(0, n) for n in facts.size)]
        path = write_image(tmp_path / self.name(), facts, _parts(whole, *_content(facts, 6)))
        before = _bytes_of(path)
        other = _content(facts, 7)
        _refused(lambda: write_image(path, facts, _parts(whole, *other)), HalfseenError)
        assert _bytes_of(path) == before
        write_image(path, facts, _parts(whole, *other), overwrite=True)
        assert np.array_equal(self._open(path).read(), other[0], equal_nan=facts.dtype.kind == "f")
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_a_stream_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 8)

        def broken() -> Iterator[Part]:
            yield from itertools.islice(_parts(cover(facts.size, (1, *facts.size[1:])), voxels, valid), 2)
            raise ZeroDivisionError("the model failed")

        error: BaseException | None = None
        try:
            write_image(tmp_path / self.name(), facts, broken())
        except ZeroDivisionError as caught:
            error = caught
        assert error is not None
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_process_leaves_nothing_under_the_name(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 9)

        def killed() -> Iterator[Part]:
            yield from _parts(cover(facts.size, (1, *facts.size[1:])), voxels, valid)
            os.kill(os.getpid(), signal.SIGKILL)  # all windows came, the file is not finished

        status = _forked(lambda: bool(write_image(tmp_path / self.name(), facts, killed())))
        assert status == signal.SIGKILL
        assert all(entry.name.startswith(".") for entry in tmp_path.iterdir())

    def test_a_full_disk_is_a_sentence_and_leaves_nothing(self, tmp_path: Path) -> None:
        facts = self.facts()[0]
        voxels, valid = _content(facts, 10)
        whole = [tuple(slice(0, n) for n in facts.size)]

        def write() -> bool:
            resource.setrlimit(resource.RLIMIT_FSIZE, (voxels.nbytes // 4, resource.RLIM_INFINITY))
            try:
                write_image(tmp_path / self.name(), facts, _parts(whole, voxels, valid))
            except RunFolderError as error:
                return "cannot be written" in str(error) and self.name() in str(error)
            return False

        assert _forked(write) == 0
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_memory_stays_flat(self, tmp_path: Path) -> None:
        """The peak of a process that writes half a gigabyte rises by less than half of that."""
        facts = self.large()
        nbytes = math.prod(facts.shape) * facts.dtype.itemsize
        assert 450e6 < nbytes < 800e6
        assert not facts.valid

        def write() -> bool:
            before = _peak()
            path = tmp_path / self.name()
            write_image(path, facts, ((w, _ramp(facts, w)) for w in plan(path, facts)))
            grown = _peak() - before
            print(f"{type(self).__name__}: {grown / 1e6:.0f} MB for {nbytes / 1e6:.0f} MB of voxels", flush=True)
            return grown < 0.5 * nbytes

        assert _forked(write) == 0
        image = self._open(tmp_path / self.name())
        last = tuple(slice(n - 5, n) for n in facts.size)
        assert np.array_equal(image.read(last), _ramp(facts, last))

    def _open(self, path: Path) -> LazyImage:
        return open_image(path, *self.readers())


def _parts(windows: object, voxels: np.ndarray, valid: np.ndarray | None) -> Iterator[Part]:
    for window in windows:  # type: ignore[attr-defined]
        part = voxels[(slice(None), *window)]
        yield (window, part) if valid is None else (window, part, valid[(slice(None), *window)])


def _forked(work: Callable[[], bool]) -> int:
    """Run in a child process; its exit status: 0 for True, the signal's number where it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: "fork with threads may deadlock"
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        signal.alarm(120)
        code = 0 if work() else 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _peak() -> int:
    """Bytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _ramp(facts: Facts, window: Window) -> np.ndarray:
    """Voxels as a function of their place, cheap to pack."""
    axes = np.ix_(*(np.arange(part.start, part.stop) // 8 for part in window))
    plane = sum(axes[1:], axes[0]).astype(facts.dtype)
    return np.stack([plane + facts.dtype.type(band) for band in range(facts.shape[0])])


def _content(facts: Facts, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    if facts.dtype.kind == "f":
        voxels = rng.normal(0, 100, facts.shape).astype(facts.dtype)
        voxels[(0, *(0,) * len(facts.size))] = np.nan
    elif facts.dtype.kind == "b":
        voxels = rng.random(facts.shape) < 0.5
    else:
        limits = np.iinfo(facts.dtype)
        voxels = rng.integers(limits.min, limits.max, facts.shape, dtype=facts.dtype, endpoint=True)
    for band, value in enumerate(facts.nodata or ()):
        if value is not None:
            voxels[band, 1] = value
    valid = rng.random((facts.valid, *facts.size)) < 0.7 if facts.valid else None
    return voxels, valid


def _measured(facts: Facts, voxels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    found = np.isfinite(voxels) if facts.dtype.kind == "f" else np.ones(voxels.shape, dtype=bool)
    for band, value in enumerate(facts.nodata or ()):
        if value is not None:
            found[band] &= voxels[band] != value
    return found if valid is None else found & valid


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Affine) and isinstance(other, Affine):
        return bool(np.allclose(one.matrix, other.matrix, atol=1e-4))
    if isinstance(one, Spacing) and isinstance(other, Spacing):
        return one.unit == other.unit and bool(np.allclose(one.values, other.values, rtol=1e-5))
    return repr(one) == repr(other)  # NaN as nodata equals itself


def _bytes_of(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def _refused(act: object, kind: type[Exception] = DataError) -> str:
    try:
        act()  # type: ignore[operator]
    except kind as error:
        return str(error)
    raise AssertionError("expected a refusal, got none")
