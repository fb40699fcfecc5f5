"""Charts as hand-written inline SVG: curves over steps, and dots with whiskers. Strings out, colours left to the page.

All that a viewer needs is in the markup: hover texts are `<title>` elements, colours are classes `t0` to `t4`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

Point = tuple[float, float]
Placer = Callable[[float, float], Point]

WIDTH, HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 10, 30
_MEANS = 2000  # averages of a curve
_LETTERS = 28  # under a column of whiskers, where it is narrowest
_LONG = 6  # letters that fit beside a chart
_HOVERS = 60  # hover zones per chart: enough to read a curve, small enough to carry


@dataclass(frozen=True)
class Curve:
    """One curve: points may hold NaN, where the line breaks; `tone` picks the colour, `dots` marks each point."""

    name: str
    points: Sequence[Point]
    tone: int
    dots: bool = False
    quiet: bool = False


def show(value: float) -> str:
    """Write a number for people: four significant digits, thousands grouped, `not finite` for NaN and infinity."""
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4g}"


def score(value: float, form: str = "{:.3f}") -> str:
    """Write a score as every place of a page does; one that is NaN or infinite is not defined."""
    return form.format(value) if math.isfinite(value) else "not defined"


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Give round values (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _few_ticks(low: float, high: float) -> list[float]:
    """Give the fewest round values that are at least three; two, where the labels of three would not fit."""
    found: list[float] = []
    for about in range(2, 99):
        before, found = found, ticks(low, high, about=about)
        if len(found) >= 3:
            break
    tight = sum(len(text) + 2 for text in tick_texts(found)) > _LETTERS
    return before if tight and len(before) == 2 else found


def log_ticks(low: float, high: float) -> list[float]:
    """Give powers of ten inside [low, high], with 2 and 5 between them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    return [m * 10.0**d for d in decades for m in factors if low * 0.999 <= m * 10.0**d <= high * 1.001]


