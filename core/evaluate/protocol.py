"""The one evaluation of the house: k-NN and linear probe on frozen features, out-of-fold scores, grouped intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, nearest
from core.evaluate.effort import Effort, Tell
from core.evaluate.folds import Ints, Method, OutOfFold, assign_folds, inner_folds, inner_seed, out_of_fold
from core.evaluate.inputs import Features, Labels, check_features, check_groups, encode_labels
from core.evaluate.intervals import check_draws, group_draws, percentile_interval, undefined_share
from core.evaluate.knn import NearestNeighbours, check_neighbours
from core.evaluate.metrics import METRICS, chance, metrics_for
from core.evaluate.probe import LinearProbe
from core.evaluate.table import Difference, LabelClass, Row, Table, few_groups_notes, undefined_notes
from core.rng import key

LEVEL = 0.95
Names = TypeVar("Names", bound=tuple[str, ...])
Scores = dict[tuple[str, str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]


def evaluate(
    feature_sets: Mapping[str, Features | Sequence[Features]],
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any],
    *,
    seed: int,
    ordinal: bool = False,
    order: Sequence[Any] | None = None,
    folds: int = 5,
    repeats: int = 1,
    draws: int = 2000,
    methods: Sequence[Method] = (NearestNeighbours(), LinearProbe()),
    reference: str | None = None,
    notes: Sequence[str] = (),
    progress: Tell | None = None,
) -> Table:
    """Score frozen features by every method, with intervals, and compare the reference with every other feature set.

    Each image is predicted once per repeat by a model that saw no image of its group (`folds.out_of_fold`); predictions
    of all folds are pooled and scored together. Pooling compares probabilities of different folds' models in the AUROC,
    which can only cost it a little; it makes one resample of groups well defined. The intervals cover the choice of
    test groups; what they leave out is said in `core.evaluate.intervals`.

    Args:
        feature_sets: name -> (M, D) float32, one row per image, all in the same order. A list of arrays is one entry
            under several seeds (random weights drawn three times): its score is their mean, their spread is shown.
        labels: (M,) class labels, integers or names.
        groups: (M,) patient, scene or slide of each image.
        seed: of folds and resamples.
        ordinal: the classes have an order, so quadratic kappa is reported.
        order: class names from least to most, for labels that are not numbers.
        folds: of the outer cross-validation; no class may have fewer groups.
        repeats: assignments of folds; scores are averaged over them.
        draws: bootstrap resamples of the groups.
        methods: classifiers of the features.
        reference: the feature set from which the others are subtracted; the first by default.
        notes: sentences to print under the table, such as that the encoder saw these images without their labels.
        progress: called before each piece of work with what it is, and the share of all work that is done.

    Raises:
        DataError: labels, groups or features that cannot be used; the sentence names rows or classes.
        ConfigError: an option that does not fit.
    """
    target, group, dealt = deal(
        labels,
        groups,
        seed=seed,
        ordinal=ordinal,
        order=order,
        folds=folds,
        repeats=repeats,
        draws=draws,
        methods=methods,
    )
    sets = check_features(feature_sets, len(target.codes))
    reference = next(iter(sets)) if reference is None else reference
    if reference not in sets:
        raise ConfigError(f"no feature set is called '{reference}': {nearest(reference, sets)}")

    metrics = metrics_for(ordinal=ordinal)
    effort = Effort(
        progress,
        [array for arrays in sets.values() for array in arrays],
        methods,
        taught=[len(group)],
        folds=folds,
        repeats=repeats,
        scored=len(metrics) * draws * len(group) * len(target.names),
    )
    predictions: dict[tuple[str, str], list[list[OutOfFold]]] = {}
    for (name, arrays), method in product(sets.items(), methods):
        found = predictions[name, method.name] = [[] for _ in arrays]
        for place, (fold_seed, fold) in product(range(len(arrays)), dealt.items()):
            effort.fitting(f"{name}, {method.name}", arrays[place], method, len(group))
            predicted = out_of_fold(
                method, arrays[place], target.codes, group, fold, seed=fold_seed, class_names=target.names
            )
            found[place].append(predicted)
    scores = _score_all(predictions, target, group, metrics, draws=draws, seed=seed, effort=effort)
    return Table(
        rows=tuple(_row(*names, *scores[names], groups=len(np.unique(group))) for names in scores),
        differences=tuple(_difference(names, reference, scores) for names in scores if names[0] != reference),
        chance={metric: chance(metric, len(target.names)) for metric in metrics},
        classes=tuple(
            LabelClass(
                name=name, images=int((target.codes == k).sum()), groups=len(np.unique(group[target.codes == k]))
            )
            for k, name in enumerate(target.names)
        ),
        images=len(group),
        groups=len(np.unique(group)),
        folds=folds,
        repeats=repeats,
        draws=draws,
        level=LEVEL,
        seed=seed,
        notes=(
            *notes,
            *few_groups_notes(len(np.unique(group))),
            *convergence_notes(predictions),
            *undefined_notes({", ".join(names): undefined_share(found) for names, (_, found) in scores.items()}, LEVEL),
        ),
    )


def deal(
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any],
    *,
    seed: int,
    ordinal: bool = False,
    order: Sequence[Any] | None = None,
    folds: int,
    repeats: int = 1,
    draws: int,
    methods: Sequence[Method],
) -> tuple[Labels, NDArray[np.str_], dict[int, Ints]]:
    """Number the classes and assign the folds of each repeat, by seed: all that `evaluate` asks before it sees a feature.

    Called before images are embedded, it refuses then what would be refused after hours. Arguments as `evaluate`'s.

    Raises:
        DataError: labels or groups that cannot be used: missing, or a class with too few groups.
        ConfigError: an option that does not fit, or more neighbours than there are images to learn from.
    """
    target = encode_labels(labels, ordinal=ordinal, order=order)
    group = check_groups(groups, len(target.codes))
    check_draws(group, draws)
    if repeats < 1:
        raise ConfigError(f"expected at least 1 repeat, got {repeats}.")
    dealt = {}
    for repeat in range(repeats):
        fold_seed = key(seed, repeat)
        fold = assign_folds(target.codes, group, folds=folds, seed=fold_seed, class_names=target.names)
        for method in methods:
            _check_taught(method, target, group, fold, fold_seed)
        dealt[fold_seed] = fold
    return target, group, dealt


def _check_taught(method: Method, target: Labels, group: NDArray[np.str_], fold: Ints, seed: int) -> None:
    """Refuse a method that cannot learn from the smallest training side, or cannot choose its setting there."""
    fewest = len(fold)
    for number in np.unique(fold):
        rows = np.flatnonzero(fold != number)
        if len(method.settings) > 1:
            inner = inner_folds(
                target.codes[rows], group[rows], seed=inner_seed(seed, int(number)), class_names=target.names
            )
            fewest = min(fewest, len(rows) - int(np.bincount(inner).max()))
        else:
            fewest = min(fewest, len(rows))
    check_neighbours(method, fewest, f"a fold leaves that many of {len(fold)} images to learn from")


def _score_all(
    predictions: Mapping[tuple[str, str], list[list[OutOfFold]]],
    target: Labels,
    group: NDArray[np.str_],
    metrics: Sequence[str],
    *,
    draws: int,
    seed: int,
    effort: Effort,
) -> Scores:
    """Per (features, method, metric): the score of each set, (S,), and of each resample averaged over sets, (R,)."""
    plain = np.ones((1, len(group)))
    points = {names: _mean_over_repeats(sets, target, metrics, plain) for names, sets in predictions.items()}
    blocks: dict[tuple[str, str], list[NDArray[np.float64]]] = {names: [] for names in predictions}
    for weights in group_draws(group, draws=draws, seed=seed):  # one block serves every row: all differences are paired
        effort.resampling(len(weights) / draws)
        for names, sets in predictions.items():
            blocks[names].append(_mean_over_repeats(sets, target, metrics, weights).mean(0))
    resampled = {names: np.concatenate(parts, axis=1) for names, parts in blocks.items()}
    return {
        (*names, metric): (points[names][:, i, 0], resampled[names][i])
        for names in predictions
        for i, metric in enumerate(metrics)
    }


def _mean_over_repeats(
    sets: list[list[OutOfFold]], target: Labels, metrics: Sequence[str], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Score every feature set, (S, metrics, R)."""
    return np.stack(
        [
            np.stack(
                [
                    np.stack([METRICS[m](target.codes, r.probabilities, weights) for r in repeats]).mean(0)
                    for m in metrics
                ]
            )
            for repeats in sets
        ]
    )


