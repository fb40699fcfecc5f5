"""Scores over the number of labels per class: as text, Markdown, JSON or on a terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TextIO

from core.errors import DataError
from core.evaluate.table import (
    Grid,
    LabelClass,
    markdown_table,
    nan_to_none,
    none_to_nan,
    of_classes,
    print_grids,
    with_interval,
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One score of one feature set with so many labels.

    Attributes:
        features: name of the feature set, such as `encoder`.
        method: `k-NN` or `linear probe`.
        metric: `balanced accuracy`, `AUROC` or `quadratic kappa`.
        shots: labelled images per class that the method learnt from.
        value: the mean over choices of labelled images, and over feature sets where there are several.
        low: lower end of the interval over choices of labelled images and test groups, NaN where there is none,
        high: and its upper end.
        spread: standard deviation over choices of labelled images; None for a single one.
        sets: feature sets (training or initialisation seeds) behind the value.
    """

    features: str
    method: str
    metric: str
    shots: int
    value: float
    low: float
    high: float
    spread: float | None = None
    sets: int = 1


@dataclass(frozen=True, kw_only=True)
class PointDifference:
    """How much better `features` scores than `baseline` with the same labelled images on the same resamples (paired)."""

    features: str
    baseline: str
    method: str
    metric: str
    shots: int
    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Every score over the number of labels, and what a reader needs to judge it.

    Attributes:
        points: scores.
        differences: the reference feature set minus each other one.
        shots: numbers of labels per class, ascending.
        chance: per metric, the score of an answer that ignores the image.
        classes: the labels.
        images: M.
        groups: independent units (patients, scenes, slides).
        folds: of the outer cross-validation.
        repeats: choices of folds and labelled images.
        draws: bootstrap resamples.
        level: of the intervals, 0.95.
        seed: of folds, choices and resamples.
        notes: sentences about anything that happened and a reader should know.
    """

    points: tuple[Point, ...]
    differences: tuple[PointDifference, ...]
    shots: tuple[int, ...]
    chance: dict[str, float]
    classes: tuple[LabelClass, ...]
    images: int
    groups: int
    folds: int
    repeats: int
    draws: int
    level: float
    seed: int
    notes: tuple[str, ...] = ()

    def point(self, features: str, method: str, metric: str, shots: int) -> Point:
        """Find one score.

        Raises:
            KeyError: there is none of that name.
        """
        for point in self.points:
            if (point.features, point.method, point.metric, point.shots) == (features, method, metric, shots):
                return point
        raise KeyError(f"{features}, {method}, {metric}, {shots} labels per class")

    @property
    def protocol(self) -> tuple[str, ...]:
        """Say in sentences how the scores came about and what their intervals mean."""
        chance = ", ".join(f"{name} {value:.3f}" for name, value in self.chance.items())
        several = self.repeats > 1
        times = f", repeated {self.repeats} times" if several else ""
        over = (
            f"over test groups and over the {self.repeats} choices of labelled images"
            if several
            else "over test groups"
        )
        spread = "; sd: over those choices" if several else ""
        left_out = "" if several else "another choice of labelled images, "
        return (
            f"{self.images} images in {self.groups} groups; images per class in groups: {of_classes(self.classes)}.",
            f"Frozen features; {self.folds}-fold cross-validation that never splits a group{times}. For each fold so many "
            "images per class are drawn from the others, from as many groups as possible; their labels are learnt from, "
            "and every image of the fold is scored. Fewer labels are a part of more, all feature sets learn from the same, "
            "and regularisation was chosen on them alone.",
            f"[low, high]: {self.level:.0%} percentile bootstrap {over}, {self.draws} draws, seed {self.seed}{spread}. It "
            f"does not cover {left_out}another training seed or another site.",
            f"Chance: {chance}.",
            *self.notes,
        )

    def to_json(self) -> str:
        """Give JSON text; a number that is not defined becomes null. The inverse is `from_json`."""
        return json.dumps(nan_to_none(asdict(self)), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Curve:
        """Read what `to_json` wrote.

        Raises:
            DataError: it is not such a curve; the message names `source`.
        """
        try:
            fields = json.loads(text)
            for name, kind in (("points", Point), ("differences", PointDifference), ("classes", LabelClass)):
                fields[name] = tuple(kind(**none_to_nan(entry)) for entry in fields[name])
            return cls(**{**fields, "shots": tuple(fields["shots"]), "notes": tuple(fields["notes"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{source}: expected a label-efficiency curve in JSON, got something else ({error})."
            ) from error

    def __str__(self) -> str:
        return "\n".join(self.to_lines())

    def to_lines(self) -> list[str]:
        """Give one aligned plain line per score and per difference, then the protocol."""
        names = [[p.features, p.method, p.metric, f"{p.shots} labels", _score(p)] for p in self.points]
        gains = [
            [f"{d.features} minus {d.baseline}", d.method, d.metric, f"{d.shots} labels", _signed(d)]
            for d in self.differences
        ]
        wide = [max((len(line[i]) for line in names + gains), default=0) for i in range(3)]
        said = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>10}  {e}" for a, b, c, d, e in names + gains]
        apart = ["", *said[len(names) :]] if gains else []
        return [*said[: len(names)], *apart, "", *self.protocol]

    def to_markdown(self) -> str:
        """Give two Markdown tables per metric (scores, differences), one column per number of labels, and the protocol."""
        parts = [markdown_table(head, body) for head, body in self._grids()]
        return "\n\n".join([*parts, "\n".join(f"- {line}" for line in self.protocol)]) + "\n"

    def print(self, file: TextIO | None = None) -> None:
        """Print for people: ruled tables on a terminal, plain lines elsewhere."""
        print_grids(file, str(self), self._grids(), self.protocol)

    def _grids(self) -> list[Grid]:
        grids: list[Grid] = []
        columns = [f"{shots} labels" for shots in self.shots]
        for metric in self.chance:
            scores: dict[tuple[str, str], dict[int, str]] = {}
            for p in self.points:
                if p.metric == metric:
                    scores.setdefault((p.features, p.method), {})[p.shots] = _score(p)
            gains: dict[tuple[str, str], dict[int, str]] = {}
            for d in self.differences:
                if d.metric == metric:
                    gains.setdefault((f"{d.features} minus {d.baseline}", d.method), {})[d.shots] = _signed(d)
            for cells in (scores, gains):
                body = [[*names, *(found.get(shots, "") for shots in self.shots)] for names, found in cells.items()]
                if body:
                    grids.append(([metric, "method", *columns], body))
        return grids


def _score(point: Point) -> str:
    spread = "" if point.spread is None else f" (sd {point.spread:.3f})"
    return with_interval(point.value, point.low, point.high) + spread


def _signed(difference: PointDifference) -> str:
    return with_interval(difference.value, difference.low, difference.high, sign="+")