def tick_text(value: float) -> str:
    """Write an axis label shortly: 12,000 becomes 12k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")


def tick_texts(values: Sequence[float]) -> list[str]:
    """Write the labels of one axis alike: small ones as powers of ten where one of them would be too long, or is one."""
    plain = [tick_text(value) for value in values]
    small = max((abs(value) for value in values), default=0.0) < 1e-2
    if not small or all(len(text) <= _LONG and "e" not in text for text in plain):
        return plain
    parts = [f"{value:.3e}".partition("e") for value in values]
    return [f"{float(digits):g}e{int(power)}" if float(digits) else "0" for digits, _, power in parts]


def smooth(points: Sequence[Point]) -> tuple[list[Point], int]:
    """Average points with their neighbours, a 25th of the curve in all; gives the curve and how many are averaged.

    Of a long curve every so many-th average is given; a spike moves those alone that it is in. Values that are
    not finite are left out of every average; a point whose whole neighbourhood is not finite is NaN.
    """
    window = max(1, round(len(points) / 25)) | 1
    values = np.array([y for _, y in points], dtype=np.float64)
    out = []
    for i in range(0, len(points), max(1, len(points) // _MEANS)):
        near = values[max(0, i - window // 2) : i + window // 2 + 1]
        near = near[np.isfinite(near)]
        out.append((points[i][0], float(near.mean()) if near.size else math.nan))
    return out, window


def thin(points: Sequence[Point], limit: int = 400) -> list[Point]:
    """Keep the lowest and highest value of each stretch of a long curve, so that no spike disappears."""
    if len(points) <= limit:
        return list(points)
    out: list[Point] = []
    for i in range(limit // 2):
        stretch = points[i * len(points) // (limit // 2) : (i + 1) * len(points) // (limit // 2)]
        finite = [p for p in stretch if math.isfinite(p[1])] or stretch[:1]
        gaps = [p for p in stretch if not math.isfinite(p[1])][:1]
        kept = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1]), *gaps}
        out += sorted(kept, key=lambda p: p[0])
    return out


def line_chart(curves: Sequence[Curve], *, label: str, log: bool = False, from_zero: bool = False) -> str:
    """Draw curves over steps; `label` says for a screen reader what is shown. Empty text without a finite value."""
    drawn = [[p for p in c.points if math.isfinite(p[1]) and (p[1] > 0 or not log)] for c in curves]
    xs, ys = [p[0] for d in drawn for p in d], [p[1] for d in drawn for p in d]
    if not ys:
        return ""
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 1, right + 1
    low, high = _bounds(ys, log=log, from_zero=from_zero)
    lift = math.log10 if log else float
    span_x, span_y = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> Point:
        share = (lift(y) - lift(low)) / (lift(high) - lift(low))
        return _LEFT + span_x * (x - left) / (right - left), _TOP + span_y * (1 - share)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    values = log_ticks(low, high) if log else ticks(low, high)
    for value, said in zip(values, tick_texts(values), strict=True):
        _, y = at(left, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    for value in ticks(left, right, about=4):
        if value == round(value):
            x, _ = at(value, low)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{tick_text(value)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{HEIGHT - 30}" y2="{HEIGHT - 30}"/>')
    for curve in curves:
        parts += _curve(curve, at, log)
    parts += _hovers(curves, at)
    return "".join([*parts, "</svg>"])


def _bounds(ys: Sequence[float], *, log: bool, from_zero: bool) -> tuple[float, float]:
    low, high = (0.0 if from_zero and not log else min(ys)), max(ys)
    if log:
        return (low / 1.1, high * 1.1) if low < high else (low / 2, high * 2)
    if not low < high:
        room = abs(high) / 2 or 1.0
        return (0.0 if from_zero else low - room), high + room
    room = 0.05 * (high - low)
    return (low if from_zero else low - room), high + room


def _curve(curve: Curve, at: Placer, log: bool) -> list[str]:
    tone = f"t{curve.tone}{' quiet' if curve.quiet else ''}"
    parts, path, pen = [], [], "M"
    alone: list[Point] = []  # a point between two gaps draws no line
    points = list(curve.points)
    finite = [math.isfinite(y) and (y > 0 or not log) for _, y in points]
    for i, (x, y) in enumerate(points):
        if not finite[i]:
            pen = "M"
            continue
        px, py = at(x, y)
        path.append(f"{pen}{px:.1f} {py:.1f}")
        if pen == "M" and (i + 1 == len(points) or not finite[i + 1]):
            alone.append((px, py))
        pen = "L"
        if curve.dots:
            parts.append(f'<circle class="{tone}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>')
    if not curve.dots:
        parts += [f'<circle class="{tone}" cx="{px:.1f}" cy="{py:.1f}" r="2"/>' for px, py in alone]
    return [f'<path class="{tone}" d="{"".join(path)}"/>', *parts]


def _hovers(curves: Sequence[Curve], at: Placer) -> list[str]:
    """Lay see-through columns over the chart that tell, on hover, the values nearest to their step."""
    told = [c for c in curves if not c.quiet and c.points]
    steps = sorted({x for c in told for x, _ in c.points})
    steps = steps[:: max(1, math.ceil(len(steps) / _HOVERS))]
    parts: list[str] = []
    if not steps:
        return parts
    right = _LEFT + (WIDTH - _LEFT - _RIGHT)
    lookup = [(c.name, sorted(c.points)) for c in told]
    edges = [at(x, 1.0)[0] for x in steps]
    for i, x in enumerate(steps):
        start = _LEFT if i == 0 else (edges[i - 1] + edges[i]) / 2
        stop = right if i + 1 == len(steps) else (edges[i] + edges[i + 1]) / 2
        lines = [f"step {show(x)}"]
        for name, points in lookup:
            near = min(points, key=lambda p: abs(p[0] - x))
            where = "" if near[0] == x else f" (step {show(near[0])})"
            lines.append(f"{name}: {show(near[1])}{where}")
        tip = escape("\n".join(lines))
        parts.append(
            f'<rect class="hover" x="{start:.1f}" y="{_TOP}" width="{max(0.5, stop - start):.1f}" '
            f'height="{HEIGHT - _TOP - _BOTTOM}"><title>{tip}</title></rect>'
        )
    return parts


def whisker(value: float, low: float, high: float, *, axis: tuple[float, float], mark: float | None, tone: int) -> str:
    """Draw one dot with its interval on `axis`, as wide as its place; `mark` is a reference such as chance or zero."""
    start, stop = axis

    def share(v: float) -> str:
        return f"{100 * min(1.0, max(0.0, (v - start) / (stop - start))):.2f}%"

    parts = ['<svg class="whisker" role="presentation">']
    if mark is not None and start <= mark <= stop:
        parts.append(f'<line class="mark" x1="{share(mark)}" x2="{share(mark)}" y1="0" y2="100%"/>')
    if math.isfinite(low) and math.isfinite(high):
        parts.append(f'<line class="t{tone}" x1="{share(low)}" x2="{share(high)}" y1="50%" y2="50%"/>')
    if math.isfinite(value):
        parts.append(f'<circle class="t{tone}" cx="{share(value)}" cy="50%" r="5"/>')
    return "".join([*parts, "</svg>"])


def whisker_axis(axis: tuple[float, float]) -> str:
    """Draw the labels under a column of whiskers."""
    start, stop = axis
    labels = []
    values = _few_ticks(start, stop)
    for value, said in zip(values, tick_texts(values), strict=True):
        share = 100 * (value - start) / (stop - start)
        anchor = "start" if share < 4 else "end" if share > 96 else "middle"
        labels.append(f'<text x="{share:.2f}%" y="13" text-anchor="{anchor}">{said}</text>')
    return f'<svg class="scale" role="presentation">{"".join(labels)}</svg>'
