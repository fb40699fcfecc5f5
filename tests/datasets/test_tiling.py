"""Windows: the whole is covered, nothing reaches outside, draws stay in the box."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import ShapeError
from core.rng import numpy_rng
from datasets.tiling import cover, grid_cells, grid_starts, random_crop, random_window


@pytest.mark.parametrize("case", range(60))
def test_cover_reaches_every_voxel_and_stays_inside(case: int) -> None:
    rng = numpy_rng(0, "cover", case)
    ndim = 1 + case % 3
    size = tuple(int(n) for n in rng.integers(1, 41, ndim))
    tile = tuple(int(n) for n in rng.integers(1, 21, ndim))
    overlap = tuple(int(rng.integers(0, t)) for t in tile)
    counts = np.zeros(size, int)
    for window in cover(size, tile, overlap):
        assert all(0 <= part.start < part.stop <= n for part, n in zip(window, size, strict=True))
        lengths = tuple(part.stop - part.start for part in window)
        assert lengths == tuple(min(t, n) for t, n in zip(tile, size, strict=True))
        counts[window] += 1
    assert counts.min() >= 1


def test_cover_without_overlap_of_a_multiple_is_a_partition() -> None:
    counts = np.zeros((8, 12), int)
    windows = list(cover((8, 12), (4, 4)))
    for window in windows:
        counts[window] += 1
    assert len(windows) == 6
    assert (counts == 1).all()


def test_cover_overlaps_as_asked() -> None:
    starts = [window[0].start for window in cover((20,), (8,), (4,))]
    assert starts == [0, 4, 8, 12]


def test_cover_refuses_an_overlap_as_large_as_its_tile() -> None:
    with pytest.raises(ShapeError, match="overlap < tile"):
        list(cover((20,), (8,), (8,)))


def test_random_window_is_uniform_where_it_fits_and_centred_where_not() -> None:
    box = (slice(2, 12), slice(0, 5))
    starts = [random_window(box, (4, 9), numpy_rng(0, draw)) for draw in range(700)]
    assert {y for y, _ in starts} == set(range(2, 9))
    assert {x for _, x in starts} == {-2}
    assert np.bincount([y - 2 for y, _ in starts]).min() > 70


def test_random_crop_keeps_area_and_aspect_within_the_box() -> None:
    box = (slice(5, 105), slice(10, 210))
    areas, ratios = [], []
    for draw in range(400):
        y, x = random_crop(box, (0.1, 0.3), (3 / 4, 4 / 3), numpy_rng(0, draw))
        assert 5 <= y.start < y.stop <= 105
        assert 10 <= x.start < x.stop <= 210
        h, w = y.stop - y.start, x.stop - x.start
        areas.append(h * w / 20_000)
        ratios.append(w / h)
    assert min(areas) > 0.095
    assert max(areas) < 0.305
    assert np.mean(areas) == pytest.approx(0.2, abs=0.01)
    assert min(ratios) > 0.72
    assert max(ratios) < 1.38


@pytest.mark.parametrize("case", range(80))
def test_grid_windows_cover_and_touch_few_chunks(case: int) -> None:
    rng = numpy_rng(0, "grid", case)
    n, size, chunk = (int(v) for v in rng.integers((30, 1, 1), (300, 60, 90)))
    starts = grid_starts(n, size, min(chunk, n))
    assert starts == tuple(sorted(set(starts)))
    hit = np.zeros(n, bool)
    for start in starts:
        assert 0 <= start <= max(0, n - size)
        hit[start : start + size] = True
        last = start == n - size  # moved back to the edge
        if chunk <= size:
            assert last or start % chunk == 0
        else:
            assert last or start // chunk == (start + size - 1) // chunk
    assert hit.all()


def test_grid_counts_are_those_of_a_plain_cover_where_sizes_agree() -> None:
    assert grid_starts(2048, 128, 128) == tuple(range(0, 2048, 128))
    assert grid_starts(2048, 128, 512) == tuple(range(0, 2048, 128))
    assert grid_starts(2048, 256, 128) == tuple(range(0, 2048, 256))
    assert grid_starts(300, 128, 128) == (0, 128, 172)
    assert grid_starts(100, 128, 64) == (0,)


def test_grid_cells_are_those_that_reach_into_the_content() -> None:
    assert grid_cells(1024, 128, 128, slice(130, 400)) == (128, 256, 384)
    assert grid_cells(1024, 128, 128, slice(0, 1024)) == grid_starts(1024, 128, 128)
    assert grid_cells(100, 128, 64, slice(0, 100)) == (-14,)