def _row(
    features: str,
    method: str,
    metric: str,
    points: NDArray[np.float64],
    resampled: NDArray[np.float64],
    *,
    groups: int,
) -> Row:
    low, high = percentile_interval(resampled, level=LEVEL)
    return Row(
        features=features,
        method=method,
        metric=metric,
        value=float(points.mean()),
        low=low,
        high=high,
        sets=len(points),
        spread=float(points.std(ddof=1)) if len(points) > 1 else None,
        undefined=undefined_share(resampled),
        groups=groups,
    )


def _difference(names: tuple[str, str, str], reference: str, scores: Scores) -> Difference:
    features, method, metric = names
    (point, resampled), (base_point, base_resampled) = scores[reference, method, metric], scores[names]
    low, high = percentile_interval(resampled - base_resampled, level=LEVEL)
    return Difference(
        features=reference,
        baseline=features,
        method=method,
        metric=metric,
        value=float(point.mean() - base_point.mean()),
        low=low,
        high=high,
    )


def convergence_notes(predictions: Mapping[Names, list[list[OutOfFold]]]) -> list[str]:
    """Say of which fits, by the names that they go under, some ended early."""
    notes = []
    for names, sets in predictions.items():
        results = [result for repeats in sets for result in repeats]
        failed = sum(result.unconverged for result in results)
        if failed:
            fits = sum(result.fits for result in results)
            notes.append(f"{', '.join(names)}: {failed} of {fits} fits stopped before their optimum.")
    return notes
