from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest

from core.errors import DataError
from core.evaluate.table import Difference, LabelClass, Row, Table, interval_notes

TABLE = Table(
    rows=(
        Row(features="encoder", method="linear probe", metric="balanced accuracy", value=0.3121, low=0.264, high=0.361),
        Row(features="encoder", method="linear probe", metric="AUROC", value=0.7, low=0.65, high=float("nan")),
        Row(
            features="random weights",
            method="linear probe",
            metric="balanced accuracy",
            value=0.25,
            low=0.2,
            high=0.3,
            sets=3,
            spread=0.0123,
        ),
    ),
    differences=(
        Difference(
            features="encoder",
            baseline="random weights",
            method="linear probe",
            metric="balanced accuracy",
            value=0.0621,
            low=-0.011,
            high=0.13,
        ),
    ),
    chance={"balanced accuracy": 0.2, "AUROC": 0.5},
    classes=(LabelClass(name="0", images=132, groups=130), LabelClass(name="a|b", images=18, groups=18)),
    images=150,
    groups=148,
    folds=5,
    repeats=1,
    draws=2000,
    level=0.95,
    seed=0,
    notes=("one sentence.",),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_are_aligned_and_carry_value_and_interval() -> None:
    lines = str(TABLE).splitlines()
    assert lines[0] == "encoder                       linear probe  balanced accuracy 0.312 [0.264, 0.361]"
    assert lines[2].endswith("balanced accuracy 0.250 [0.200, 0.300] (3 seeds, sd 0.012)")
    assert lines[4] == "encoder minus random weights  linear probe  balanced accuracy +0.062 [-0.011, +0.130]"


def test_plain_text_states_the_protocol() -> None:
    text = str(TABLE)
    assert "150 images in 148 groups; images per class in groups: class 0: 132 in 130, a|b: 18 in 18." in text
    assert "95% percentile bootstrap over groups, 2000 draws, seed 0" in text
    assert "Chance: balanced accuracy 0.200, AUROC 0.500." in text
    assert text.endswith("one sentence.")


def test_json_is_strict_and_comes_back_equal() -> None:
    text = TABLE.to_json()
    assert json.loads(text)["rows"][1]["high"] is None
    back = Table.from_json(text, source="evaluation.json")
    assert back.rows[0] == TABLE.rows[0]
    assert back.rows[2] == TABLE.rows[2]
    assert math.isnan(back.rows[1].high)
    assert (back.differences, back.classes, back.chance, back.notes) == (
        TABLE.differences,
        TABLE.classes,
        TABLE.chance,
        TABLE.notes,
    )
    assert back.to_json() == text


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": [{"x": 1}]}'])
def test_json_of_something_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(DataError, match=r"evaluation\.json: expected an evaluation table"):
        Table.from_json(text, source="evaluation.json")


def test_markdown_has_one_column_per_metric_and_a_line_per_method() -> None:
    text = TABLE.to_markdown()
    assert "| features | method | balanced accuracy | AUROC |" in text
    assert "| encoder | linear probe | 0.312 [0.264, 0.361] | 0.700 (no interval) |" in text
    assert "| random weights | linear probe | 0.250 [0.200, 0.300] (3 seeds, sd 0.012) |  |" in text
    assert "| encoder minus random weights | linear probe | +0.062 [-0.011, +0.130] |  |" in text


def test_print_is_plain_off_a_terminal_and_ruled_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    plain, ruled = io.StringIO(), Terminal()
    TABLE.print(plain)
    TABLE.print(ruled)
    assert plain.getvalue() == f"{TABLE}\n"
    assert "0.312 [0.264, 0.361]" in ruled.getvalue()
    assert "┃" in ruled.getvalue()


def test_an_unknown_row_is_a_key_error() -> None:
    assert TABLE.row("encoder", "linear probe", "AUROC").value == 0.7
    with pytest.raises(KeyError, match="encoder, k-NN, AUROC"):
        TABLE.row("encoder", "k-NN", "AUROC")


@pytest.mark.parametrize(("groups", "said"), [(0, 0), (2, 1), (19, 1), (20, 0), (500, 0)])
def test_intervals_of_few_groups_are_called_too_narrow(groups: int, said: int) -> None:
    rows = [replace(TABLE.rows[0], metric=metric, groups=groups) for metric in ("MAE", "R2")]
    assert len(interval_notes(rows)) == said
    lost = interval_notes([replace(each, undefined=0.02 * number) for number, each in enumerate(rows)])
    assert lost[said:] == ["R2: not defined in 2 % of the resamples, which are left out."]
