"""The label-efficiency curve on the page: scores over the number of labels with intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from core.evaluate.curve import Curve, Point, PointDifference
from core.report.charts import HEIGHT, WIDTH, score, tick_texts, ticks
from core.report.scores import interval

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 10, 42
_DODGE = 5.0  # pixels between the dots of neighbouring feature sets, so that no interval hides another


def efficiency(name: str, curve: Curve) -> str:
    """Draw one curve: a verdict in words, a chart for each metric and method, the differences, and how it was measured."""
    tones = {features: (1, 2, 0, 3, 4)[min(i, 4)] for i, features in enumerate(_in_order(curve.points))}
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(curve))
    charts = [_figure(curve, metric, method, tones) for metric in curve.chance for method in _methods(curve)]
    protocol = "".join(f"<li>{escape(sentence)}</li>" for sentence in curve.protocol)
    heading = f"Labels per class{f': {name}' if name else ''}"
    parts = [f'<h3 class="apart">{escape(heading)}</h3>', said, f'<div class="charts">{"".join(charts)}</div>']
    return "".join([*parts, _gains(curve), f'<ul class="how soft">{protocol}</ul>'])


def verdict(curve: Curve) -> list[str]:
    """Count, per baseline and number of labels, the scores on which the reference is better, worse or undecided."""
    sentences = []
    for baseline in dict.fromkeys(d.baseline for d in curve.differences):
        parts = []
        for shots in curve.shots:
            against = [d for d in curve.differences if d.baseline == baseline and d.shots == shots]
            better = sum(d.excludes_zero and d.value > 0 for d in against)
            worse = sum(d.excludes_zero and d.value < 0 for d in against)
            counts = ((better, "better"), (worse, "worse"), (len(against) - better - worse, "undecided"))
            told = ", ".join(f"{word} on {count} of {len(against)} scores" for count, word in counts if count)
            parts.append(f"with {shots} labels per class {told}")
        reference = curve.differences[0].features
        sentences.append(f"{reference.capitalize()} against {baseline}: {'; '.join(parts)}.")
    return sentences


def chart(points: Sequence[Point], *, chance: float | None, tones: dict[str, int], label: str) -> str:
    """Draw scores over labels per class, logarithmic, with their intervals; empty text without a defined score."""
    ends = [v for p in points for v in (p.value, p.low, p.high) if math.isfinite(v)]
    if not ends:
        return ""
    ends += [] if chance is None else [chance]
    room = 0.05 * (max(ends) - min(ends)) or 0.05
    low, high = min(ends) - room, max(ends) + room
    shots = sorted({p.shots for p in points})
    span = math.log(shots[-1] / shots[0]) or 1.0

    def across(few: int) -> float:
        share = math.log(few / shots[0]) / span if len(shots) > 1 else 0.5
        return _LEFT + 12 + share * (WIDTH - _LEFT - _RIGHT - 24)

    def up(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    values = ticks(low, high)
    for value, said in zip(values, tick_texts(values), strict=True):
        y = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    for few in shots:
        parts.append(f'<text x="{across(few):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{few}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">labels per class</text>')
    if chance is not None:
        place = f'y1="{up(chance):.1f}" y2="{up(chance):.1f}"'
        parts.append(f'<line class="axis" stroke-dasharray="3 3" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" {place}/>')
    names = _in_order(points)
    for i, name in enumerate(names):
        shift = _DODGE * (i - (len(names) - 1) / 2)
        own = sorted((p for p in points if p.features == name), key=lambda p: p.shots)
        parts += _line([(across(p.shots) + shift, up(p.value), up(p.low), up(p.high), p) for p in own], tones[name])
    return "".join([*parts, "</svg>"])


def _line(marks: Sequence[tuple[float, float, float, float, Point]], tone: int) -> list[str]:
    """Join the defined scores of one feature set; a point that is not defined breaks the line."""
    path, parts, pen = [], [], "M"
    for x, y, bottom, top, point in marks:
        if not math.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
        if math.isfinite(bottom) and math.isfinite(top):
            parts.append(f'<line class="t{tone}" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')
        tip = f"{point.features}, {point.shots} labels per class: {score(point.value, '{:.3f}')} {interval(point, '{:.3f}')}"
        parts.append(f'<circle class="t{tone}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(tip)}</title></circle>')
    return [f'<path class="t{tone}" d="{"".join(path)}"/>', *parts] if path else parts


def _figure(curve: Curve, metric: str, method: str, tones: dict[str, int]) -> str:
    points = [p for p in curve.points if (p.metric, p.method) == (metric, method)]
    heading = f"{metric}, {method}"
    drawn = chart(points, chance=curve.chance[metric], tones=tones, label=f"{heading}, over labels per class")
    entries = "".join(f'<li style="--c:var(--t{tones[name]})">{escape(name)}</li>' for name in _in_order(points))
    caption = f'<p class="legend">Dashed: chance, {curve.chance[metric]:.3f}. Bars: {curve.level:.0%} intervals.</p>'
    told = drawn or '<p class="soft">Not defined for any number of labels.</p>'
    return f'<figure><h3>{escape(heading)}</h3><ul class="legend">{entries}</ul>{told}{caption}</figure>'


def _gains(curve: Curve) -> str:
    """Tabulate the paired differences, one column per number of labels; bold where the interval excludes zero."""
    if not curve.differences:
        return ""
    rows: dict[tuple[str, str, str], dict[int, PointDifference]] = {}
    for d in curve.differences:
        rows.setdefault((d.metric, d.method, d.baseline), {})[d.shots] = d
    columns = "".join(f'<th scope="col">{shots} labels</th>' for shots in curve.shots)
    heading = f"{curve.differences[0].features} minus"
    head = f'<tr><th scope="col">{escape(heading)}</th><th scope="col">score</th>{columns}</tr>'
    body = []
    for (metric, method, baseline), found in rows.items():
        cells = "".join(f"<td>{_cell(found[shots]) if shots in found else ''}</td>" for shots in curve.shots)
        score_of = escape(f"{metric}, {method}")
        body.append(f'<tr><th scope="row">{escape(baseline)}</th><td>{score_of}</td>{cells}</tr>')
    title = '<h3 class="apart">Paired differences <span class="soft">(bold: the interval excludes zero)</span></h3>'
    return f"{title}<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _cell(difference: PointDifference) -> str:
    value = score(difference.value, "{:+.3f}")
    shown = f"<b>{value}</b>" if difference.excludes_zero else value
    return f'{shown} <span class="soft small">{interval(difference, "{:+.3f}")}</span>'


def _in_order(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(p.features for p in points))


def _methods(curve: Curve) -> list[str]:
    return list(dict.fromkeys(p.method for p in curve.points))
