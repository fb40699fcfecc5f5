"""Percentile bootstrap over groups: how far a score could move with other patients, scenes or slides.

With few groups it is too narrow, as every percentile bootstrap is: `core.evaluate.table.COVERAGE` has measured numbers.

What such an interval covers: the choice of test groups, with everything else as it was. What it does not cover: another
training seed of the encoder, another assignment of folds, another hospital or sensor. Spread over training seeds is
shown beside the interval where a row was given several feature sets (`core.evaluate.table.Row.spread`).

Groups, not images, are drawn, because images of one group resemble each other: resampling them one by one would pretend
to have more evidence than there is (Field, Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x: cluster bootstrap).

A resample may not define a score: it has drawn no group of the one class, say. Where that happens in more than 1 - level
of all resamples, those that are left could not hold the level that an interval claims, and there is none: of a class that
lives in one group every remaining resample would say the same, and the interval would have no width. Means over classes
leave out, in each resample, the classes that it does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, DataError
from core.evaluate.table import Row, gives_none
from core.rng import numpy_rng

Floats = NDArray[np.float64]

CHUNK = 1_000_000
"""Weights held at once, in numbers of 8 bytes: bounds a bootstrap's memory, and about what a processor's cache holds."""


def group_draws(groups: Sequence[str] | NDArray[np.str_], *, draws: int, seed: int) -> Iterator[Floats]:
    """Resample the groups with replacement, `draws` times: yields blocks (R, M) of how often each image counts.

    A pure function of the set of groups, `draws` and `seed`: the order of the images does not matter, and two callers
    with the same arguments get the same draws, which is what makes differences paired.

    Raises:
        DataError: a single group, from which no interval can come.
        ConfigError: fewer than 100 draws, too few for a 2.5 % percentile.
    """
    check_draws(groups, draws)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rng = numpy_rng(seed, "bootstrap")
    block = max(1, CHUNK // len(member))
    share = np.full(len(names), 1.0 / len(names))
    for start in range(0, draws, block):
        counts = rng.multinomial(len(names), share, size=min(block, draws - start))
        yield counts.T.astype(np.float64)[member].T  # one image's draws lie together, as scores add up images


def check_draws(groups: Sequence[str] | NDArray[np.str_], draws: int) -> None:
    """Refuse what cannot be resampled; `group_draws` says so too, but only when its first block is asked for.

    Raises:
        DataError: a single group, from which no interval can come.
        ConfigError: fewer than 100 draws, too few for a 2.5 % percentile.
    """
    names = np.unique(np.asarray(groups))
    if len(names) < 2:
        raise DataError(
            f"expected at least 2 groups to resample, got {len(names)} ('{names[0] if len(names) else ''}'): "
            "give the column that names the patient, scene or slide of each image."
        )
    if draws < 100:
        raise ConfigError(f"expected at least 100 bootstrap draws for a 95 % interval, got {draws}: use 1000 or more.")


def percentile_interval(samples: Floats, *, level: float = 0.95) -> tuple[float, float]:
    """Give the central `level` of bootstrap samples (R,), leaving out draws in which the score is not defined (NaN).

    Efron 1979, doi 10.1214/aos/1176344552. Deviations: NaN, NaN where more than 1 - level of the draws do not define it.
    """
    defined = samples[np.isfinite(samples)]
    if gives_none(undefined_share(samples), level):
        return float("nan"), float("nan")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def undefined_share(samples: Floats) -> float:
    """Give the share of bootstrap samples (R,) that are not defined."""
    return float(np.mean(~np.isfinite(samples)))


def interval_rows(
    scores: Mapping[str, Callable[[Floats], Floats]],
    groups: Sequence[str] | NDArray[np.str_],
    *,
    features: str,
    method: str,
    draws: int,
    seed: int,
) -> list[Row]:
    """Give each score of all M images with its 95 % percentile bootstrap interval over groups.

    Args:
        scores: by name; each takes weights (R, M) and gives (R,).
        groups: (M,) patient, scene, slide or block.
        features: what to call the model in the rows.
        method: how it was trained.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        DataError: a single group.
    """
    found: dict[str, list[Floats]] = {name: [] for name in scores}
    for weights in group_draws(groups, draws=draws, seed=seed):
        for name, score in scores.items():
            found[name].append(score(weights))
    once, rows = np.ones((1, len(groups))), []
    for name, score in scores.items():
        samples = np.concatenate(found[name])
        low, high = percentile_interval(samples)
        rows.append(
            Row(
                features=features,
                method=method,
                metric=name,
                value=float(score(once)[0]),
                low=low,
                high=high,
                undefined=undefined_share(samples),
                groups=len(np.unique(np.asarray(groups))),
            )
        )
    return rows
