"""The probe table: every score with its interval as dot and whisker, baselines beside it, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from core.evaluate.curve import Point, PointDifference
from core.evaluate.table import Difference, Row, Table
from core.report.charts import score, whisker, whisker_axis
from core.report.words import verdict

# What the columns are is plain to the eye; a screen reader is told.
_HEAD = '<thead class="unseen"><tr>{}</tr></thead>'.format(
    "".join(f'<th scope="col">{name}</th>' for name in ("name", "drawn", "score and interval"))
)

Interval = tuple[float, float, float]


def scores(name: str, table: Table) -> str:
    """Draw one evaluation: a verdict in words, a chart per metric, the differences, and how it was measured."""
    metrics = list(dict.fromkeys([*table.chance, *(row.metric for row in table.rows)]))
    tones = _tones([row.features for row in table.rows])
    charts = [draw(table, metric, tones) for metric in metrics for draw in (_metric, _gains)]
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(table))
    parts = [f"<h3>{escape(name)}</h3>" if name else "", said, f'<div class="scores">{"".join(charts)}</div>']
    protocol = "".join(f"<li>{escape(sentence)}</li>" for sentence in table.protocol)
    return "".join([*parts, f'<ul class="how soft">{protocol}</ul>'])


def _tones(features: Sequence[str]) -> dict[str, int]:
    """Give the first feature set, the encoder under test, the first colour, and every baseline one of its own."""
    order = list(dict.fromkeys(features))
    return {name: (1, 2, 0, 3, 4)[i] if i < 5 else 0 for i, name in enumerate(order)}


def _metric(table: Table, metric: str, tones: dict[str, int]) -> str:
    rows = [row for row in table.rows if row.metric == metric]
    chance = table.chance.get(metric)
    axis = axis_of([(r.value, r.low, r.high) for r in rows], chance)
    body = []
    for method in dict.fromkeys(row.method for row in rows):
        body.append(f'<tr><th scope="rowgroup" colspan="3">{escape(method)}</th></tr>')
        for row in rows:
            if row.method == method:
                spread = f" ± {row.spread:.3f} over {row.sets} seeds" if row.spread is not None else ""
                plot = whisker(row.value, row.low, row.high, axis=axis, mark=chance, tone=tones[row.features])
                body.append(line(row.features + spread, plot, row, "{:.3f}", first=tones[row.features] == 1))
    beside = f' <span class="soft">(dashed: chance, {chance:.3f})</span>' if chance is not None else ""
    return score_table(f"{escape(metric)}{beside}", body, axis)


def _gains(table: Table, metric: str, tones: dict[str, int]) -> str:
    found = [d for d in table.differences if d.metric == metric]
    if not found:
        return ""
    axis = axis_of([(d.value, d.low, d.high) for d in found], 0.0)
    body = []
    for method in dict.fromkeys(d.method for d in found):
        body.append(f'<tr><th scope="rowgroup" colspan="3">{escape(method)}</th></tr>')
        for d in found:
            if d.method == method:
                plot = whisker(d.value, d.low, d.high, axis=axis, mark=0.0, tone=tones.get(d.baseline, 0))
                body.append(line(d.baseline, plot, d, "{:+.3f}", first=d.excludes_zero))
    tested = " and ".join(dict.fromkeys(d.features for d in found))
    heading = f"{metric}: {tested} minus baseline"
    return score_table(f'{escape(heading)} <span class="soft">(dashed: no difference)</span>', body, axis)


def line(name: str, plot: str, of: Row | Difference, form: str, *, first: bool) -> str:
    """Give a row of a `score_table`: a name, the whisker of a score, and its numbers."""
    mark = " first" if first else ""
    return (
        f'<tr><th scope="row" class="name{mark}">{escape(name)}</th><td class="plot">{plot}</td>'
        f'<td class="value"><b>{score(of.value, form)}</b> {interval(of, form)}</td></tr>'
    )


def interval(of: Row | Difference | Point | PointDifference, form: str) -> str:
    """Write the interval of a score; nothing where the score itself is not defined."""
    if not math.isfinite(of.value):
        return ""
    if not (math.isfinite(of.low) and math.isfinite(of.high)):
        return "(no interval)"
    return f"[{score(of.low, form)}, {score(of.high, form)}]"


def decimals(values: Iterable[float]) -> str:
    """Choose how numbers of one column are written: with three decimals, or as many as show three digits of the largest."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0 or 0.1 <= largest < 10:
        return "{:.3f}"
    return f"{{:,.{min(12, max(0, 2 - math.floor(math.log10(largest))))}f}}"


def score_table(heading: str, body: Sequence[str], axis: tuple[float, float]) -> str:
    """Give rows under a heading, which is markup, with their common axis below."""
    foot = f'<tr><td class="name"></td><td class="plot">{whisker_axis(axis)}</td><td class="value"></td></tr>'
    return f"<div><h3>{heading}</h3><table>{_HEAD}<tbody>{''.join(body)}</tbody><tfoot>{foot}</tfoot></table></div>"


def axis_of(intervals: Sequence[Interval], mark: float | None) -> tuple[float, float]:
    """Span all intervals and the mark, with a little room on both sides."""
    ends = [v for interval in intervals for v in interval if math.isfinite(v)] + ([] if mark is None else [mark])
    if not ends:
        return 0.0, 1.0
    room = 0.08 * (max(ends) - min(ends)) or 0.05
    return min(ends) - room, max(ends) + room
