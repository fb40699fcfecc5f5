"""Examining images: each is decoded to its last voxel, once, and its facts, statistics and findings are written down.

Images whose voxels take up to 128 MiB are decoded at once; their mean and deviation are those of
`core.preprocess.measure`, bit for bit. Larger ones are read in windows that follow their chunks, in bounded memory, and
counted by `datasets.statistics`. Which of the two depends on shape and type alone, never on format or chunks.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from core.errors import BandError, BudgetError, ConfigError, DamagedError, GeometryError, HalfseenError, UnsafeError
from core.preprocess import Window, content_box, measure
from datasets.checking.findings import Finding, finding, judge_image, unreadable
from datasets.collect import Entry
from datasets.content import digest_of, stamp_of
from datasets.image import LazyImage
from datasets.readers import configured, find_reader, name_of, options_of, readers
from datasets.readers.base import Reader
from datasets.statistics import Statistics, merge_bands, of_bands

Progress = Callable[[int, int], None]

WHOLE = 128 << 20  # bytes of voxels that are decoded at once
_WINDOW = 24 << 20  # bytes of voxels per window of a larger image
_IN_FLIGHT = 160 << 20  # bytes of voxels that all threads together hold
_AHEAD = 4  # images per worker that may wait for an earlier one


@dataclass(frozen=True)
class Examined:
    """What became of one image.

    Attributes:
        facts: columns of its row in the manifest; None where it could not be read.
        findings: what is unusual about it.
        error: what `findings` says, as it was raised; None after a resume and where nothing was.
    """

    facts: dict[str, Any] | None
    findings: tuple[Finding, ...]
    error: Exception | None = None


def examine(entry: Entry, chosen: tuple[Reader, ...] = (), gate: Gate | None = None) -> Examined:
    """Decode one image completely and say what it is.

    Raises:
        HalfseenError: it cannot be read.
    """
    path = entry.safe()
    if entry.options:
        chosen = configured(entry.options)
    reader = find_reader(path, *chosen)
    before = stamp_of(path)
    image = reader.open(path)
    bytes_ = math.prod(image.shape) * image.dtype.itemsize
    with (gate or Gate(bytes_)).held(bytes_ if bytes_ <= WHOLE or not image.windowed else _WINDOW):
        seen = _whole(image) if bytes_ <= WHOLE else _streamed(image)
    digest = digest_of(path)
    if stamp_of(path) != before:
        raise DamagedError(
            f"{path}: the file changed while it was examined; wait until it is written, then start again."
        )
    name = name_of(reader) if any(type(reader) is type(known) for known in readers()) else type(reader).__name__
    facts = _facts(image) | {
        "bytes": before[0],
        "mtime_ns": before[1],
        "digest": digest,
        "voxel_digest": seen.digest,
        "reader": name,
        "options": sorted(options_of(reader)) if name != type(reader).__name__ else [],
        "mean": seen.mean,
        "std": seen.std,
        "low": [band.low for band in seen.bands],
        "high": [band.high for band in seen.bands],
        "valid_share": [band.valid_share for band in seen.bands],
        "content": [edge for part in seen.content for edge in (part.start, part.stop)],
    }
    return Examined(facts, tuple(judge_image(image, seen.bands, entry.file, name)))


def examine_all(
    entries: Sequence[Entry],
    chosen: tuple[Reader, ...] = (),
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    journal: Path | None = None,
    known: Callable[[Entry], Examined | None] | None = None,
) -> list[Examined]:
    """Examine images in threads; one that cannot be read gives an `Examined` without facts, and all others go on.

    Args:
        entries: the images.
        chosen: readers with options; default all with their defaults.
        workers: threads; default one per available core.
        progress: called with (done, total) after each image, in order, in this thread.
        journal: file that every result is appended to; images that it holds already, unchanged, are not read again.
        known: gives what is known of an image already.
    """
    book = Journal(journal, chosen) if journal is not None else None
    gate = Gate(_IN_FLIGHT)

    def look(entry: Entry) -> Examined:
        result = known(entry) if known is not None else None
        if result is None and book is not None:
            result = book.known(entry)
        if result is not None:
            return result
        try:
            entry.safe()
        except UnsafeError as error:
            return Examined(None, (finding("outside", entry.file, str(error)),), error)
        try:
            result = examine(entry, chosen, gate)
        except Exception as error:
            result = Examined(None, (unreadable(error, entry.file, entry.path),), error)
        if book is not None and not (result.error is not None and _may_pass(result.error)):
            book.write(entry, result)
        return result

    found: list[Examined] = []
    try:
        for result in _in_order(look, entries, workers or cores()):
            found.append(result)
            if progress is not None:
                progress(len(found), len(entries))
    finally:
        if book is not None:
            book.close()
    return found


def _may_pass(error: Exception) -> bool:
    """Whether what went wrong need not be in the file's bytes: a library that is missing, memory, storage, permissions."""
    return not isinstance(error, DamagedError | GeometryError | BudgetError | BandError)


