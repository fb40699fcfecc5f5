"""Grouped, stratified cross-validation: every image is scored once, by a model that saw no image of its group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, DataError
from core.evaluate.metrics import balanced_cross_entropy
from core.rng import key, numpy_rng

Ints = NDArray[np.int64]
INNER_FOLDS = 3
FEWER_FOLDS = "give fewer folds (--folds), or join or leave out that class"
MORE_FOLDS = (
    "give more folds (--folds), so that groups are left to choose the setting on, or join or leave out that class"
)


class Method(Protocol):
    """A classifier of frozen features: `knn.NearestNeighbours`, `probe.LinearProbe`, or the caller's own."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    @property
    def settings(self) -> Sequence[float]:
        """Candidates of its one hyperparameter; a single one is taken as it is."""

    def predict(
        self,
        features: NDArray[np.float32],
        labels: Ints,
        queries: NDArray[np.float32],
        *,
        num_classes: int,
        settings: Sequence[float],
    ) -> tuple[NDArray[np.float64], int]:
        """Learn from (N, D) features; give probabilities (settings, M, K) and how many fits did not converge."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of one feature set by one method.

    Attributes:
        probabilities: (M, K), each row from the one fold that did not train on its group.
        chosen: the setting chosen in each fold.
        fits: models fitted, inner ones included.
        unconverged: how many of them stopped before the optimum.
    """

    probabilities: NDArray[np.float64]
    chosen: tuple[float, ...]
    fits: int
    unconverged: int


def assign_folds(
    labels: Ints,
    groups: NDArray[np.str_],
    *,
    folds: int,
    seed: int,
    class_names: Sequence[str],
    cure: str = FEWER_FOLDS,
) -> Ints:
    """Give each image the fold (M,) in 0..folds-1 that it is tested in; a group is never split.

    Groups are taken largest first, ties in an order drawn from the seed, and each goes where its classes are rarest so
    far, so every class is spread over the folds. A pure function of (group names, labels, seed); the order of rows is
    irrelevant.

    Raises:
        ConfigError: fewer than 2 folds.
        DataError: a class with fewer groups than folds, or whose groups could not be spread over two folds.
    """
    if folds < 2:
        raise ConfigError(f"expected at least 2 folds, got {folds}: give --folds 5, or 3 where a class is rare.")
    names, member = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(class_names)))
    np.add.at(counts, (member, labels), 1)
    _check_groups_per_class((counts > 0).sum(0), folds, class_names, cure)

    shuffled = numpy_rng(seed, "folds").permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    share = counts / counts.sum(0)
    load = np.zeros((folds, len(class_names)))
    fold_of_group = np.zeros(len(names), dtype=np.int64)
    for group in order:
        crowding = load @ share[group]
        fold = np.lexsort((load.sum(1), np.round(crowding, 12)))[0]
        load[fold] += share[group]
        fold_of_group[group] = fold
    thin = np.flatnonzero((load > 0).sum(0) < 2)
    if len(thin):
        raise DataError(
            f"class '{class_names[thin[0]]}' could not be spread over two folds, because its groups also hold "
            f"other classes: {cure}."
        )
    return fold_of_group[member]


def out_of_fold(
    method: Method,
    features: NDArray[np.float32],
    labels: Ints,
    groups: NDArray[np.str_],
    fold: Ints,
    *,
    seed: int,
    class_names: Sequence[str],
    taught: Mapping[int, NDArray[np.bool_]] | None = None,
) -> OutOfFold:
    """Predict each fold from all others, with a setting chosen by inner folds of its training side alone.

    Args:
        method: learns and predicts.
        features: (M, D).
        labels: (M,) class numbers.
        groups: (M,).
        fold: (M,) in which fold each image is tested.
        seed: of the inner folds.
        class_names: K names.
        taught: fold -> (M,) True for the images that are learnt from; None = all of the other folds.

    Raises:
        DataError: a group on both sides of a fold, or a class too rare to choose a setting.
    """
    probabilities = np.full((len(labels), len(class_names)), np.nan)
    chosen: list[float] = []
    fits = unconverged = 0
    for number in np.unique(fold):
        test = fold == number
        train = ~test if taught is None else taught[int(number)]
        _check_apart(groups[train], groups[test])
        setting, inner_fits, failed = _choose(
            method,
            features[train],
            labels[train],
            groups[train],
            seed=inner_seed(seed, int(number)),
            class_names=class_names,
        )
        predicted, failed_last = method.predict(
            features[train], labels[train], features[test], num_classes=len(class_names), settings=[setting]
        )
        probabilities[test] = predicted[0]
        chosen.append(setting)
        fits += inner_fits + 1
        unconverged += failed + failed_last
    assert np.isfinite(probabilities).all()
    return OutOfFold(probabilities, tuple(chosen), fits, unconverged)


def _choose(
    method: Method,
    features: NDArray[np.float32],
    labels: Ints,
    groups: NDArray[np.str_],
    *,
    seed: int,
    class_names: Sequence[str],
) -> tuple[float, int, int]:
    settings = [float(s) for s in method.settings]
    if len(settings) == 1:
        return settings[0], 0, 0
    fold = inner_folds(labels, groups, seed=seed, class_names=class_names)
    numbers = np.unique(fold)
    probabilities = np.zeros((len(settings), len(labels), len(class_names)))
    failed = 0
    for number in numbers:
        test = fold == number
        _check_apart(groups[~test], groups[test])
        probabilities[:, test], unconverged = method.predict(
            features[~test], labels[~test], features[test], num_classes=len(class_names), settings=settings
        )
        failed += unconverged
    losses = [balanced_cross_entropy(labels, p) for p in probabilities]
    return settings[int(np.argmin(losses))], len(numbers) * len(settings), failed


def inner_seed(seed: int, number: int) -> int:
    """Give the seed of the inner folds of one outer fold."""
    return key(seed, "inner", number)


def inner_folds(labels: Ints, groups: NDArray[np.str_], *, seed: int, class_names: Sequence[str]) -> Ints:
    """Assign a training side to up to 3 folds, on which a setting is chosen; fewer where a class has fewer groups.

    Raises:
        DataError: a class of a single group.
    """
    groups_per_class = min(len(np.unique(groups[labels == k])) for k in range(len(class_names)))
    folds = max(2, min(INNER_FOLDS, groups_per_class))
    return assign_folds(labels, groups, folds=folds, seed=seed, class_names=class_names, cure=MORE_FOLDS)


def _check_apart(train: NDArray[np.str_], test: NDArray[np.str_]) -> None:
    both = np.intersect1d(test, train)
    if len(both):
        raise DataError(
            f"group '{both[0]}' is on both sides of a split ({len(both)} such groups): "
            "a patient, scene or slide must be in one fold only; assign folds by group."
        )


def _check_groups_per_class(groups_per_class: Ints, folds: int, class_names: Sequence[str], cure: str) -> None:
    rare = int(np.argmin(groups_per_class))
    if groups_per_class[rare] < folds:
        raise DataError(
            f"expected at least {folds} groups of each class for {folds} folds, but class '{class_names[rare]}' has "
            f"{groups_per_class[rare]}: {cure}."
        )
