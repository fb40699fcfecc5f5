"""Backscatter: decibels, what is told apart, and bounds that each band has alone."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import ConfigError, DataError, ShapeError
from domains.satellite.sar import decibels, linear, quantile_bounds, scale_of

RANDOM = np.random.default_rng(0)
VV, VH = RANDOM.normal(-12, 1, (4, 40, 40)), RANDOM.normal(-20, 1, (4, 40, 40))
PAIR = np.stack([VV, VH], axis=1).astype(np.float32)
ALL = np.ones(PAIR.shape, bool)


def test_decibels_and_power_undo_each_other_and_nothing_becomes_no_number() -> None:
    np.testing.assert_allclose(decibels(np.array([1.0, 0.1, 0.01])), [0.0, -10.0, -20.0], atol=1e-6)
    np.testing.assert_allclose(decibels(linear(PAIR)), PAIR, rtol=1e-5)
    assert np.isnan(decibels(np.array([0.0, np.nan]))).all()
    with pytest.raises(DataError, match="look like dB already"):
        decibels(PAIR)


def test_decibels_power_and_counts_are_told_apart() -> None:
    assert scale_of(PAIR) == "dB"
    assert scale_of(linear(PAIR)) == "linear power"
    with pytest.raises(DataError, match="median of 250"):
        scale_of(np.full((2, 3, 3), 250.0))
    with pytest.raises(DataError, match="no finite number"):
        scale_of(np.full((2, 3, 3), np.nan))


def test_bounds_are_the_quantiles_of_each_polarisation() -> None:
    (low_vv, high_vv), (low_vh, high_vh) = quantile_bounds(PAIR, ALL)
    assert (low_vv, high_vv) == pytest.approx((-12 - 2.326, -12 + 2.326), abs=0.15)
    assert (low_vh, high_vh) == pytest.approx((-20 - 2.326, -20 + 2.326), abs=0.15)
    assert (PAIR[:, 1] > high_vh).mean() == pytest.approx(0.01, abs=0.001)  # of pairs of pixels: none


def test_one_band_never_moves_the_bounds_of_the_other_nor_do_pixels_that_are_not_measured() -> None:
    bounds = quantile_bounds(PAIR, ALL)
    for band in (0, 1):
        changed = PAIR.copy()
        changed[:, 1 - band] = RANDOM.permutation(changed[:, 1 - band].ravel()).reshape(VV.shape) * 50
        assert quantile_bounds(changed, ALL)[band] == bounds[band]
    holes = RANDOM.random(PAIR.shape) < 0.3
    left = quantile_bounds(np.where(holes, np.float32(9e9), PAIR), ~holes)
    assert left == quantile_bounds(np.where(holes, np.nan, PAIR), ALL)
    assert left[0] == pytest.approx(bounds[0], abs=0.2)


def test_what_has_no_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="rise within 0 and 1"):
        quantile_bounds(PAIR, ALL, share=(0.9, 0.1))
    with pytest.raises(ShapeError, match="one shape"):
        quantile_bounds(PAIR, ALL[:, :1])
    with pytest.raises(DataError, match="band 1: expected different measured values"):
        quantile_bounds(PAIR, np.stack([ALL[:, 0], ~ALL[:, 1]], axis=1))
