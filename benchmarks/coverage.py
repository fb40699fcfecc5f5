"""How often a 95 % interval over groups holds the truth, by the number of groups: what a reader may believe of it.

    python -m benchmarks.coverage [--groups 5 10 20 50 100] [--trials 1000] [--json FILE] [--check]

Drawn answers of a classifier (two classes, scores near each other within a group) and of a regression, scored as
`domains.<x>.finetune` scores its test part; the truth is the score of 200,000 groups of one image. An interval that is not
given, since too many resamples do not define the score, counts neither way. `core.evaluate.table.COVERAGE` has the means
over all scores. Gate: at least 90 % from 50 groups on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import machine, publish
from core.evaluate.held_out import held_out_scores
from core.evaluate.metrics import METRICS
from core.evaluate.regression import NUMBER_METRICS, regression_scores
from core.evaluate.table import Row

SHARED = 0.5
"""Share of the variance of an image's scores that is its group's."""
FLOOR, ENOUGH = 0.9, 50
Floats = np.ndarray


def _noise(rng: np.random.Generator, groups: int, images: int, columns: int) -> Floats:
    together = np.repeat(rng.standard_normal((groups, columns)), images, axis=0)
    return SHARED**0.5 * together + (1 - SHARED) ** 0.5 * rng.standard_normal((groups * images, columns))


def classified(rng: np.random.Generator, groups: int, images: int) -> tuple[Floats, Floats]:
    """Draw classes (M,), one per group, and probabilities (M, 2)."""
    codes = np.repeat(rng.integers(0, 2, groups), images)
    scores = _noise(rng, groups, images, 2)
    scores[np.arange(len(codes)), codes] += 1.0
    odds = np.exp(scores)
    return codes, odds / odds.sum(1, keepdims=True)


def measured(rng: np.random.Generator, groups: int, images: int) -> tuple[Floats, Floats]:
    """Draw labels and answers, (M, 1) each."""
    truth = _noise(rng, groups, images, 1)
    return truth, 0.7 * truth + 0.5 * _noise(rng, groups, images, 1)


def _classes(codes: Floats, likely: Floats, groups: list[str], **options: Any) -> list[Row]:
    return held_out_scores(codes, likely, groups, ordinal=True, **options)


def _numbers(truth: Floats, answers: Floats, groups: list[str], **options: Any) -> list[Row]:
    return regression_scores(truth, answers, groups, ["number"], **options)


def coverage(
    draw: Callable[..., tuple[Floats, Floats]],
    score: Callable[..., list[Row]],
    truth: dict[str, float],
    groups: int,
    images: int,
    trials: int,
    draws: int,
) -> list[dict[str, Any]]:
    """Score so many drawn test parts; give a record per metric."""
    held, given = defaultdict(int), defaultdict(int)
    for trial in range(trials):
        first, second = draw(np.random.default_rng([trial, groups, images]), groups, images)
        names = [str(group) for group in np.repeat(np.arange(groups), images)]
        for row in score(first, second, names, features="", method="", draws=draws, seed=trial):
            given[row.metric] += bool(np.isfinite(row.low))
            held[row.metric] += bool(row.low <= truth[row.metric] <= row.high)
    where = {"groups": groups, "images_per_group": images, "trials": trials}
    return [
        {**where, "metric": name, "given": given[name], "holds": round(held[name] / max(given[name], 1), 3)}
        for name in truth
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[5, 10, 20, 50, 100], help="how many")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4], help="per group")
    parser.add_argument("--trials", type=int, default=1000, help="drawn test parts for each")
    parser.add_argument("--draws", type=int, default=1000, help="resamples of an interval")
    parser.add_argument("--json", type=Path, help="append one JSON line per record to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when the gate does not hold")
    options = parser.parse_args()
    torch.set_num_threads(1)
    once, rng = np.ones((1, 200_000)), np.random.default_rng(0)
    codes, likely = classified(rng, 200_000, 1)
    truth, answers = (column[:, 0] for column in measured(rng, 200_000, 1))
    kinds = (
        (classified, _classes, {name: float(metric(codes, likely, once)[0]) for name, metric in METRICS.items()}),
        (measured, _numbers, {name: float(each(truth, answers, once)[0]) for name, each in NUMBER_METRICS.items()}),
    )
    records = [
        record
        for draw, score, true in kinds
        for groups in options.groups
        for images in options.images
        for record in coverage(draw, score, true, groups, images, options.trials, options.draws)
    ]
    records += [
        {"groups": groups, "metric": "mean of all", "holds": round(float(np.mean(held)), 3)}
        for groups in options.groups
        if (held := [each["holds"] for each in records if each["groups"] == groups and each["given"]])
    ]
    publish(records, {"date": time.strftime("%Y-%m-%d"), "machine": machine(torch.device("cpu"))}, options.json)
    missed = [record for record in records if record["groups"] >= ENOUGH and record["holds"] < FLOOR]
    for record in missed:
        print(f"  MISSED {record['metric']}, {record['groups']} groups: {record['holds']}", file=sys.stderr)
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