def cores() -> int:
    """Cores that this process may use, not those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def windows(size: tuple[int, ...], chunks: tuple[int, ...], most: int) -> Iterator[Window]:
    """Divide an image into windows of whole chunks, at most `most` voxels each where a chunk allows it, in order."""
    shape = [min(n, chunk) for n, chunk in zip(size, chunks, strict=True)]
    for axis in reversed(range(len(size))):
        others = math.prod(shape) // shape[axis]
        times = max(1, most // (others * shape[axis]))
        shape[axis] = min(size[axis], shape[axis] * times)
    counts = [-(-n // step) for n, step in zip(size, shape, strict=True)]
    for place in np.ndindex(*counts):
        yield tuple(slice(i * step, min(n, (i + 1) * step)) for i, step, n in zip(place, shape, size, strict=True))


class Gate:
    """Lets threads in as long as all that is inside weighs no more than a budget; what is heavier goes in alone."""

    def __init__(self, budget: int) -> None:
        self._budget = max(1, budget)
        self._inside = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, weight: int) -> Iterator[None]:
        """Wait for room, and hold it for the block."""
        weight = min(weight, self._budget)
        with self._changed:
            self._changed.wait_for(lambda: self._inside + weight <= self._budget)
            self._inside += weight
        try:
            yield
        finally:
            with self._changed:
                self._inside -= weight
                self._changed.notify_all()


class Journal:
    """One line of JSON per examined image, so that a long check goes on where it was stopped.

    An image is known by its path, size, time and what it was read with; failures that need not be in its bytes are looked
    at again. A last line that was torn by a kill is passed
    over. A journal of other readers' options, or of another version, is begun anew.
    """

    _HEAD = "journal 2"

    def __init__(self, path: Path, chosen: tuple[Reader, ...]) -> None:
        self._head = {"halfseen": self._HEAD, "readers": sorted(map(repr, chosen))}
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        kept = self._load(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a" if kept else "w", encoding="utf-8")
        if not kept:
            self._put(self._head)
        elif not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")

    def known(self, entry: Entry) -> Examined | None:
        """Give what is written of an image, if it is still the same."""
        line = self._known.get(str(entry.path))
        if line is None or line["options"] != list(entry.options):
            return None
        try:
            if [*stamp_of(entry.safe())] != line["stamp"]:
                return None
        except (HalfseenError, OSError):
            return None
        return Examined(line["facts"], tuple(Finding(**entry) for entry in line["findings"]))

    def write(self, entry: Entry, result: Examined) -> None:
        """Append a result; what could not even be looked at is not kept."""
        try:
            stamp = [*stamp_of(entry.safe())]
        except (HalfseenError, OSError):
            return
        line = {"path": str(entry.path), "stamp": stamp, "options": list(entry.options), "facts": result.facts}
        self._put(line | {"findings": [asdict(finding) for finding in result.findings]})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _put(self, line: dict[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        with self._lock:
            self._file.write(text)
            self._file.flush()

    def _load(self, path: Path) -> bool:
        if not path.exists():
            return False
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = [entry for entry in map(_parsed, lines) if entry is not None]
        if not parsed and lines:
            raise ConfigError(f"{path}: expected a journal of an earlier check, got another file; name another.")
        if not parsed or parsed[0].get("halfseen") is None:
            if lines:
                raise ConfigError(f"{path}: expected a journal of an earlier check, got another file; name another.")
            return False
        if parsed[0] != self._head:
            return False
        self._known = {line["path"]: line for line in parsed[1:] if {"path", "stamp", "facts"} <= set(line)}
        return True


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class _Seen:
    """What decoding an image showed."""

    bands: tuple[Statistics, ...]
    mean: list[float]
    std: list[float]
    content: Window
    digest: str | None


def _whole(image: LazyImage) -> _Seen:
    voxels, valid = image.read_valid()
    mean, std = mean_std(voxels, valid)
    state = hashlib.blake2b(f"{image.dtype.newbyteorder('=').str[1:]}{voxels.shape}".encode(), digest_size=16)
    state.update(np.ascontiguousarray(voxels).data)
    return _Seen(
        of_bands(voxels, valid),
        mean.tolist(),
        std.tolist(),
        content_box(np.asarray(valid.any(axis=0))),
        state.hexdigest(),
    )


def mean_std(voxels: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each band over its own valid voxels, by `core.preprocess.measure`; (C,) float64 each."""
    pairs = [measure(voxels[row : row + 1], valid[row]) for row in range(len(voxels))]
    return np.concatenate([mean for mean, _ in pairs]), np.concatenate([std for _, std in pairs])


