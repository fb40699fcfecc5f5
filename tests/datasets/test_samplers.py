"""The order is a bijection, differs by epoch and seed, needs no memory; the schedule is arithmetic."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from core.errors import ConfigError
from datasets.samplers import Order, Schedule


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 7, 8, 16, 17, 100, 255, 257, 1000])
def test_every_epoch_visits_every_row_once(num_rows: int) -> None:
    order = Order(num_rows, seed=3)
    for epoch in range(3):
        visits = [order.at(epoch * num_rows + place) for place in range(num_rows)]
        assert {e for e, _ in visits} == {epoch}
        assert sorted(row for _, row in visits) == list(range(num_rows))


def test_order_is_shuffled_and_fresh_in_each_epoch_and_seed() -> None:
    rows = {
        (seed, epoch): np.array([Order(500, seed).at(epoch * 500 + place)[1] for place in range(500)])
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    for name, one in rows.items():
        assert abs(np.corrcoef(np.arange(500), one)[0, 1]) < 0.15
        for other_name, other in rows.items():
            if name != other_name:
                assert (one == other).sum() < 10  # about one fixed point is expected of two random orders


def test_small_orders_are_uniform() -> None:
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(3000):
        order = Order(3, seed)
        rows = tuple(order.at(place)[1] for place in range(3))
        seen[rows] = seen.get(rows, 0) + 1
    assert len(seen) == 6
    assert all(400 < times < 600 for times in seen.values()), seen


def test_a_billion_rows_cost_nothing() -> None:
    tracemalloc.start()
    start = time.perf_counter()
    order = Order(10**9, seed=1)
    rows = {order.at(10**12 + place)[1] for place in range(2000)}
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 2000
    assert 0 <= min(rows) < 10**7
    assert 10**9 - 10**7 < max(rows) < 10**9
    assert peak < 1_000_000
    assert seconds < 2


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one row"):
        Order(0, seed=1)


def test_schedule_counts_each_stream_on_its_own() -> None:
    schedule = Schedule((("photograph", 2), ("volume", 1)))
    assert [schedule.at(step) for step in range(7)] == [
        ("photograph", 0),
        ("photograph", 1),
        ("volume", 0),
        ("photograph", 2),
        ("photograph", 3),
        ("volume", 1),
        ("photograph", 4),
    ]
    assert schedule.at(3 * 10**12 + 2) == ("volume", 10**12)


@pytest.mark.parametrize("streams", [(), (("a", 0),), (("a", 1), ("a", 2))])
def test_schedule_needs_named_streams_with_turns(streams: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ConfigError, match="at least 1 turn"):
        Schedule(streams)
