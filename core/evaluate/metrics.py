"""Scores of class probabilities, computed for many resamples at once.

Every metric takes `weights` (R, M): how often each of the M images counts in each of R resamples. One row of ones is
the plain score, and the functions then equal scikit-learn's (the tests compare them). A resample in which a metric is
not defined gives NaN, never a number that looks like a score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Metric = Callable[[Ints, Floats, Floats], Floats]


def balanced_accuracy(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Average the recall of the classes present, (R,); the most probable class is the answer.

    Args:
        labels: (M,) class numbers 0..K-1.
        probabilities: (M, K).
        weights: (R, M), how often each image counts.
    """
    classes = probabilities.shape[1]
    right = probabilities.argmax(1) == labels
    wrong_right = _totals(weights, labels + classes * right, 2 * classes).reshape(2, classes, -1)
    return _mean_of_defined(_ratio(wrong_right[1], wrong_right.sum(0)))


def auroc_per_class(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Give each class's area under the ROC curve against all others, (R, K); NaN without a positive or negative.

    It is the share of (positive, negative) pairs that the class's probability orders rightly, ties counting one half
    (Hanley, McNeil 1982, doi 10.1148/radiology.143.1.7063747).
    """
    classes = range(probabilities.shape[1])
    return np.stack([_auroc(labels == k, probabilities[:, k], weights) for k in classes], axis=1)


def auroc(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Average `auroc_per_class` over the classes for which it is defined, (R,); of two classes the second alone."""
    if probabilities.shape[1] == 2:
        return _auroc(labels == 1, probabilities[:, 1], weights)
    return _mean_of_defined(auroc_per_class(labels, probabilities, weights).T)


def quadratic_kappa(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Give Cohen's kappa with quadratic weights, (R,): agreement of grades beyond chance, far misses costing most.

    Cohen 1968, doi 10.1037/h0026256. The distance of two classes is the difference of their numbers, so the classes
    must be numbered in their order. NaN where truth and answer are one single class.
    """
    classes = probabilities.shape[1]
    table = _totals(weights, labels * classes + probabilities.argmax(1), classes**2).reshape(classes, classes, -1)
    expected = table.sum(1)[:, None] * table.sum(0)[None, :] / weights.sum(1)
    distance = ((np.arange(classes)[:, None] - np.arange(classes)[None, :]) ** 2)[..., None]
    return 1.0 - _ratio((table * distance).sum((0, 1)), (expected * distance).sum((0, 1)))


METRICS: dict[str, Metric] = {
    "balanced accuracy": balanced_accuracy,
    "AUROC": auroc,
    "quadratic kappa": quadratic_kappa,
}


def chance(metric: str, num_classes: int) -> float:
    """Give the score of an answer that ignores the image: 1/K, 0.5 or 0."""
    return {"balanced accuracy": 1.0 / num_classes, "AUROC": 0.5, "quadratic kappa": 0.0}[metric]


def metrics_for(*, ordinal: bool) -> tuple[str, ...]:
    """Name the metrics that suit the labels: kappa only where the classes have an order."""
    return tuple(name for name in METRICS if ordinal or name != "quadratic kappa")


def balanced_cross_entropy(labels: Ints, probabilities: Floats) -> float:
    """Average -log p(true class) over the images of each class, then over classes; p is floored at 1e-6.

    Smoother than any of the scores above, so the choice between settings on few images depends less on luck.
    """
    loss = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-6))
    return float(np.mean([loss[labels == k].mean() for k in np.unique(labels)]))


def _auroc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Only what lies between two positives' scores, or at one of them, needs a sum of its own: (R,)."""
    levels, level = np.unique(score[positive], return_inverse=True)
    steps = 2 * len(levels) + 1  # of negatives: below the first level, at it, between it and the second, at that, ...
    cell = np.searchsorted(levels, score, "left") + np.searchsorted(levels, score, "right")
    cell[positive] = steps + level
    found = _totals(weights, cell, steps + len(levels))
    negatives, positives = found[:steps], found[steps:]
    below = np.cumsum(negatives, axis=0)
    beaten = below[:-1:2] + negatives[1::2] / 2
    return _ratio((positives * beaten).sum(0), positives.sum(0) * below[-1])


def _totals(weights: Floats, cell: Ints, cells: int) -> Floats:
    """Add up the weights (R, M) of the images in each cell (M,): (cells, R)."""
    by_image = torch.from_numpy(weights.T)
    return (
        torch.zeros(cells, len(weights), dtype=by_image.dtype).index_add_(0, torch.from_numpy(cell), by_image).numpy()
    )


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean_of_defined(values: Floats) -> Floats:
    """Average (classes, R) over the classes whose value is defined."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(0), defined.sum(0).astype(np.float64))