def _streamed(image: LazyImage) -> _Seen:
    bands = tuple(Statistics.empty(image.dtype) for _ in image.bands)
    edges = [(n, 0) for n in image.size]
    whole = None if image.windowed else image.read_valid()
    most = max(1, _WINDOW // (image.shape[0] * image.dtype.itemsize))
    for window in windows(image.size, image.chunks if image.windowed else (1,) * image.ndim, most):
        place = (slice(None), *window)
        voxels, valid = image.read_valid(window) if whole is None else (whole[0][place], whole[1][place])
        bands = merge_bands(bands, of_bands(voxels, valid))
        somewhere = np.asarray(valid.any(axis=0))
        if somewhere.any():
            box = content_box(somewhere)
            edges = [
                (min(low, part.start + inner.start), max(high, part.start + inner.stop))
                for (low, high), part, inner in zip(edges, window, box, strict=True)
            ]
    nothing = any(low >= high for low, high in edges)
    content = tuple(slice(0, n) if nothing else slice(*pair) for n, pair in zip(image.size, edges, strict=True))
    mean, std = (
        [0.0 if math.isnan(v) else v for v in values] for values in zip(*((b.mean, b.std) for b in bands), strict=True)
    )
    return _Seen(bands, mean, std, content, None)


def _facts(image: LazyImage) -> dict[str, Any]:
    where = image.georeference
    return {
        "ndim": image.ndim,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "spacing": list(image.spacing.values),
        "unit": image.spacing.unit,
        "bands": list(image.bands),
        "crs": where.crs if where else None,
        "transform": list(where.transform) if where else None,
        "nodata": list(image.nodata) if image.nodata is not None else None,
        "scaling": [value for pair in image.scaling for value in pair] if image.scaling is not None else None,
        "chunks": list(image.chunks),
        "time": image.time,
    }


def _in_order(look: Callable[[Entry], Examined], entries: Sequence[Entry], workers: int) -> Iterator[Examined]:
    """Give the results in order while threads work a bounded number of images ahead."""
    waiting: deque[Future[Examined]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="halfseen-examine")
    try:
        for entry in entries:
            waiting.append(pool.submit(look, entry))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for a million images
