"""A kind of input, what it must lead to, and the examiner: opens, reads everything, compares, under a time and memory guard.

A format's module gives `kinds() -> list[Kind]`; its test is a function that calls `examine(kind, tmp_path, seed)` under
`@pytest.mark.parametrize(("kind", "seed"), every(kinds()))`. HALFSEEN_VARIANTS=5 runs five seeded variants of each, not two.
"""

from __future__ import annotations

import math
import os
import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import HalfseenError
from datasets.image import LazyImage
from datasets.readers import configured, open_image
from datasets.readers.base import Reader

VARIANTS = int(os.environ.get("HALFSEEN_VARIANTS", "2"))

_SECONDS = 60
_SLACK = 200 << 20  # bytes of memory allowed beyond twice the declared size
_WHOLE = 64 << 20  # bytes up to which an image is read in one piece; larger ones by windows
_EDGE = 256
_CURE = re.compile(
    r"\b(allow|build|check|choose|convert|copy|export|flatten|give|install|keep|mend|name|need|place|put|raise|read|remove|"
    r"rename|save|set|split|unpack|use|write)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Refuse:
    """It must end in an error of this class (or one derived from it) whose message holds these words, in any case."""

    error: type[HalfseenError]
    words: str | tuple[str, ...]


@dataclass(frozen=True)
class Accept:
    """It must read: with the flag of this code (others may stand beside it), or without any flag where it is None."""

    flag: str | None = None
    check: Callable[[LazyImage], None] | None = None


@dataclass(frozen=True)
class Repair:
    """It must read, with what was mended on record as the flag of this code."""

    flag: str
    check: Callable[[LazyImage], None] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: for people; unique within its format.
        make: writes one variant into a folder and gives its path; all that varies comes from the generator.
        outcome: what opening and reading it must lead to.
        readers: opened with these only; all, if none.
        options: opened with these options, such as `nifti.affine=sform`.
        slow: takes more than 2 s.
    """

    name: str
    make: Callable[[Path, np.random.Generator], Path | str]
    outcome: Refuse | Accept | Repair
    _: KW_ONLY
    readers: tuple[Reader, ...] = ()
    options: tuple[str, ...] = ()
    slow: bool = False


def every(kinds: list[Kind]) -> list[Any]:
    """Give (kind, seed) of every variant, for `pytest.mark.parametrize`."""
    names = [kind.name for kind in kinds]
    assert len(set(names)) == len(names), f"kinds of one name: {sorted(names)}"
    marks = {True: (pytest.mark.slow,), False: ()}
    return [
        pytest.param(kind, seed, id=f"{kind.name}-{seed}", marks=marks[kind.slow])
        for kind in kinds
        for seed in range(VARIANTS)
    ]


def generator(name: str, seed: int) -> np.random.Generator:
    """The generator of a variant: a function of the kind's name and the seed, whatever ran before."""
    return np.random.Generator(np.random.Philox(key=(zlib.crc32(name.encode()) << 32) + seed))


def examine(kind: Kind, folder: Path, seed: int) -> None:
    """Make one variant, open and read it, and compare with the kind's outcome."""
    path = kind.make(folder, generator(kind.name, seed))
    images: list[LazyImage] = []
    with_peak = _peak_is_known()
    before = _memory("VmRSS") if with_peak else 0
    error = _within_time(lambda: _read(path, kind, images))
    growth = _memory("VmHWM") - before if with_peak else 0
    allowed = 2 * _declared(images) + _SLACK
    assert growth <= allowed, f"{kind.name}: took {growth >> 20} MB of memory, allowed are {allowed >> 20}"
    if isinstance(kind.outcome, Refuse):
        _refused(kind.outcome, error, path)
        return
    if error is not None:
        raise error
    codes = [flag.code for flag in images[0].flags]
    assert (not codes) if kind.outcome.flag is None else (kind.outcome.flag in codes), f"flags {images[0].flags}"
    if kind.outcome.check is not None:
        kind.outcome.check(images[0])


def _read(path: Path | str, kind: Kind, images: list[LazyImage]) -> None:
    assert not (kind.readers and kind.options), "give readers or options, not both"
    image = open_image(path, *(configured(kind.options) if kind.options else kind.readers))
    images.append(image)
    for window in _windows(image):
        voxels, valid = image.read_valid(window)
        expected = (image.shape[0], *(part.stop - part.start for part in window))
        assert voxels.shape == valid.shape == expected, f"{voxels.shape} and {valid.shape} of {expected}"
        assert voxels.dtype == image.dtype and voxels.dtype.isnative and valid.dtype == np.bool_


def _windows(image: LazyImage) -> list[tuple[slice, ...]]:
    """Everything at once, or the first, the middle and the last part of what is too large for that."""
    if _declared([image]) <= _WHOLE or not image.windowed:
        return [tuple(slice(0, n) for n in image.size)]
    starts = [[max(0, n - _EDGE) * part // 2 for n in image.size] for part in range(3)]
    return [tuple(slice(a, min(n, a + _EDGE)) for a, n in zip(start, image.size, strict=True)) for start in starts]


def _declared(images: list[LazyImage]) -> int:
    return sum(math.prod(image.shape) * image.dtype.itemsize for image in images)


def _refused(outcome: Refuse, error: BaseException | None, path: Path | str) -> None:
    assert error is not None, f"{path} was read without an error; expected {outcome.error.__name__}"
    if not isinstance(error, outcome.error):
        raise AssertionError(f"expected {outcome.error.__name__}, got {type(error).__name__}: {error}") from error
    text = str(error)
    assert Path(path).name in text, f"the message must name {Path(path).name}: {text}"
    for word in (outcome.words,) if isinstance(outcome.words, str) else outcome.words:
        assert word.lower() in text.lower(), f"the message must hold '{word}': {text}"
    assert _CURE.search(text), f"the message must say what to do: {text}"


def _within_time(work: Callable[[], None]) -> BaseException | None:
    """Run in a thread of its own, so that a hang fails instead of stopping everything; gives what was raised."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed to the caller, who judges it
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    assert not thread.is_alive(), f"still busy after {_SECONDS} s"
    return caught[0] if caught else None


def _peak_is_known() -> bool:
    """Set the process's peak of memory back to its present use; False where the system cannot (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory(name: str) -> int:
    """Bytes of memory now (VmRSS) or at most since the peak was set back (VmHWM)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(name + ":"))
    return int(line.split()[1]) << 10
