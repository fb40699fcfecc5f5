"""The table of scores with intervals, beside its baselines; as text, Markdown, JSON or on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from core.errors import DataError

FEW_GROUPS = 20
"""Groups below which every table and page says that its intervals are too narrow."""
COVERAGE = {5: 0.80, 10: 0.86, 20: 0.92, 50: 0.94}
"""By number of groups, how often a 95 % interval held the truth: the mean over six scores of `benchmarks.coverage`."""

Grid = tuple[list[str], list[list[str]]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score.

    Attributes:
        features: name of the feature set, such as `encoder`.
        method: `k-NN` or `linear probe`.
        metric: `balanced accuracy`, `AUROC` or `quadratic kappa`.
        value: the score of all out-of-fold predictions; the mean over feature sets and repeats where there are several.
        low: lower end of the interval over groups, NaN where there is none,
        high: and its upper end.
        sets: feature sets (training or initialisation seeds) behind the value.
        spread: standard deviation over those sets; None for a single one. Not part of the interval.
        undefined: share of the resamples that do not define the score; see `core.evaluate.intervals`.
        groups: how many groups were resampled; 0 = not known.
    """

    features: str
    method: str
    metric: str
    value: float
    low: float
    high: float
    sets: int = 1
    spread: float | None = None
    undefined: float = 0.0
    groups: int = 0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better `features` scores than `baseline` on the same resamples of the same images (paired)."""

    features: str
    baseline: str
    method: str
    metric: str
    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class LabelClass:
    """One class of the labels and how much of it there was."""

    name: str
    images: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """Every score of one evaluation, and what a reader needs to judge it.

    Attributes:
        rows: scores.
        differences: the first feature set minus each other one.
        chance: per metric, the score of an answer that ignores the image.
        classes: the labels.
        images: M.
        groups: independent units (patients, scenes, slides).
        folds: of the outer cross-validation.
        repeats: assignments of folds.
        draws: bootstrap resamples.
        level: of the intervals, 0.95.
        seed: of folds and resamples.
        notes: sentences about anything that happened and a reader should know.
    """

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
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

    def row(self, features: str, method: str, metric: str) -> Row:
        """Find one score.

        Raises:
            KeyError: there is none of that name.
        """
        for row in self.rows:
            if (row.features, row.method, row.metric) == (features, method, metric):
                return row
        raise KeyError(f"{features}, {method}, {metric}")

    @property
    def protocol(self) -> tuple[str, ...]:
        """Say in sentences how the scores came about and what their intervals mean."""
        chance = ", ".join(f"{name} {value:.3f}" for name, value in self.chance.items())
        times = "" if self.repeats == 1 else f", repeated {self.repeats} times"
        return (
            f"{self.images} images in {self.groups} groups; images per class in groups: {of_classes(self.classes)}.",
            f"Frozen features; {self.folds}-fold cross-validation that never splits a group{times}; every image is "
            "scored by a model that saw none of its group. Regularisation was chosen inside each training side.",
            f"[low, high]: {self.level:.0%} percentile bootstrap over groups, {self.draws} draws, seed {self.seed}. It "
            "covers the choice of test groups, not another training seed, other folds or another site.",
            f"Chance: {chance}.",
            *self.notes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain lists, dicts, numbers and strings; the inverse is `from_json`."""
        return asdict(self)

    def to_json(self) -> str:
        """Give JSON text; a number that is not defined becomes null."""
        return json.dumps(nan_to_none(self.to_dict()), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Table:
        """Read what `to_json` wrote.

        Raises:
            DataError: it is not such a table; the message names `source`.
        """
        try:
            fields = json.loads(text)
            for name, kind in (("rows", Row), ("differences", Difference), ("classes", LabelClass)):
                fields[name] = tuple(kind(**none_to_nan(entry)) for entry in fields[name])
            return cls(**{**fields, "notes": tuple(fields["notes"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{source}: expected an evaluation table in JSON, got something else ({error}).") from error

    def __str__(self) -> str:
        return "\n".join(self.to_lines())

    def to_lines(self) -> list[str]:
        """Give one aligned plain line per score and per difference, then the protocol."""
        scores = [(r.features, r.method, f"{r.metric} {_score(r)}{_sets(r)}") for r in self.rows]
        gains = [(f"{d.features} minus {d.baseline}", d.method, f"{d.metric} {_signed(d)}") for d in self.differences]
        wide = [max((len(line[i]) for line in scores + gains), default=0) for i in (0, 1)]
        lines = [f"{first:<{wide[0]}}  {second:<{wide[1]}}  {third}" for first, second, third in scores + gains]
        differences = ["", *lines[len(scores) :]] if gains else []
        return [*lines[: len(scores)], *differences, "", *self.protocol]

    def to_markdown(self) -> str:
        """Give two Markdown tables (scores, differences), one column per metric, and the protocol as a list."""
        parts = [markdown_table(head, body) for head, body in self._grids() if body]
        return "\n\n".join([*parts, "\n".join(f"- {line}" for line in self.protocol)]) + "\n"

    def print(self, file: TextIO | None = None) -> None:
        """Print for people: ruled tables on a terminal, plain lines elsewhere."""
        print_grids(file, str(self), [grid for grid in self._grids() if grid[1]], self.protocol)

    def _grids(self) -> list[Grid]:
        metrics = list(self.chance)
        scores: dict[tuple[str, str], dict[str, str]] = {}
        for r in self.rows:
            scores.setdefault((r.features, r.method), {})[r.metric] = _score(r) + _sets(r)
        gains: dict[tuple[str, str], dict[str, str]] = {}
        for d in self.differences:
            gains.setdefault((f"{d.features} minus {d.baseline}", d.method), {})[d.metric] = _signed(d)
        return [
            (
                [title, "method", *metrics],
                [[*names, *(cells.get(m, "") for m in metrics)] for names, cells in grid.items()],
            )
            for title, grid in (("features", scores), ("difference", gains))
        ]


def _score(row: Row) -> str:
    return with_interval(row.value, row.low, row.high)


def _signed(difference: Difference) -> str:
    return with_interval(difference.value, difference.low, difference.high, sign="+")


def _sets(row: Row) -> str:
    return "" if row.spread is None else f" ({row.sets} seeds, sd {row.spread:.3f})"


def class_name(name: str) -> str:
    """Give a class's name as a reader meets it: `class 2` of one that is called by a number."""
    return name if any(letter.isalpha() for letter in name) else f"class {name}"


def of_classes(classes: Sequence[LabelClass]) -> str:
    """Count the images and groups of each class, in words."""
    return ", ".join(f"{class_name(c.name)}: {c.images} in {c.groups}" for c in classes)


def with_interval(value: float, low: float, high: float, *, sign: str = "") -> str:
    """Write a score and its interval, with a `sign` of "+" those of a difference."""
    if not math.isfinite(value):
        return "not defined"
    bounds = f"[{low:{sign}.3f}, {high:{sign}.3f}]" if math.isfinite(low) and math.isfinite(high) else "(no interval)"
    return f"{value:{sign}.3f} {bounds}"


def interval_notes(rows: Sequence[Row]) -> list[str]:
    """Say what limits the intervals of one model's scores, which rest on the same groups."""
    groups = min((row.groups for row in rows), default=0)
    return [*few_groups_notes(groups), *undefined_notes({row.metric: row.undefined for row in rows})]


def few_groups_notes(groups: int) -> list[str]:
    """Say that intervals over so few groups are too narrow, as far as that is known."""
    if not 0 < groups < FEW_GROUPS:
        return []
    held = ", ".join(f"{100 * share:.0f} % with {few}" for few, share in COVERAGE.items())
    return [
        f"The intervals rest on {groups} groups. With fewer than {FEW_GROUPS} they are too narrow: of simulated 95 % "
        f"intervals {held} groups held the truth."
    ]


def gives_none(undefined: float, level: float) -> bool:
    """Whether so large a share of undefined resamples leaves no interval of this level."""
    return undefined > 1 - level + 1e-9  # rounding: 5 of 100 do leave one of 95 %


def undefined_notes(shares: Mapping[str, float], level: float = 0.95) -> list[str]:
    """Say which scores some resamples do not define, by name and share of the resamples; names of one share together."""
    alike: dict[float, list[str]] = {}
    for name, share in shares.items():
        if share:
            alike.setdefault(share, []).append(name)
    too_few = "so there is no interval: too few groups decide the score"
    return [
        f"{'; '.join(names)}: not defined in {100 * share:.3g} % of the resamples, "
        f"{too_few if gives_none(share, level) else 'which are left out'}."
        for share, names in alike.items()
    ]


def print_grids(file: TextIO | None, text: str, grids: Sequence[Grid], protocol: Sequence[str]) -> None:
    """Print ruled tables, heads and bodies, and the protocol on a terminal; the plain text elsewhere."""
    out = sys.stdout if file is None else file
    if not out.isatty():
        out.write(f"{text}\n")
        return
    from rich.console import Console  # here: only a terminal needs them
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=out)
    for head, body in grids:
        drawn = RichTable(*head)
        for cells in body:
            drawn.add_row(*(Text(cell) for cell in cells))
        console.print(drawn)
    for line in protocol:
        console.print(line, style="dim", markup=False, highlight=False)


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    """Write one Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def nan_to_none(value: Any) -> Any:
    """Replace every NaN in plain lists and dicts: JSON has none."""
    if isinstance(value, dict):
        return {key: nan_to_none(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [nan_to_none(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value


def none_to_nan(entry: dict[str, Any]) -> dict[str, Any]:
    """Undo `nan_to_none` in the fields of one score; a `spread` of None means that there is none."""
    return {key: float("nan") if value is None and key != "spread" else value for key, value in entry.items()}
