"""Windows: the whole is covered, nothing reaches outside, draws stay in the box."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import ShapeError
from core.rng import numpy_rng
from datasets.tiling import cover, random_crop, random_window


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
