"""Radar backscatter: decibels, and bounds to cut off at, each polarisation by its own quantiles."""

from __future__ import annotations

from typing import Literal

import numpy as np

from core.errors import ConfigError, DataError, ShapeError


def decibels(power: np.ndarray) -> np.ndarray:
    """Turn backscatter as linear power into dB, 10 log10; NaN where it is not above 0, as where nothing was measured.

    Raises:
        DataError: the values are dB already, or else no power: more than 1 in 100 is below 0.
    """
    values = np.asarray(power, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if finite.size and (finite < 0).mean() > 0.01:
        raise DataError(
            f"expected linear power, which is never negative, got values from {finite.min():.6g} to {finite.max():.6g}: "
            "they look like dB already."
        )
    result: np.ndarray = 10.0 * np.log10(np.where(values > 0, values, np.nan))
    return result.astype(np.float32)


def linear(decibel: np.ndarray) -> np.ndarray:
    """Undo `decibels`."""
    power: np.ndarray = 10.0 ** (np.asarray(decibel, dtype=np.float64) / 10.0)
    return power.astype(np.float32)


def scale_of(values: np.ndarray) -> Literal["dB", "linear power"]:
    """Say what backscatter (C, *S) is: land in dB is negative nearly everywhere, power never is.

    Raises:
        DataError: no number at all, or values that are neither, such as amplitude counts in the hundreds.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError("expected backscatter, got no finite number.")
    low, median, high = np.percentile(finite, [1, 50, 99])
    if low >= 0 and median < 10:
        return "linear power"
    if -60 <= median < 0 and high < 40:
        return "dB"
    raise DataError(
        f"expected backscatter in dB or as linear power, got a median of {median:.6g} (1 % below {low:.6g}, 1 % above "
        f"{high:.6g}): calibrate amplitude counts first."
    )


def quantile_bounds(
    values: np.ndarray, valid: np.ndarray, *, share: tuple[float, float] = (0.01, 0.99)
) -> tuple[tuple[float, float], ...]:
    """Measure the bounds (low, high) of each band of images (N, C, *S) over its own measured pixels.

    Source: FG-MAE (Wang et al. 2023, arXiv 2310.18653) cuts Sentinel-1 off at 1 and 99 %. Deviations: its code takes the
    quantiles of pairs of neighbouring pixels of both polarisations, so that VH is never cut off from above; ours are by band.

    Args:
        values: of any unit.
        valid: of the same shape, True = measured.
        share: of pixels below either bound.

    Raises:
        ConfigError: shares that do not rise within 0 and 1.
        ShapeError: valid is not of the shape of values.
        DataError: a band without a measured pixel, or with one value only.
    """
    if not 0 <= share[0] < share[1] <= 1:
        raise ConfigError(f"expected shares that rise within 0 and 1, got {share}.")
    if values.shape != valid.shape or values.ndim < 3:
        raise ShapeError(f"expected values and valid of one shape (N, C, *S), got {values.shape} and {valid.shape}.")
    bounds = []
    for band in range(values.shape[1]):
        measured = values[:, band][valid[:, band] & np.isfinite(values[:, band])]
        low, high = np.quantile(measured, share).tolist() if measured.size else (0.0, 0.0)
        if not low < high:
            raise DataError(f"band {band}: expected different measured values to find bounds of, got {low} to {high}.")
        bounds.append((low, high))
    return tuple(bounds)
