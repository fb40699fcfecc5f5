"""The page of a fine-tuning: scores of the test part with their intervals, the training, held-out images, what ran."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from core.config import dump
from core.evaluate.metrics import METRICS, chance
from core.evaluate.table import Row, class_name, interval_notes
from core.report.charts import Curve, line_chart, score, whisker
from core.report.curves import figure, train_curves
from core.report.evaluations import evaluations
from core.report.facts import lines, machine
from core.report.html import Fact, cards, document, folded, leads, legend, notes, section, tiles, warnings
from core.report.panels import panels, with_nodata
from core.report.read import Run, listed, number
from core.report.scores import axis_of, decimals, line, score_table
from core.report.words import counted

_TOLD = 4  # scores in the headline
_ERROR = "Error"
_ONLY_OF = {"maps": "segment", "cloud_widths": "cloud_mask", "ordinal": "classify"}  # options that one task alone has
_HOW = (
    "The test part was scored once, with the weights of the best check on the validation part. Whiskers are 95 % "
    "intervals over groups of the test part (patients, scenes, blocks of the ground): they do not cover another training "
    "seed or another site."
)


def render_finetuned(run: Run, *, title: str, notes: Sequence[str], warnings: Sequence[str], command: str) -> str:
    """Give the whole page of a fine-tuning as text."""
    sections = [
        section("Scores on the test part", _HOW, _scores(run)),
        section("Training", "", _training(run)),
    ]
    if run.panels is not None:
        said = "Images of the test part, from the worst to the best."
        sections.append(section("Held-out images", said, _colours(run.panels) + panels(run)))
    if run.tables or run.curves:
        sections.append(section("What the features are worth", "", evaluations(run)))
    sections += [
        section("What ran", "", cards(_facts(run), command)),
        section("Full configuration", "", folded("config.yaml", dump(run.config))),
    ]
    return document(
        title=title,
        kicker="halfseen fine-tuning report",
        header=_header(run, notes, warnings),
        sections=sections,
        footer=f"Made from the run folder {run.path.resolve().name}.",
    )


def _colours(panels: Mapping[str, Any]) -> str:
    """Give names with their colours, as `panels.json` has them: [[name, [red, green, blue]], ...]; and the missing data."""
    colours = [(class_name(str(name)), (red, green, blue)) for name, (red, green, blue) in listed(panels.get("legend"))]
    return legend(colours, [("nodata", "no data")] if with_nodata(panels) else [])


def _header(run: Run, said: Sequence[str], warned: Sequence[str]) -> str:
    chosen = str(_part(run.config, "training").get("select", ""))
    best = [row for row in run.scores if row.metric.partition(" of ")[0] == chosen] or list(run.scores[:1])
    told = [
        f"Test part: {row.metric} {score(row.value)}, {_between(row)}{_beside(run, row)}."
        for row in best[:_TOLD]
        if math.isfinite(row.value)
    ]
    checks = [(x, y) for x, y in _checks(run, chosen) if math.isfinite(y)]
    entries = [(f"Test {row.metric}", score(row.value), _between(row)) for row in best[:_TOLD]]
    if checks:
        step, value = max(checks, key=lambda check: check[1])
        entries.append((f"Validation {chosen}", score(value), f"best of {len(checks)} checks, at step {step:,.0f}"))
    if run.last_step is not None:
        mode = _part(run.config, "training").get("mode")
        entries.append(
            ("Steps", f"{run.last_step:,}", {"linear": "head alone", "full": "head and encoder"}.get(str(mode), ""))
        )
    classes = (run.head or {}).get("classes") or []
    if len(classes) > 1:
        entries.append(("Classes", str(len(classes)), ""))
    lead = leads(told or ["The test part has no defined score."])
    return lead + notes(said) + warnings((*warned, *run.problems)) + tiles(entries)


def _between(row: Row) -> str:
    if not (math.isfinite(row.low) and math.isfinite(row.high)):
        return "no interval"
    return f"95 % interval {score(row.low)} to {score(row.high)}"


def _blind(run: Run, row: Row) -> float | None:
    """The score of an answer that ignores the image: chance, or what answering the labels' mean explains, which is nothing."""
    head = run.head or {}
    metric, classes = row.metric.partition(" of ")[0], len(listed(head.get("classes")))
    if head.get("task") == "classify" and metric in METRICS and classes > 1:
        return chance(metric, classes)
    return 0.0 if head.get("task") == "regress" and metric == "R2" else None


def _beside(run: Run, row: Row) -> str:
    blind = _blind(run, row)
    return "" if blind is None else f"; {_blind_name(run)}: {score(blind)}"


def _blind_name(run: Run) -> str:
    return "the labels' mean" if (run.head or {}).get("task") == "regress" else "chance"


