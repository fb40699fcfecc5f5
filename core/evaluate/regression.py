"""Scores of numbers that a model gives images, for many resamples at once; see `core.evaluate.metrics` for `weights`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.evaluate.intervals import interval_rows
from core.evaluate.table import Row

Floats = NDArray[np.float64]


def r2(truth: Floats, answer: Floats, weights: Floats) -> Floats:
    """Give the share of the labels' variance that is explained, (R,); below 0 is worse than their mean, NaN without variance.

    Args:
        truth: (M,) labels; NaN = none, which counts nowhere.
        answer: (M,) of the model.
        weights: (R, M), how often each image counts.
    """
    known, total, error = _known(truth, answer, weights)
    labelled = np.isfinite(truth)
    offset = truth[labelled].mean() if labelled.any() else 0.0  # of northings, say: it would drown the variance
    centred = np.where(labelled, truth - offset, 0.0)
    power = known @ centred**2
    squares = power - total * _ratio(known @ centred, total) ** 2
    squares = np.where(squares > 1e-12 * power, squares, 0.0)  # what rounding leaves of equal labels is no variance
    return 1.0 - _ratio(known @ error**2, squares)


def mean_absolute_error(truth: Floats, answer: Floats, weights: Floats) -> Floats:
    """Average how far answers are off, (R,), in the labels' unit."""
    known, total, error = _known(truth, answer, weights)
    return _ratio(known @ np.abs(error), total)


def root_mean_square_error(truth: Floats, answer: Floats, weights: Floats) -> Floats:
    """Give the root of the mean square of how far answers are off, (R,), in the labels' unit."""
    known, total, error = _known(truth, answer, weights)
    return np.sqrt(_ratio(known @ error**2, total))


NUMBER_METRICS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "R2": r2,
    "MAE": mean_absolute_error,
    "RMSE": root_mean_square_error,
}


def regression_scores(
    truth: Floats,
    answers: Floats,
    groups: Sequence[str],
    names: Sequence[str],
    *,
    features: str,
    method: str,
    draws: int,
    seed: int,
) -> list[Row]:
    """Score numbers with 95 % percentile bootstrap intervals over groups, by number and `NUMBER_METRICS`.

    Args:
        truth: (M, K) labels; NaN = none.
        answers: (M, K).
        groups: (M,) patient, scene or block of each image.
        names: of the K numbers; of a single one it is left out of the rows.
        features: what to call the model in the rows.
        method: how it was trained.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        DataError: a single group.
    """
    scores = {
        metric if len(names) == 1 else f"{metric} of {name}": partial(score, truth[:, number], answers[:, number])
        for number, name in enumerate(names)
        for metric, score in NUMBER_METRICS.items()
    }
    return interval_rows(scores, groups, features=features, method=method, draws=draws, seed=seed)


def _known(truth: Floats, answer: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights of labelled images (R, M), their sum (R,), and the errors (M,), 0 where there is no label."""
    labelled = np.isfinite(truth)
    known = weights * labelled
    return known, known.sum(1), np.where(labelled, answer - np.nan_to_num(truth), 0.0)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
