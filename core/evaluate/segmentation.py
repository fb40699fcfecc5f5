"""Scores of maps of classes: one table of true against answered class per image, from which all else follows.

Tables add up, so a score of any set of images needs no pixel again: of a resample, of one class, of a whole map. Places
without a label, and those that the image has not measured, are in no table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError
from core.evaluate.intervals import interval_rows
from core.evaluate.table import Row, class_name

Floats = NDArray[np.float64]
Tables = NDArray[np.int64]


def confusion(labels: Tensor, answers: Tensor, num_classes: int) -> Tensor:
    """Count how often class i was answered by class j, per image.

    Args:
        labels: (B, *S) class numbers; what is below 0 counts nowhere.
        answers: (B, *S) class numbers.
        num_classes: K.

    Returns:
        (B, K, K) int64, truth by answer.

    Raises:
        DataError: a label of K or more, or an answer outside 0..K-1 to a place with a label, which would be counted in the
            table of another class or image.
    """
    if (labels >= num_classes).any():
        raise DataError(
            f"expected class numbers below {num_classes}, got the label {int(labels.max())}: give -1 where it counts nowhere."
        )
    known = labels >= 0
    wrong = known & ((answers < 0) | (answers >= num_classes))
    if wrong.any():
        raise DataError(
            f"expected answers of 0 to {num_classes - 1} wherever there is a label, got {int(answers[wrong][0])}: does the "
            "model have other classes than the labels?"
        )
    image = torch.arange(len(labels), device=labels.device).reshape(-1, *(1,) * (labels.ndim - 1)).expand_as(labels)
    cell = (image * num_classes + labels) * num_classes + answers
    count = torch.bincount(cell[known], minlength=len(labels) * num_classes**2)
    return count.reshape(len(labels), num_classes, num_classes)


def iou_per_class(tables: Tables, weights: Floats) -> Floats:
    """Give intersection over union (Jaccard 1901) of each class, (R, K); NaN where neither truth nor answer has it.

    Args:
        tables: (M, K, K) of `confusion`.
        weights: (R, M), how often each image counts in each of R resamples; all pixels are counted together.
    """
    right, truth, answer = _sums(tables, weights)
    return _ratio(right, truth + answer - right)


def dice_per_class(tables: Tables, weights: Floats) -> Floats:
    """Give Dice's coefficient (1945, doi 10.2307/1932409) of each class, (R, K): 2 IoU / (1 + IoU); NaN as there."""
    right, truth, answer = _sums(tables, weights)
    return _ratio(2 * right, truth + answer)


def recall_per_class(tables: Tables, weights: Floats) -> Floats:
    """Give the share of each class's pixels that were answered rightly, (R, K); NaN where truth has none."""
    right, truth, _ = _sums(tables, weights)
    return _ratio(right, truth)


def mean_iou(tables: Tables, weights: Floats) -> Floats:
    """Average `iou_per_class` over the classes for which it is defined, (R,)."""
    return _mean_of_defined(iou_per_class(tables, weights))


def mean_dice(tables: Tables, weights: Floats) -> Floats:
    """Average `dice_per_class` over the classes for which it is defined, (R,)."""
    return _mean_of_defined(dice_per_class(tables, weights))


def balanced_pixel_accuracy(tables: Tables, weights: Floats) -> Floats:
    """Average `recall_per_class` over the classes that occur, (R,)."""
    return _mean_of_defined(recall_per_class(tables, weights))


def pixel_accuracy(tables: Tables, weights: Floats) -> Floats:
    """Give the share of pixels that were answered rightly, (R,)."""
    right, truth, _ = _sums(tables, weights)
    return _ratio(right.sum(1), truth.sum(1))


MAP_METRICS: dict[str, Callable[[Tables, Floats], Floats]] = {
    "mean IoU": mean_iou,
    "mean Dice": mean_dice,
    "balanced pixel accuracy": balanced_pixel_accuracy,
    "pixel accuracy": pixel_accuracy,
}
_OF_CLASSES = {"IoU": iou_per_class, "Dice": dice_per_class}


def map_scores(tables: Tables) -> dict[str, float]:
    """Score all images together, by the names of `MAP_METRICS`."""
    once = np.ones((1, len(tables)))
    return {name: float(metric(tables, once)[0]) for name, metric in MAP_METRICS.items()}


def segmentation_scores(
    tables: Tables,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    features: str,
    method: str,
    draws: int,
    seed: int,
) -> list[Row]:
    """Score maps with 95 % percentile bootstrap intervals over groups: each of `MAP_METRICS`, then IoU and Dice by class.

    A class that is in neither truth nor answer has no row. Its pixels are counted over all images of a resample, so that
    large images count for more; groups, not pixels, are drawn (see `core.evaluate.intervals`).

    Args:
        tables: (M, K, K) of `confusion`, one per image.
        groups: (M,) patient, scene or block of each image.
        classes: K names; one that is a number is called `class 2`.
        features: what to call the model in the rows.
        method: how it was trained.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        DataError: a single group.
    """
    once = np.ones((1, len(tables)))
    scores: dict[str, Callable[[Floats], Floats]] = {
        name: partial(metric, tables) for name, metric in MAP_METRICS.items()
    }
    for name, each in _OF_CLASSES.items():
        for number, defined in enumerate(np.isfinite(each(tables, once)[0])):
            if defined:
                scores[f"{name} of {class_name(classes[number])}"] = partial(_of_class, each, tables, number)
    return interval_rows(scores, groups, features=features, method=method, draws=draws, seed=seed)


def _of_class(each: Callable[[Tables, Floats], Floats], tables: Tables, number: int, weights: Floats) -> Floats:
    return each(tables, weights)[:, number]


def _sums(tables: Tables, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Add up per resample: pixels answered rightly, of the truth, and of the answer, (R, K) each."""
    diagonal = np.diagonal(tables, axis1=1, axis2=2)
    return weights @ diagonal, weights @ tables.sum(2), weights @ tables.sum(1)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean_of_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(1), defined.sum(1).astype(np.float64))