def _scores(run: Run) -> str:
    """Draw every score on the axis of those that it is comparable with."""
    drawn = []
    for heading, found in _tables(run).items():
        intervals = [(row.value, row.low, row.high) for _, row in found]
        marks = [_blind(run, row) for _, row in found]
        axis = axis_of([*intervals, *((mark, mark, mark) for mark in marks if mark is not None)], None)
        form = decimals(itertools.chain(*intervals)) if heading.startswith(_ERROR) else "{:.3f}"
        body = []
        for (name, row), mark in zip(found, marks, strict=True):
            plot = whisker(row.value, row.low, row.high, axis=axis, mark=mark, tone=1)
            body.append(line(name, plot, row, form, first=False))
        beside = f' <span class="soft">(dashed: {escape(_blind_name(run))})</span>'
        dashed = beside if any(mark is not None for mark in marks) else ""
        drawn.append(score_table(f"{escape(heading)}{dashed}", body, axis))
    said = "".join(f'<p class="soft">{escape(sentence)}</p>' for sentence in interval_notes(run.scores))
    return (
        f'<div class="scores">{"".join(drawn)}</div>{said}' if drawn else '<p class="soft">No scores were written.</p>'
    )


def _tables(run: Run) -> dict[str, list[tuple[str, Row]]]:
    """Sort scores under headings, each with its name there: all shares of 1, those of each class, errors in one unit."""
    head = run.head or {}
    numbers, units = listed(head.get("classes")), listed(head.get("units"))
    unit_of = dict(zip(numbers, units, strict=True)) if len(numbers) == len(units) else {}
    tables: dict[str, list[tuple[str, Row]]] = {}
    for row in run.scores:
        metric, _, of = row.metric.partition(" of ")
        if head.get("task") != "regress":
            heading, name = (f"{metric} by class", class_name(of)) if of else ("All together", metric)
        elif metric == "R2":
            heading, name = "Explained share of the variance", row.metric
        else:
            unit = unit_of.get(of or (numbers[0] if len(numbers) == 1 else None))
            heading = f"{_ERROR}{f' of {of}' if of else ''}, {f'in {unit}' if unit else 'in the unit of the labels'}"
            name = metric
        tables.setdefault(heading, []).append((name, row))
    return tables


def _checks(run: Run, metric: str) -> list[tuple[float, float]]:
    return [(float(event["step"]), number(_part(event, "scores").get(metric))) for event in run.validations]


def _training(run: Run) -> str:
    figures = []
    for name, heading in (
        ("loss", "Training loss"),
        ("lr", "Learning rate"),
        ("grad_norm", "Gradient norm before clipping"),
    ):
        curves = train_curves(run.curve("step", "all", name), "train", 1, smoothed=name != "lr")
        figures.append(figure(heading, curves, from_zero=name == "lr"))
    head = run.head or {}
    several = head.get("task") == "regress" and len(listed(head.get("classes"))) > 1
    averaged = ", mean over the numbers" if several else ""
    for metric in _checked(run):
        curve = Curve("validation", _checks(run, metric), 2, dots=len(run.validations) <= 40)
        figures.append(figure(f"Validation: {metric}{averaged}", [curve]) if line_chart([curve], label="") else "")
    return f'<div class="charts">{"".join(figures)}</div>' if any(figures) else '<p class="soft">Not logged.</p>'


def _checked(run: Run) -> list[str]:
    """Name the scores of checks that apply: those that the test part has too, and the one that chose.

    A check is scored by all metrics of its kind of labels, such as one for grades where the classes have no order.
    """
    names = dict.fromkeys(name for event in run.validations for name in _part(event, "scores"))
    apply = {row.metric.partition(" of ")[0] for row in run.scores} | {_part(run.config, "training").get("select")}
    return [name for name in names if name in apply] if run.scores else list(names)


def _facts(run: Run) -> list[tuple[str, list[Fact]]]:
    """Sort the options of the config: what was looked at, how it was trained, and what came out."""
    head = run.head or {}
    images, training = _part(run.config, "images"), _part(run.config, "training")
    task = head.get("task")
    rest = {
        name: value
        for name, value in run.config.items()
        if name not in ("images", "training") and _ONLY_OF.get(name, task) == task
    }
    model = {"task": task, "numbers" if task == "regress" else "classes": head.get("classes")}
    model |= {name: head.get(name) for name in ("units", "pool")}
    about = dict(_part(head, "about"))
    split = about.pop("split", None)  # the sentence; the option of this name says what words mean
    model |= {"head": head.get("spec"), "encoder size": run.stored_values, **about}
    named: list[tuple[str, list[Fact]]] = [
        ("Data", [*_counts(run), *lines({"parts": split}), *lines(images)]),
        ("Task", lines(rest)),
        ("Training", lines(training)),
        ("Model", lines(model)),
    ]
    if run.env:
        named.append(("Machine and versions", machine(run)))
    return [(name, found) for name, found in named if found]


def _counts(run: Run) -> list[Fact]:
    """Count the images, and the labelled ones of each part where images are what is dealt to parts."""
    if run.data is None:
        return []
    splits = run.data.splits
    parts = [part for part in ("train", "validation", "test") if part in splits]
    return [
        *((kind, f"{count:,}") for kind, count in run.data.images.items()),
        *((part, f"{splits[part][0]:,} with a label, in {counted(splits[part][1], 'group')}") for part in parts),
    ]


def _part(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}
