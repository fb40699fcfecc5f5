"""The examiner itself: every way in which an outcome can be missed fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from core.errors import BudgetError, DamagedError, DataError
from core.geometry import Spacing
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers.base import Reader
from tests.corpus import kind as examiner
from tests.corpus.kind import Accept, Kind, Refuse, Repair, every, examine


def _zeros(size: tuple[int, ...]) -> np.ndarray:
    return np.zeros((1, *size), np.uint8)


@dataclass(frozen=True)
class Pretended(Source):
    """Gives what a function gives."""

    voxels: Callable[[tuple[int, ...]], np.ndarray]

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        return self.voxels(tuple(part.stop - part.start for part in window))


@dataclass(frozen=True)
class Pretender(Reader):
    """Opens anything as an image of 4 x 5, or raises."""

    suffixes: ClassVar[tuple[str, ...]] = (".x",)
    voxels: Callable[[tuple[int, ...]], np.ndarray] = _zeros
    error: type[DataError] | None = None
    message: str = "file.x: is damaged; copy it again."
    flags: tuple[Flag, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        return True

    def open(self, path: Path) -> LazyImage:
        if self.error is not None:
            raise self.error(self.message)
        facts = {"path": path, "shape": (1, 4, 5), "dtype": np.dtype(np.uint8), "bands": ("gray",), "chunks": (4, 5)}
        return LazyImage(**facts, spacing=Spacing.pixels(2), source=Pretended(self.voxels), flags=self.flags)


def kind(outcome: Refuse | Accept | Repair, **reader: object) -> Kind:
    def make(folder: Path, rng: np.random.Generator) -> Path:
        (folder / "file.x").write_bytes(rng.bytes(8))
        return folder / "file.x"

    return Kind("pretended", make, outcome, readers=(Pretender(**reader),))  # type: ignore[arg-type]


def _fails(_: LazyImage) -> None:
    raise AssertionError("the check failed")


def _gluttonous(size: tuple[int, ...]) -> np.ndarray:
    return np.ones((400 << 20,), np.uint8)[: size[0] * size[1]].reshape(1, *size).copy()


MARK = (Flag("odd", "It is odd."),)
MET: dict[str, Kind] = {
    "refused": kind(Refuse(DamagedError, "is damaged"), error=DamagedError),
    "refused_by_a_subclass": kind(Refuse(DataError, ("damaged", "again")), error=DamagedError),
    "accepted": kind(Accept()),
    "accepted_with_flag": kind(Accept("odd"), flags=MARK),
    "repaired": kind(Repair("odd"), flags=MARK),
}
MISSED: dict[str, tuple[Kind, str]] = {
    "read_instead": (kind(Refuse(DamagedError, "x")), "was read without an error"),
    "other_class": (kind(Refuse(BudgetError, "damaged"), error=DamagedError), "expected BudgetError, got DamagedError"),
    "no_name": (
        kind(Refuse(DamagedError, "is"), error=DamagedError, message="It is bad; copy it."),
        "must name file.x",
    ),
    "no_words": (kind(Refuse(DamagedError, ("damaged", "eaten")), error=DamagedError), "must hold 'eaten'"),
    "no_cure": (kind(Refuse(DamagedError, "bad"), error=DamagedError, message="file.x: is bad."), "say what to do"),
    "flag_missing": (kind(Accept("odd")), "flags"),
    "flag_unexpected": (kind(Accept(), flags=MARK), "flags"),
    "repair_unrecorded": (kind(Repair("odd")), "flags"),
    "check_failed": (kind(Accept(check=_fails)), "the check failed"),
    "wrong_shape": (kind(Accept(), voxels=lambda size: np.zeros((1, 1, 1), np.uint8)), r"\(1, 1, 1\)"),
    "wrong_type": (kind(Accept(), voxels=lambda size: np.zeros((1, *size), np.float32)), "float32"),
    "memory": (kind(Accept(), voxels=_gluttonous), "MB of memory, allowed are 200"),
}


@pytest.mark.parametrize("name", sorted(MET))
def test_outcome_that_is_met_passes(name: str, tmp_path: Path) -> None:
    examine(MET[name], tmp_path, 0)


@pytest.mark.parametrize("name", sorted(MISSED))
def test_outcome_that_is_missed_fails(name: str, tmp_path: Path) -> None:
    missed, message = MISSED[name]
    with pytest.raises(AssertionError, match=message):
        examine(missed, tmp_path, 0)


def test_error_of_another_kind_comes_through(tmp_path: Path) -> None:
    def break_down(size: tuple[int, ...]) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        examine(kind(Accept(), voxels=break_down), tmp_path, 0)
    with pytest.raises(AssertionError, match="expected DataError, got ZeroDivisionError"):
        examine(kind(Refuse(DataError, "x"), voxels=break_down), tmp_path, 0)


def test_hang_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dawdle(size: tuple[int, ...]) -> np.ndarray:
        time.sleep(0.5)
        return _zeros(size)

    monkeypatch.setattr(examiner, "_SECONDS", 0.1)
    with pytest.raises(AssertionError, match=r"still busy after 0\.1 s"):
        examine(kind(Accept(), voxels=dawdle), tmp_path, 0)


def test_variants_are_functions_of_kind_and_seed_and_differ(tmp_path: Path) -> None:
    contents = []
    for seed in (0, 1, 0):
        examine(MET["accepted"], tmp_path, seed)
        contents.append((tmp_path / "file.x").read_bytes())
    assert contents[0] == contents[2] != contents[1]
    assert [parameter.id for parameter in every([MET["accepted"]])][:2] == ["pretended-0", "pretended-1"]
    with pytest.raises(AssertionError, match="kinds of one name"):
        every([MET["accepted"], MET["repaired"]])
