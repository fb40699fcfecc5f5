"""The order is a bijection, differs by epoch and seed, needs no memory; the schedule is arithmetic."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from core.errors import ConfigError
from datasets.samplers import Order, Schedule, TileOrder, shuffled


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


UNEQUAL = np.array([5, 1, 8, 3, 12, 4, 4, 7])


@pytest.mark.parametrize(
    ("counts", "num_images", "per_visit", "window"),
    [
        (1, 9, 1, 1),
        (6, 7, 2, 3),
        (6, 7, 3, 64),
        (4, 130, 4, 64),
        (5, 11, 2, 4),
        (UNEQUAL, 8, 3, 2),
        (UNEQUAL, 8, 4, 64),
    ],
)
def test_every_epoch_visits_every_tile_once(
    counts: int | np.ndarray, num_images: int, per_visit: int, window: int
) -> None:
    order = TileOrder(counts, num_images, 3, per_visit=per_visit, window=window)
    each = np.broadcast_to(counts, (num_images,))
    everything = {(image, tile) for image in range(num_images) for tile in range(each[image])}
    assert order.num_tiles == len(everything)
    orders = []
    for epoch in range(3):
        visits = [order.at(epoch * order.num_tiles + place) for place in range(order.num_tiles)]
        assert {e for e, _, _ in visits} == {epoch}
        assert {(image, tile) for _, image, tile in visits} == everything
        orders.append([(image, tile) for _, image, tile in visits])
    assert orders[0] != orders[1] != orders[2]


def test_one_tile_per_image_is_the_plain_order() -> None:
    tiles, rows = TileOrder(1, 100, 7), Order(100, 7)
    assert [tiles.at(i) for i in range(250)] == [(*rows.at(i), 0) for i in range(250)]


def test_a_window_opens_few_images_and_shuffles_their_tiles() -> None:
    order = TileOrder(8, 1000, 1, per_visit=4, window=16)
    for number in range(5):
        tiles = [order.at(number * 64 + place)[1:] for place in range(64)]
        images = [image for image, _ in tiles]
        assert len(set(images)) == 16
        assert all(images.count(image) == 4 for image in set(images))
        assert len(set(images[:16])) == 16  # with as many lanes as images, a round of them comes before any again
    whole = TileOrder(8, 1000, 1, per_visit=4, window=3)
    images = [whole.at(place)[1] for place in range(12)]
    assert len(set(images)) == 3
    assert images != sorted(images, key=images.index)  # one lane: tiles of an image are not in a row


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_never_open_the_same_image_in_a_window(world_size: int) -> None:
    order = TileOrder(4, 640, 5, per_visit=4, window=64)
    for start in (0, 256, 512 + 640 * 4):
        shares = [{order.at(start + place)[1] for place in range(rank, 256, world_size)} for rank in range(world_size)]
        assert sum(map(len, shares)) == len(set.union(*shares)) == 64


def test_what_is_cut_short_comes_last() -> None:
    order = TileOrder(UNEQUAL, 8, 0, per_visit=3, window=1)
    assert order.num_tiles == 44
    for epoch in range(4):
        assert {order.at(epoch * 44 + place)[1:] for place in (42, 43)} == {(7, 5), (7, 6)}


def test_a_billion_tiles_cost_nothing() -> None:
    counts = np.random.Generator(np.random.Philox(key=1)).integers(500, 1500, 1_000_000)
    tracemalloc.start()
    for order in (
        TileOrder(1000, 1_000_000, 1, per_visit=4, window=64),
        TileOrder(counts, 1_000_000, 1, per_visit=4, window=64),
    ):
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert order.num_tiles > 9.9e8
        found = {order.at(10**12 + place) for place in range(500)}
        assert len(found) == 500
        assert tracemalloc.get_traced_memory()[1] - before < 1_000_000
    tracemalloc.stop()


def test_shuffled_is_a_permutation_of_its_own_for_each_key() -> None:
    one = [shuffled(i, 37, 1, "cell", 5) for i in range(37)]
    other = [shuffled(i, 37, 1, "cell", 6) for i in range(37)]
    assert sorted(one) == sorted(other) == list(range(37))
    assert one != other


@pytest.mark.parametrize(
    ("counts", "options"), [(0, {}), (3, {"per_visit": 0}), (np.array([2, 0]), {}), (1, {"window": 0})]
)
def test_an_order_without_tiles_is_an_error(counts: int | np.ndarray, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one image, one tile per image"):
        TileOrder(counts, 2, 0, **options)


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
