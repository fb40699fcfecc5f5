"""Scores of a trained classifier's predictions on held-out images, with the same metrics and intervals as the probes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.evaluate.intervals import interval_rows
from core.evaluate.metrics import METRICS, metrics_for
from core.evaluate.table import Row


def held_out_scores(
    codes: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: Sequence[str],
    *,
    features: str,
    method: str,
    ordinal: bool,
    draws: int,
    seed: int,
) -> list[Row]:
    """Score predictions, one row per metric, with 95 % percentile bootstrap intervals over groups.

    Args:
        codes: (M,) true class numbers.
        probabilities: (M, K).
        groups: (M,) patient, scene or slide.
        features: what to call the model in the rows.
        method: how it was trained.
        ordinal: report quadratic kappa as well.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        DataError: a single group.
    """
    scores = {metric: partial(METRICS[metric], codes, probabilities) for metric in metrics_for(ordinal=ordinal)}
    return interval_rows(scores, groups, features=features, method=method, draws=draws, seed=seed)
