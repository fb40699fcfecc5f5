"""Threads and processes: batches in order and a few ahead; every fault ends in a sentence that names a file, never a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from core.contract import Input
from core.errors import DataError
from datasets.batch import Packed
from datasets.manifest import Manifest
from datasets.sample import Failure, Item, StreamSpec
from datasets.workers import Made, WorkerKind, in_order
from tests.datasets.faults import Faulty

KINDS = ["thread", pytest.param("process", marks=pytest.mark.slow)]


@pytest.fixture
def dataset(manifest: Manifest, photograph_input: Input) -> Faulty:
    return Faulty(manifest, [StreamSpec(input=photograph_input, batch_size=2)], seed=0)


def _items(count: int = 10) -> Iterator[list[Item]]:
    for number in range(count):
        yield [Item(stream=0, row=number, index=number)]


def _made(dataset: Faulty, kind: WorkerKind, *, workers: int = 2, timeout_s: float = 60.0) -> Made:
    return in_order(
        dataset,
        _items(),
        workers=workers,
        kind=kind,
        timeout_s=timeout_s,
        name=lambda item: str(dataset.manifest.path(item.row)),
    )


def _rows(made: Made) -> list[int]:
    rows = []
    for packed in made:
        assert isinstance(packed, Packed)
        rows += packed.numbers["row"].tolist()
    return rows


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_threads_keep_the_order(workers: int, dataset: Faulty) -> None:
    assert _rows(_made(dataset, "thread", workers=workers)) == list(range(10))


@pytest.mark.parametrize("kind", KINDS)
def test_any_exception_becomes_a_failure_that_names_the_file(kind: WorkerKind, dataset: Faulty) -> None:
    dataset.fault, dataset.row = "unpicklable", 3
    made = list(_made(dataset, kind))
    assert [isinstance(one, Failure) for one in made] == [number == 3 for number in range(10)]
    failure = made[3]
    assert isinstance(failure, Failure)
    assert failure.kind == "DataError"
    assert failure.message.endswith("p3.png: reading failed unexpectedly with Unpicklable (a lock).")
    assert "faults.py" in failure.trace
    assert failure.curable


def test_our_own_mistakes_are_not_curable(dataset: Faulty) -> None:
    dataset.fault, dataset.row = "assertion", 3
    failure = list(_made(dataset, "thread"))[3]
    assert isinstance(failure, Failure)
    assert not failure.curable


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "exit"])
def test_the_death_of_a_worker_is_one_sentence(fault: str, dataset: Faulty) -> None:
    dataset.fault, dataset.row = fault, 3
    began = time.monotonic()
    how = {"killed": "signal SIGKILL", "exit": "exit code 3"}[fault]
    made = _made(dataset, "process")
    assert [next(made).numbers["row"].item() for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    with pytest.raises(DataError, match=rf"a loader process died \({how}\) while it read \S+p3\.png: "):
        next(made)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_takes_too_long_names_its_files(kind: WorkerKind, dataset: Faulty) -> None:
    dataset.fault, dataset.row = "sleeps", 2
    began = time.monotonic()
    with pytest.raises(DataError, match=r"longer than \S+ s: .* is of \S+p2\.png\.$"):
        list(_made(dataset, kind, timeout_s=1.0 if kind == "thread" else 15.0))
    assert time.monotonic() - began < 40


def test_threads_stay_a_few_batches_ahead(dataset: Faulty) -> None:
    asked: list[int] = []

    def wanted() -> Iterator[list[Item]]:
        for number in range(1000):
            asked.append(number)
            yield [Item(stream=0, row=number % 10, index=number)]

    made = in_order(dataset, wanted(), workers=2, kind="thread", timeout_s=60, name=str)
    for taken in range(1, 6):
        next(made)
        time.sleep(0.05)
        assert taken < len(asked) <= taken + 2 * 2
    before = threading.active_count()
    made.close()
    assert threading.active_count() == before - 2


def test_a_mistake_in_the_order_reaches_the_consumer(dataset: Faulty) -> None:
    def wanted() -> Iterator[list[Item]]:
        yield [Item(stream=0, row=0, index=0)]
        raise AssertionError("our own mistake")

    made = in_order(dataset, wanted(), workers=2, kind="thread", timeout_s=60, name=str)
    next(made)
    with pytest.raises(AssertionError, match="our own mistake"):
        next(made)


def test_the_thread_that_no_worker_replaces_has_a_limit_too(dataset: Faulty) -> None:
    dataset.fault, dataset.row = "sleeps", 2
    with pytest.raises(DataError, match="reading one batch took longer than 0.5 s"):
        list(_made(dataset, "process", workers=0, timeout_s=0.5))
