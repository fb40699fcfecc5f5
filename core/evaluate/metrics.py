"""Scores of class probabilities, computed for many resamples at once.

Every metric takes `weights` (R, M): how often each of the M images counts in each of R resamples. One row of ones is
the plain score, and the functions then equal scikit-learn's (the tests compare them). A resample in which a metric is
not defined gives NaN, never a number that looks like a score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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
    present = _one_hot(labels, probabilities.shape[1])
    right = present * (probabilities.argmax(1) == labels)[:, None]
    return _mean_of_defined(_ratio(weights @ right, weights @ present))


def auroc_per_class(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Give each class's area under the ROC curve against all others, (R, K); NaN without a positive or negative.

    It is the share of (positive, negative) pairs that the class's probability orders rightly, ties counting one half
    (Hanley, McNeil 1982, doi 10.1148/radiology.143.1.7063747).
    """
    present = _one_hot(labels, probabilities.shape[1])
    return np.stack([_auroc(present[:, k], probabilities[:, k], weights) for k in range(present.shape[1])], axis=1)


def auroc(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Average `auroc_per_class` over the classes for which it is defined, (R,); of two classes the second alone."""
    if probabilities.shape[1] == 2:
        return _auroc((labels == 1).astype(np.float64), probabilities[:, 1], weights)
    return _mean_of_defined(auroc_per_class(labels, probabilities, weights))


def quadratic_kappa(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Give Cohen's kappa with quadratic weights, (R,): agreement of grades beyond chance, far misses costing most.

    Cohen 1968, doi 10.1037/h0026256. The distance of two classes is the difference of their numbers, so the classes
    must be numbered in their order. NaN where truth and answer are one single class.
    """
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(1)
    table = (weights @ _one_hot(cell, classes**2)).reshape(-1, classes, classes)
    expected = table.sum(2)[:, :, None] * table.sum(1)[:, None, :] / weights.sum(1)[:, None, None]
    distance = (np.arange(classes)[:, None] - np.arange(classes)[None, :]) ** 2
    return 1.0 - _ratio((table * distance).sum((1, 2)), (expected * distance).sum((1, 2)))


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


def _auroc(positive: Floats, score: Floats, weights: Floats) -> Floats:
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # equal scores form one step of the curve
    sorted_weights = weights[:, order]
    positives = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    negatives = np.add.reduceat(sorted_weights * (1.0 - positive[order]), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(1), positives.sum(1) * negatives.sum(1))


def _one_hot(labels: Ints, classes: int) -> Floats:
    return np.eye(classes, dtype=np.float64)[labels]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean_of_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(1), defined.sum(1).astype(np.float64))
