"""How few labels a feature set needs: the evaluation of the house, taught with so many labelled images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, nearest
from core.evaluate.curve import Curve, Point, PointDifference
from core.evaluate.effort import Effort, Tell
from core.evaluate.folds import Method, OutOfFold, out_of_fold
from core.evaluate.inputs import Features, Labels, check_features, check_groups, encode_labels
from core.evaluate.intervals import Floats, check_draws, group_draws, percentile_interval, undefined_share
from core.evaluate.knn import NearestNeighbours, check_neighbours
from core.evaluate.lessons import Lesson, check_choosable, choose_lesson, reached
from core.evaluate.metrics import METRICS, chance, metrics_for
from core.evaluate.probe import LinearProbe
from core.evaluate.protocol import convergence_notes
from core.evaluate.table import LabelClass, few_groups_notes, undefined_notes
from core.rng import key, numpy_rng

LEVEL = 0.95
FEW_LABELS: tuple[Method, ...] = (NearestNeighbours(settings=(5,)), LinearProbe(settings=(1e-3, 1e-2, 1e-1, 1.0)))
"""k-NN with 5 neighbours, as there may be no more of a class; a probe with fewer candidates, as it is fitted often."""

Predictions = dict[tuple[str, str, int], list[list[OutOfFold]]]
Scores = dict[tuple[str, str, int, str], tuple[Floats, Floats]]


def label_efficiency(
    feature_sets: Mapping[str, Features | Sequence[Features]],
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any],
    *,
    seed: int,
    shots: Sequence[int] = (5, 10, 50, 100),
    repeats: int = 5,
    folds: int = 5,
    draws: int = 1000,
    ordinal: bool = False,
    order: Sequence[Any] | None = None,
    methods: Sequence[Method] = FEW_LABELS,
    reference: str | None = None,
    notes: Sequence[str] = (),
    progress: Tell | None = None,
) -> Curve:
    """Score frozen features by every method for each number of labels per class, and compare the reference with the rest.

    As `core.evaluate.protocol.evaluate`, except that a method learns from `shots` images per class of the other folds.
    The interval resamples test groups and, each time, the choices of labelled images (the pigeonhole bootstrap of Owen
    2007, doi 10.1214/07-AOAS122, which errs on the wide side): with five labels, which five they are matters most.

    Args:
        feature_sets: name -> (M, D) float32, one row per image, all in the same order; a list is several seeds of one.
        labels: (M,) class labels, integers or names.
        groups: (M,) patient, scene or slide of each image.
        seed: of folds, choices and resamples.
        shots: numbers of labelled images per class; a class that has fewer gives all, which a note says.
        repeats: choices of folds and labelled images; scores are averaged over them.
        folds: of the outer cross-validation; no class may have fewer groups.
        draws: bootstrap resamples.
        ordinal: the classes have an order, so quadratic kappa is reported.
        order: class names from least to most, for labels that are not numbers.
        methods: classifiers of the features; one with several settings chooses among the labelled images.
        reference: the feature set from which the others are subtracted; the first by default.
        notes: sentences to print under the curve.
        progress: called before each piece of work with what it is, and the share of all work that is done.

    Raises:
        DataError: labels, groups or features that cannot be used; the sentence names rows or classes.
        ConfigError: an option that does not fit.
    """
    target, group, lessons, kept, told = choose_lessons(
        labels,
        groups,
        seed=seed,
        shots=shots,
        repeats=repeats,
        folds=folds,
        draws=draws,
        ordinal=ordinal,
        order=order,
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
        taught=[few * len(target.names) for few in kept],
        folds=folds,
        repeats=repeats,
        scored=len(metrics) * draws * len(group) * len(target.names),
    )
    predictions: Predictions = {}
    for (name, arrays), method, few in product(sets.items(), methods, kept):
        found = predictions[name, method.name, few] = [[] for _ in arrays]
        for place, lesson in product(range(len(arrays)), lessons):
            what = f"{name}, {method.name}, {few} labels per class"
            effort.fitting(what, arrays[place], method, few * len(target.names))
            found[place].append(_predict(method, arrays[place], target, group, lesson, few))
    scores = _score_all(predictions, target, group, metrics, draws=draws, seed=seed, effort=effort)
    names = range(len(target.names))
    return Curve(
        points=tuple(_point(where, *scores[where], sets=len(predictions[where[:3]])) for where in scores),
        differences=tuple(_difference(where, reference, scores) for where in scores if where[0] != reference),
        shots=kept,
        chance={metric: chance(metric, len(target.names)) for metric in metrics},
        classes=tuple(
            LabelClass(
                name=target.names[k],
                images=int((target.codes == k).sum()),
                groups=len(np.unique(group[target.codes == k])),
            )
            for k in names
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
            *told,
            *few_groups_notes(len(np.unique(group))),
            *convergence_notes({_told(names): sets for names, sets in predictions.items()}),
            *undefined_notes(
                {", ".join(_told(names[:3], names[3])): undefined_share(found) for names, (_, found) in scores.items()},
                LEVEL,
            ),
        ),
    )


def choose_lessons(
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any],
    *,
    seed: int,
    shots: Sequence[int],
    repeats: int,
    folds: int,
    draws: int,
    ordinal: bool = False,
    order: Sequence[Any] | None = None,
    methods: Sequence[Method],
) -> tuple[Labels, NDArray[np.str_], list[Lesson], tuple[int, ...], list[str]]:
    """Draw the labelled images of every repeat: all that `label_efficiency` asks before it sees a feature.

    Called before images are embedded, it refuses then what would be refused after hours. Arguments as there.

    Returns:
        The labels, the groups, a lesson per repeat, the numbers of labels that can be reached, and sentences about the rest.

    Raises:
        DataError: labels or groups that cannot be used, or too few for these numbers of labels.
        ConfigError: an option that does not fit.
    """
    target = encode_labels(labels, ordinal=ordinal, order=order)
    group = check_groups(groups, len(target.codes))
    check_draws(group, draws)
    asked = _check_shots(shots, repeats, methods, len(target.names))
    lessons = [choose_lesson(target, group, asked, folds=folds, seed=key(seed, repeat)) for repeat in range(repeats)]
    kept, told = reached(target.names, lessons, asked)
    if any(len(method.settings) > 1 for method in methods):
        check_choosable(target, group, lessons, kept)
    return target, group, lessons, kept, told


def _check_shots(shots: Sequence[int], repeats: int, methods: Sequence[Method], classes: int) -> tuple[int, ...]:
    asked = tuple(sorted(set(shots)))
    if not asked or asked[0] < 1 or repeats < 1:
        raise ConfigError(
            f"expected numbers of labels per class of 1 or more and 1 repeat or more, got {tuple(shots)} and {repeats}."
        )
    for method in methods:
        if asked[0] < 2 and len(method.settings) > 1:
            raise ConfigError(
                f"expected 2 labels per class or more for '{method.name}', which chooses among {len(method.settings)} "
                f"settings on the labelled images, got {asked[0]}: ask for more, or give it one setting."
            )
        meaning = f"{asked[0]} labels of {classes} classes are that many images"
        check_neighbours(method, asked[0] * classes, meaning)
    return asked


def _predict(
    method: Method, features: Features, target: Labels, group: NDArray[np.str_], lesson: Lesson, few: int
) -> OutOfFold:
    return out_of_fold(
        method,
        features,
        target.codes,
        group,
        lesson.fold,
        seed=lesson.seed,
        class_names=target.names,
        taught=lesson.taught[few],
    )


def _score_all(
    predictions: Predictions,
    target: Labels,
    group: NDArray[np.str_],
    metrics: Sequence[str],
    *,
    draws: int,
    seed: int,
    effort: Effort,
) -> Scores:
    """Per (features, method, shots, metric): the score of each choice, (E,), and of each resample, (R,)."""
    plain = np.ones((1, len(group)))
    points = {where: _by_choice(sets, target, metrics, plain)[..., 0] for where, sets in predictions.items()}
    choices = points[next(iter(points))].shape[1]
    share = numpy_rng(seed, "choices").multinomial(choices, np.full(choices, 1 / choices), size=draws).T / choices
    blocks: dict[tuple[str, str, int], list[Floats]] = {where: [] for where in predictions}
    done = 0
    for weights in group_draws(group, draws=draws, seed=seed):  # one block serves every score: differences are paired
        effort.resampling(len(weights) / draws)
        part = share[:, done : done + len(weights)]
        for where, sets in predictions.items():
            blocks[where].append((_by_choice(sets, target, metrics, weights) * part).sum(1))
        done += len(weights)
    return {
        (*where, metric): (points[where][i], np.concatenate(blocks[where], axis=1)[i])
        for where in predictions
        for i, metric in enumerate(metrics)
    }


def _by_choice(
    sets: list[list[OutOfFold]], target: Labels, metrics: Sequence[str], weights: NDArray[np.float64]
) -> Floats:
    """Score every choice of labelled images, averaged over the feature sets, (metrics, E, R)."""
    return np.stack(
        [
            np.mean(
                [[METRICS[m](target.codes, one.probabilities, weights) for one in choices] for choices in sets], axis=0
            )
            for m in metrics
        ]
    )


def _point(where: tuple[str, str, int, str], choices: Floats, resampled: Floats, *, sets: int) -> Point:
    features, method, few, metric = where
    low, high = percentile_interval(resampled, level=LEVEL)
    return Point(
        features=features,
        method=method,
        metric=metric,
        shots=few,
        value=float(choices.mean()),
        low=low,
        high=high,
        spread=float(choices.std(ddof=1)) if len(choices) > 1 else None,
        sets=sets,
    )


def _difference(where: tuple[str, str, int, str], reference: str, scores: Scores) -> PointDifference:
    features, method, few, metric = where
    (choices, resampled), (base_choices, base_resampled) = scores[reference, method, few, metric], scores[where]
    low, high = percentile_interval(resampled - base_resampled, level=LEVEL)
    return PointDifference(
        features=reference,
        baseline=features,
        method=method,
        metric=metric,
        shots=few,
        value=float(choices.mean() - base_choices.mean()),
        low=low,
        high=high,
    )


def _told(names: tuple[str, str, int], *metric: str) -> tuple[str, ...]:
    """The names that a note is under."""
    return (*names[:2], f"{names[2]} labels", *metric)
