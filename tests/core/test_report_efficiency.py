"""The label-efficiency section draws the curve's own numbers, where they belong."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from core.evaluate.curve import Curve, Point, PointDifference
from core.report.efficiency import chart, efficiency, verdict


def point(features: str, shots: int, value: float, low: float, high: float) -> Point:
    return Point(features=features, method="k-NN", metric="AUROC", shots=shots, value=value, low=low, high=high)


def gain(shots: int, value: float, low: float, high: float, baseline: str = "random weights") -> PointDifference:
    return PointDifference(
        features="encoder",
        baseline=baseline,
        method="k-NN",
        metric="AUROC",
        shots=shots,
        value=value,
        low=low,
        high=high,
    )


def make(*points: Point, differences: tuple[PointDifference, ...] = (), notes: tuple[str, ...] = ()) -> Curve:
    return Curve(
        points=points,
        differences=differences,
        shots=(5, 50, 500),
        chance={"AUROC": 0.5},
        classes=(),
        images=60,
        groups=40,
        folds=5,
        repeats=3,
        draws=1000,
        level=0.95,
        seed=0,
        notes=notes,
    )


CURVE = make(
    point("encoder", 5, 0.6, 0.55, 0.7),
    point("encoder", 50, 0.8, 0.75, 0.85),
    point("encoder", 500, 0.9, 0.85, 0.95),
    point("random weights", 5, 0.55, 0.5, 0.6),
    differences=(gain(5, 0.05, -0.01, 0.1), gain(50, 0.2, 0.1, 0.3), gain(500, -0.2, -0.3, -0.1)),
    notes=("a <b>note</b>",),
)


def seen(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]* cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_labels_lie_on_a_logarithmic_axis_and_scores_on_a_linear_one() -> None:
    dots = circles(chart(CURVE.points[:3], chance=None, tones={"encoder": 1}, label="x"))
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.11)
    assert (dots[0][1] - dots[1][1]) / (dots[1][1] - dots[2][1]) == pytest.approx(2.0, abs=0.02)


def test_whiskers_span_the_interval_and_the_dashed_line_is_chance() -> None:
    drawn = chart([point("encoder", 5, 0.6, 0.55, 0.7)], chance=0.55, tones={"encoder": 3}, label="x")
    ((_, y),) = circles(drawn)
    ((bottom, top),) = re.findall(r'<line class="t3"[^>]* y1="([\d.]+)" y2="([\d.]+)"', drawn)
    assert (float(bottom) - y) / (y - float(top)) == pytest.approx(0.5, abs=0.01)
    (chance,) = re.findall(r'<line class="axis"[^>]* y1="([\d.]+)"', drawn)
    assert chance == bottom


def test_feature_sets_are_moved_apart_but_stay_over_their_number_of_labels() -> None:
    drawn = chart(CURVE.points, chance=0.5, tones={"encoder": 1, "random weights": 2}, label="x")
    first, other = circles(drawn)[0][0], circles(drawn)[3][0]
    (tick,) = re.findall(r'<text x="([\d.]+)"[^>]*>5</text>', drawn)
    assert other - first == pytest.approx(5.0)
    assert (other + first) / 2 == pytest.approx(float(tick))


def test_a_score_that_is_not_defined_breaks_the_line() -> None:
    points = [point("encoder", few, v, v - 0.01, v + 0.01) for few, v in ((5, 0.5), (50, math.nan), (500, 0.7))]
    drawn = chart(points, chance=None, tones={"encoder": 1}, label="x")
    (path,) = re.findall(r' d="([^"]*)"', drawn)
    assert (path.count("M"), path.count("L"), len(circles(drawn))) == (2, 0, 2)
    assert "nan" not in drawn
    assert chart(points[1:2], chance=0.5, tones={"encoder": 1}, label="x") == ""
    assert "Not defined for any number of labels." in efficiency("", make(points[1]))


def test_the_section_says_scores_differences_and_protocol() -> None:
    html = efficiency("label_efficiency_land.json", CURVE)
    said = seen(html)
    assert "Labels per class: label_efficiency_land.json" in said
    assert "encoder, 50 labels per class: 0.800 [0.750, 0.850]" in said
    assert "random weights AUROC, k-NN +0.050 [-0.010, +0.100] +0.200 [+0.100, +0.300]" in said
    assert "<b>+0.200</b>" in html
    assert "<b>+0.050</b>" not in html
    assert "Dashed: chance, 0.500. Bars: 95% intervals." in said
    assert "a <b>note</b>" in said
    assert "<b>note</b>" not in html


def test_the_verdict_counts_per_number_of_labels() -> None:
    assert verdict(CURVE) == [
        "Encoder against random weights: with 5 labels per class undecided on 1 of 1 scores; with 50 labels per class "
        "better on 1 of 1 scores; with 500 labels per class worse on 1 of 1 scores."
    ]
    assert verdict(replace(CURVE, differences=())) == []


def test_the_markup_is_closed_in_order() -> None:
    class Watcher(HTMLParser):
        stack: list[str]

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.stack.append(tag)

        def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.stack.pop() == tag

    watcher = Watcher()
    watcher.stack = []
    watcher.feed(efficiency("x", CURVE))
    assert watcher.stack == []
