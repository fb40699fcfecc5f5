from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from core.evaluate.folds import assign_folds, out_of_fold
from core.evaluate.knn import NearestNeighbours


def cohort(seed: int = 0, *, patients: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """One to four images per patient; images of one patient mostly share their class."""
    rng = np.random.default_rng(seed)
    per_patient = rng.integers(1, 5, patients)
    groups = np.repeat([f"p{i:03d}" for i in range(patients)], per_patient)
    labels = np.repeat(np.arange(patients) % classes, per_patient)
    stray = rng.random(len(labels)) < 0.1
    return np.where(stray, rng.integers(0, classes, len(labels)), labels), groups


def assign(labels: np.ndarray, groups: np.ndarray, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    return assign_folds(labels, groups, folds=folds, seed=seed, class_names=[str(k) for k in range(labels.max() + 1)])


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_split_and_every_class_is_spread_evenly(seed: int) -> None:
    labels, groups = cohort(seed)
    fold = assign(labels, groups, seed=seed)
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    assert np.ptp(np.bincount(fold, minlength=5)) <= 5
    for k in range(4):
        shares = np.bincount(fold[labels == k], minlength=5) / (labels == k).sum()
        assert shares.min() > 0.1
        assert shares.max() < 0.3


def test_single_image_groups_are_stratified_exactly() -> None:
    labels = np.repeat([0, 1, 2], [50, 25, 10])
    fold = assign(labels, np.array([f"i{i}" for i in range(85)]))
    counts = np.array([np.bincount(fold[labels == k], minlength=5) for k in range(3)])
    assert counts.tolist() == [[10] * 5, [5] * 5, [2] * 5]


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows() -> None:
    labels, groups = cohort()
    fold = assign(labels, groups)
    order = np.random.default_rng(1).permutation(len(labels))
    np.testing.assert_array_equal(assign(labels[order], groups[order]), fold[order])
    assert (assign(labels, groups, seed=1) != fold).any()


def test_a_class_with_fewer_groups_than_folds_is_named_with_the_cure() -> None:
    labels = np.array([0] * 10 + [1] * 6)
    groups = np.array([f"a{i}" for i in range(10)] + ["b0", "b0", "b1", "b1", "b2", "b2"])
    with pytest.raises(DataError, match=r"5 groups of each class for 5 folds, but class '1' has 3.*--folds"):
        assign(labels, groups)
    assert set(assign(labels, groups, folds=3)) == {0, 1, 2}
    with pytest.raises(ConfigError, match="at least 2 folds, got 1"):
        assign(labels, groups, folds=1)


class Memory:
    """A method that knows what it was taught and refuses to answer about a group that it was taught."""

    name: ClassVar[str] = "memory"

    def __init__(self, settings: tuple[float, ...], good: float) -> None:
        self.settings = settings
        self.good = good
        self.calls: list[tuple[set[int], set[int], int]] = []

    def predict(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        queries: np.ndarray,
        *,
        num_classes: int,
        settings: Sequence[float],
    ) -> tuple[np.ndarray, int]:
        taught, asked = set(features[:, 0].astype(int).tolist()), set(queries[:, 0].astype(int).tolist())
        assert not taught & asked
        self.calls.append((taught, asked, len(settings)))
        truth = queries[:, 1].astype(int)
        right = 0.1 + 0.8 * np.eye(num_classes)[truth]
        flat = np.full((len(queries), num_classes), 1 / num_classes)
        return np.stack([right if s == self.good else flat for s in settings]), 1


def test_every_image_is_scored_once_and_settings_are_chosen_inside_the_training_side_only() -> None:
    labels, groups = cohort()
    number = np.unique(groups, return_inverse=True)[1]
    features = np.stack([number, labels], axis=1).astype(np.float32)
    method = Memory((0.0, 1.0, 2.0), good=1.0)
    fold = assign(labels, groups)
    result = out_of_fold(method, features, labels, groups, fold, seed=0, class_names="0123")
    np.testing.assert_array_equal(result.probabilities.argmax(1), labels)
    assert result.chosen == (1.0,) * 5
    assert (result.fits, result.unconverged) == (5 * (3 * 3 + 1), 5 * 4)
    for outer in range(5):
        test_groups = set(number[fold == outer].tolist())
        inner, last = method.calls[outer * 4 : outer * 4 + 3], method.calls[outer * 4 + 3]
        assert last[1] == test_groups
        for taught, asked, settings in inner:
            assert not (taught | asked) & test_groups
            assert settings == 3


def test_a_split_that_shares_a_group_is_refused() -> None:
    labels, groups = cohort()
    fold = np.arange(len(labels)) % 5
    with pytest.raises(DataError, match=r"group 'p0.*' is on both sides of a split"):
        out_of_fold(
            NearestNeighbours(), np.ones((len(labels), 2), np.float32), labels, groups, fold, seed=0, class_names="0123"
        )


def test_a_class_too_rare_to_choose_a_setting_is_named() -> None:
    labels = np.array([0] * 10 + [1] * 2)
    groups = np.array([f"g{i}" for i in range(12)])
    fold = assign(labels, groups, folds=2)
    method = Memory((0.0, 1.0), good=1.0)
    with pytest.raises(DataError, match=r"class '1' has 1: give more folds \(--folds\)"):
        out_of_fold(
            method,
            np.stack([np.arange(12), labels], 1).astype(np.float32),
            labels,
            groups,
            fold,
            seed=0,
            class_names="01",
        )
