from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from core.evaluate.metrics import (
    auroc,
    auroc_per_class,
    balanced_accuracy,
    balanced_cross_entropy,
    chance,
    metrics_for,
    quadratic_kappa,
)


def random_case(seed: int, *, classes: int, absent: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities with many ties, and three resamples as weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 80)
    if absent is not None:
        labels[labels == absent] = (absent + 1) % classes
    probabilities = np.round(rng.dirichlet(np.ones(classes), 80) + 0.3 * np.eye(classes)[labels], 1)
    weights = rng.multinomial(80, np.full(80, 1 / 80), size=3).astype(np.float64)
    return labels, probabilities, weights


def repeated(labels: np.ndarray, probabilities: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The resample itself, image by image, as scikit-learn wants it."""
    rows = np.repeat(np.arange(len(labels)), weight.astype(int))
    return labels[rows], probabilities[rows]


@pytest.mark.parametrize(("classes", "absent"), [(2, None), (3, None), (5, None), (5, 2), (5, 4)])
def test_vectorised_scores_equal_scikit_learn_on_every_resample(classes: int, absent: int | None) -> None:
    for seed in range(5):
        labels, probabilities, weights = random_case(seed, classes=classes, absent=absent)
        got = [metric(labels, probabilities, weights) for metric in (balanced_accuracy, quadratic_kappa, auroc)]
        per_class = auroc_per_class(labels, probabilities, weights)
        for draw, weight in enumerate(weights):
            truth, scores = repeated(labels, probabilities, weight)
            answer = scores.argmax(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn warns of answers in classes that are absent
                expected = reference.balanced_accuracy_score(truth, answer)
            assert got[0][draw] == pytest.approx(expected, abs=1e-12)
            kappa = reference.cohen_kappa_score(truth, answer, weights="quadratic", labels=list(range(classes)))
            assert got[1][draw] == pytest.approx(kappa, abs=1e-12)
            areas = [
                reference.roc_auc_score(truth == k, scores[:, k]) if 0 < (truth == k).sum() < len(truth) else np.nan
                for k in range(classes)
            ]
            np.testing.assert_allclose(per_class[draw], areas, atol=1e-12)
            assert got[2][draw] == pytest.approx(areas[1] if classes == 2 else np.nanmean(areas), abs=1e-12)


def test_macro_auroc_equals_scikit_learn_one_versus_rest() -> None:
    labels, probabilities, _ = random_case(7, classes=4)
    probabilities = probabilities / probabilities.sum(1, keepdims=True)
    expected = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert auroc(labels, probabilities, np.ones((1, 80)))[0] == pytest.approx(expected, abs=1e-12)


def test_scores_of_a_case_worked_by_hand() -> None:
    labels = np.array([0, 0, 1, 2])
    answer = np.eye(3)[[0, 1, 1, 0]]
    once = np.ones((1, 4))
    assert balanced_accuracy(labels, answer, once)[0] == pytest.approx((0.5 + 1 + 0) / 3)
    # observed misses: (0,1) costs 1, (2,0) costs 4; expected with rows 2 1 1 and columns 2 2 0: (4 + 2 + 8 + 2) / 4
    assert quadratic_kappa(labels, answer, once)[0] == pytest.approx(1 - 5 / 4)
    # class 0: positives score 1 0, negatives 0 1: pairs 1/2 + 1 + 0 + 1/2 of 4
    assert auroc_per_class(labels, answer, once)[0, 0] == pytest.approx(0.5)


def test_class_without_positives_has_no_auroc_and_is_left_out_of_the_mean() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]])
    per_class = auroc_per_class(labels, probabilities, np.ones((1, 4)))[0]
    assert per_class[:2].tolist() == [1.0, 1.0]
    assert np.isnan(per_class[2])
    assert auroc(labels, probabilities, np.ones((1, 4)))[0] == 1.0


def test_undefined_scores_are_nan_and_not_a_number_that_looks_like_one() -> None:
    labels, probabilities = np.zeros(3, dtype=np.int64), np.tile([0.9, 0.1], (3, 1))
    assert np.isnan(auroc(labels, probabilities, np.ones((1, 3)))[0])
    assert np.isnan(quadratic_kappa(labels, probabilities, np.ones((1, 3)))[0])
    assert balanced_accuracy(labels, probabilities, np.ones((1, 3)))[0] == 1.0


def test_constant_answers_score_exactly_chance() -> None:
    labels = np.array([0, 1, 2, 2, 2, 1])
    flat = np.tile([0.5, 0.3, 0.2], (6, 1))
    once = np.ones((1, 6))
    assert balanced_accuracy(labels, flat, once)[0] == pytest.approx(chance("balanced accuracy", 3))
    assert auroc(labels, flat, once)[0] == pytest.approx(chance("AUROC", 3))
    assert quadratic_kappa(labels, flat, once)[0] == pytest.approx(chance("quadratic kappa", 3))


def test_balanced_cross_entropy_weighs_classes_equally() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.5, 0.5]] * 3 + [[0.75, 0.25]])
    assert balanced_cross_entropy(labels, probabilities) == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_kappa_is_for_ordinal_labels_only() -> None:
    assert metrics_for(ordinal=False) == ("balanced accuracy", "AUROC")
    assert metrics_for(ordinal=True) == ("balanced accuracy", "AUROC", "quadratic kappa")
