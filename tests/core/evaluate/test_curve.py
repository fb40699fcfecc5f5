from __future__ import annotations

import io
import json
import math

import pytest

from core.errors import DataError
from core.evaluate.curve import Curve, Point, PointDifference
from core.evaluate.table import LabelClass


def point(features: str, shots: int, value: float, **fields: float) -> Point:
    ends = {"low": value - 0.05, "high": value + 0.04} | fields
    return Point(
        features=features, method="k-NN", metric="balanced accuracy", shots=shots, value=value, spread=0.0123, **ends
    )


CURVE = Curve(
    points=(
        point("encoder", 5, 0.5),
        point("encoder", 10, 0.6),
        point("random weights", 5, 0.3),
        point("random weights", 10, 0.31, high=math.nan),
    ),
    differences=(
        PointDifference(
            features="encoder",
            baseline="random weights",
            method="k-NN",
            metric="balanced accuracy",
            shots=5,
            value=0.2,
            low=0.1,
            high=0.3,
        ),
        PointDifference(
            features="encoder",
            baseline="random weights",
            method="k-NN",
            metric="balanced accuracy",
            shots=10,
            value=0.29,
            low=-0.01,
            high=0.4,
        ),
    ),
    shots=(5, 10),
    chance={"balanced accuracy": 0.2},
    classes=(LabelClass(name="a|b", images=30, groups=20), LabelClass(name="c", images=30, groups=20)),
    images=60,
    groups=40,
    folds=5,
    repeats=3,
    draws=1000,
    level=0.95,
    seed=0,
    notes=("one sentence.",),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_carry_labels_value_interval_and_spread() -> None:
    lines = str(CURVE).splitlines()
    assert lines[0] == (
        "encoder                       k-NN  balanced accuracy    5 labels  0.500 [0.450, 0.540] (sd 0.012)"
    )
    assert lines[5] == ("encoder minus random weights  k-NN  balanced accuracy    5 labels  +0.200 [+0.100, +0.300]")
    assert lines[-1] == "one sentence."
    assert "60 images in 40 groups; images per class in groups: a|b: 30 in 20, c: 30 in 20." in lines


def test_markdown_has_one_column_per_number_of_labels() -> None:
    text = CURVE.to_markdown()
    assert "| balanced accuracy | method | 5 labels | 10 labels |" in text
    assert "| encoder | k-NN | 0.500 [0.450, 0.540] (sd 0.012) | 0.600 [0.550, 0.640] (sd 0.012) |" in text
    assert "| encoder minus random weights | k-NN | +0.200 [+0.100, +0.300] | +0.290 [-0.010, +0.400] |" in text
    assert "- one sentence." in text


def test_json_is_strict_and_comes_back_equal() -> None:
    text = CURVE.to_json()
    assert json.loads(text)["points"][3]["high"] is None
    back = Curve.from_json(text, source="x.json")
    assert back.points[:3] == CURVE.points[:3]
    assert math.isnan(back.points[3].high)
    assert (back.differences, back.shots, back.classes, back.notes) == (
        CURVE.differences,
        CURVE.shots,
        CURVE.classes,
        CURVE.notes,
    )
    assert back.to_json() == text


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"points": [{"x": 1}]}'])
def test_json_of_something_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(DataError, match=r"x\.json: expected a label-efficiency curve"):
        Curve.from_json(text, source="x.json")


def test_print_is_plain_off_a_terminal_and_ruled_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    plain, ruled = io.StringIO(), Terminal()
    CURVE.print(plain)
    CURVE.print(ruled)
    assert plain.getvalue() == f"{CURVE}\n"
    assert "0.500 [0.450, 0.540]" in ruled.getvalue()
    assert "┃" in ruled.getvalue()


def test_a_point_is_found_or_a_key_error_and_zero_is_excluded_or_not() -> None:
    assert CURVE.point("encoder", "k-NN", "balanced accuracy", 10).value == 0.6
    with pytest.raises(KeyError, match="encoder, k-NN, balanced accuracy, 50 labels per class"):
        CURVE.point("encoder", "k-NN", "balanced accuracy", 50)
    assert [d.excludes_zero for d in CURVE.differences] == [True, False]
