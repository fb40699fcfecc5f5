"""Which labelled images a method is taught with, where there are to be so many per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from core.evaluate.folds import Ints, assign_folds, inner_folds, inner_seed
from core.evaluate.inputs import Labels
from core.rng import key, numpy_rng


@dataclass(frozen=True)
class Lesson:
    """One choice of folds and of labelled images.

    Attributes:
        seed: of the folds, the choice and the inner folds.
        fold: (M,) in which fold each image is tested.
        taught: shots -> fold -> (M,) True for the images that are learnt from.
        available: (folds, K) images of each class outside each fold.
    """

    seed: int
    fold: Ints
    taught: dict[int, dict[int, NDArray[np.bool_]]]
    available: Ints


def choose_lesson(target: Labels, group: NDArray[np.str_], shots: Sequence[int], *, folds: int, seed: int) -> Lesson:
    """Assign folds, and draw for each of them the images of the others that are learnt from; fewer are a part of more.

    Raises:
        DataError: a class with fewer groups than folds.
    """
    fold = assign_folds(target.codes, group, folds=folds, seed=seed, class_names=target.names)
    numbers = [int(number) for number in np.unique(fold)]
    taught = {few: {number: np.zeros(len(fold), dtype=bool) for number in numbers} for few in shots}
    available = np.zeros((len(numbers), len(target.names)), dtype=np.int64)
    for (place, number), label in product(enumerate(numbers), range(len(target.names))):
        rows = np.flatnonzero((fold != number) & (target.codes == label))
        rows = rows[drawn_order(group[rows], seed=key(seed, "labelled", number, label))]
        available[place, label] = len(rows)
        for few in shots:
            taught[few][number][rows[:few]] = True
    return Lesson(seed, fold, taught, available)


def drawn_order(groups: NDArray[np.str_], *, seed: int) -> Ints:
    """Order images (n,) at random, one of every group first, then a second one of every group that has two, and so on.

    Whoever labels five images takes five patients, not five images of one; and a setting can be chosen on two groups.
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = numpy_rng(seed)
    place = rng.permutation(len(names))[member]
    shuffled = np.lexsort((rng.random(len(groups)), place))
    starts = np.flatnonzero(np.r_[True, np.diff(place[shuffled]) > 0])
    turn = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return shuffled[np.lexsort((place[shuffled], turn))]


def reached(names: Sequence[str], lessons: Sequence[Lesson], asked: Sequence[int]) -> tuple[tuple[int, ...], list[str]]:
    """Keep the numbers of labels that some class has in every fold, and say which classes have fewer.

    Raises:
        DataError: no number is left.
    """
    fewest = np.concatenate([lesson.available for lesson in lessons]).min(0)
    kept = tuple(few for few in asked if few <= fewest.max())
    if not kept:
        raise DataError(
            f"expected a class with {asked[0]} labelled images or more outside every fold, but none has more than "
            f"{fewest.max()}: ask for fewer labels per class."
        )
    told = [
        f"{few} labels per class: left out, as no class has more than {fewest.max()} images outside its fold."
        for few in asked
        if few not in kept
    ]
    for name, count in zip(names, fewest, strict=True):
        short = [str(few) for few in kept if few > count]
        if short:
            told.append(
                f"Class '{name}' has {count} images outside some fold: where {' or '.join(short)} are asked for, it "
                "gives all that it has."
            )
    return kept, told


def check_choosable(target: Labels, group: NDArray[np.str_], lessons: Sequence[Lesson], kept: Sequence[int]) -> None:
    """Make every inner assignment of folds once, so that what cannot be chosen on is refused before any fit.

    Raises:
        DataError: a class whose labelled images are of one group.
    """
    for lesson, few in product(lessons, kept):
        for number, rows in lesson.taught[few].items():
            seed = inner_seed(lesson.seed, number)
            inner_folds(target.codes[rows], group[rows], seed=seed, class_names=target.names)
