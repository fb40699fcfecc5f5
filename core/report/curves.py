"""The sections with curves: losses per stream and term, and how fast the run went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from core.report.charts import Curve, Point, line_chart, smooth, thin
from core.report.read import Run
from core.viz import spoken


def losses(run: Run) -> str:
    """Draw one panel per stream, and one per term where a loss has several; train beside fixed-mask validation."""
    figures = []
    for stream in run.streams:
        figures.append(_panel(run, stream, ("loss",), f"{stream.capitalize()}: loss"))
        terms = [term for term in _terms(run, stream) if not _repeats_loss(run, stream, term)]
        figures += [_panel(run, stream, ("terms", t), f"{stream.capitalize()}: {spoken(t)}") for t in terms]
    figures = [figure for figure in figures if figure]
    if not figures:
        return '<p class="soft">No loss was logged yet.</p>'
    return f'<div class="charts">{"".join(figures)}</div>'


def pace(run: Run) -> str:
    """Draw throughput, data wait, and the optimiser's learning rate and gradient norm over steps."""
    figures = []
    for name, heading, zero in (
        ("samples_per_s", "Throughput, images per second", True),
        ("wait", "Waiting for data, % of step time", True),
        ("lr", "Learning rate", True),
        ("grad_norm", "Gradient norm before clipping", False),
    ):
        whole_run = name in {"lr", "grad_norm"}
        streams = ("",) if whole_run else run.streams
        curves = []
        for tone, stream in enumerate(streams, start=1):
            points = _all_streams(run, name) if whole_run else _of_stream(run, stream, name)
            curves += train_curves(points, stream, min(tone, 4), smoothed=name != "lr")
        figures.append(figure(heading, curves, from_zero=zero, log=name == "grad_norm" and wide(curves)))
    return f'<div class="charts">{"".join(figures)}</div>' if any(figures) else '<p class="soft">Not logged yet.</p>'


def waits(run: Run, stream: str) -> list[Point]:
    """Give the share of each step that was spent waiting for data, in percent."""
    wait, whole = run.curve("step", stream, "data_wait_s"), run.curve("step", stream, "step_s")
    return [(x, 100 * w / s if s > 0 else math.nan) for (x, w), (_, s) in zip(wait, whole, strict=True)]


def _of_stream(run: Run, stream: str, name: str) -> list[Point]:
    return waits(run, stream) if name == "wait" else run.curve("step", stream, name)


def _all_streams(run: Run, name: str) -> list[Point]:
    return sorted(point for stream in run.streams for point in run.curve("step", stream, name))


def _terms(run: Run, stream: str) -> list[str]:
    events = (e for e in (*run.steps, *run.validations) if str(e.get("stream") or "all") == stream)
    found = dict.fromkeys(term for e in events for term in (e.get("terms") or {}))
    return sorted(found, key=lambda term: term != "image")


def _repeats_loss(run: Run, stream: str, term: str) -> bool:
    """Tell a lone term that is the loss itself, which would be drawn twice."""
    pairs = [
        (run.curve(kind, stream, "loss"), run.curve(kind, stream, "terms", term)) for kind in ("step", "validation")
    ]
    return all(
        math.isclose(a[1], b[1], rel_tol=1e-6) or (math.isnan(a[1]) and math.isnan(b[1]))
        for losses_, values in pairs
        for a, b in zip(losses_, values, strict=True)
    )


def train_curves(points: Sequence[Point], name: str, tone: int, *, smoothed: bool = True) -> list[Curve]:
    """Give a curve of single steps and its mean over neighbours; none without a finite value."""
    if not any(math.isfinite(y) for _, y in points):
        return []
    mean, window = smooth(points)
    if not smoothed or window == 1:
        return [Curve(name, thin(points), tone)]
    return [
        Curve(f"{name}, single steps".lstrip(", "), thin(points), tone, quiet=True),
        Curve(f"{name}, mean of {window}".lstrip(", "), thin(mean), tone),
    ]


def _panel(run: Run, stream: str, field: tuple[str, ...], heading: str) -> str:
    train, held_out = run.curve("step", stream, *field), run.curve("validation", stream, *field)
    curves = train_curves(train, "train", 1)
    if any(math.isfinite(y) for _, y in held_out):
        curves.append(Curve("validation, fixed masks", thin(held_out), 2, dots=len(held_out) <= 40))
    lost = sum(not math.isfinite(y) for _, y in (*train, *held_out))
    gone = f" {lost} value(s) that are not finite are left out." if lost else ""
    return figure(heading, curves, log=wide(curves), remark=gone)


def wide(curves: Sequence[Curve]) -> bool:
    """Ask for a logarithmic axis where the values span more than a factor of 20."""
    ys = [y for c in curves for _, y in c.points if math.isfinite(y)]
    return bool(ys) and min(ys) > 0 and max(ys) / min(ys) > 20


def figure(
    heading: str, curves: Sequence[Curve], *, log: bool = False, from_zero: bool = False, remark: str = ""
) -> str:
    """Draw curves under their heading with their legend; empty text where there is nothing to see or to say."""
    chart = line_chart(curves, label=f"{heading}, over steps", log=log, from_zero=from_zero)
    if not chart and not remark:
        return ""
    entries = "".join(_entry(curve) for curve in curves if curve.name)
    scale = " Logarithmic axis." if log and chart else ""
    caption = f'<p class="legend">{escape((scale + remark).strip())}</p>' if scale or remark else ""
    return f'<figure><h3>{escape(heading)}</h3><ul class="legend">{entries}</ul>{chart}{caption}</figure>'


def _entry(curve: Curve) -> str:
    faint = ' class="faint"' if curve.quiet else ""
    return f'<li{faint} style="--c:var(--t{curve.tone})">{escape(curve.name)}</li>'
