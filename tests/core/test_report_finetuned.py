"""The page of a fine-tuning shows its own scores, checks and pictures, whatever else lies in the folder."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from core import viz
from core.report import write_report
from core.viz import Column, Row, save_rows
from tests.core.test_report import table, text, watch

CONFIG = """
images: {encoder: runs/mine, data: [scenes/], workers: 0}
task: segment
maps: {rasters: [cover.tif], block: 16}
training: {mode: full, steps: 4, lr: 0.001, select: mean IoU}
"""
SCORES = (
    ("mean IoU", 0.512, 0.401, 0.633),
    ("pixel accuracy", 0.9, 0.8, 1.0),
    ("IoU of water", 0.25, 0.0, 0.5),
    ("IoU of <i>forest", 0.774, 0.7, 0.8),
)


def make(folder: Path, scores: tuple[tuple[str, float, float, float], ...] = SCORES) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    events: list[dict[str, Any]] = []
    for step in range(1, 5):
        events.append({"event": "step", "step": step, "loss": 1.0 / step, "lr": 1e-3, "grad_norm": 2.0})
        if step % 2 == 0:
            found = {"mean IoU": 0.7 - 0.1 * step, "pixel accuracy": 0.8}
            events.append({"event": "validation", "step": step, "scores": found})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    rows = [
        {"features": "test blocks", "method": "upernet, full", "metric": name, "value": value, "low": low, "high": high}
        for name, value, low, high in scores
    ]
    (folder / "scores.json").write_text(json.dumps(rows))
    head = {
        "task": "segment",
        "classes": ["water", "<i>forest"],
        "units": [],
        "pool": "mean",
        "spec": {"kind": "upernet"},
    }
    (folder / "head.json").write_text(
        json.dumps(head | {"about": {"finetuned_from": "runs/mine", "window": [64, 32], "split": "test as listed"}})
    )
    return folder


def page(run: Path, **options: Any) -> str:
    return write_report(run, **options).read_text(encoding="utf-8")


def test_the_test_score_and_the_best_check_come_first(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run"), title="Satellite, fine-tuning", command=["python", "-m", "x"])
    said = text(html)
    assert "Test part: mean IoU 0.512, 95 % interval 0.401 to 0.633." in said
    assert "Validation mean IoU 0.500 best of 2 checks, at step 2" in said
    assert "Steps 4 head and encoder" in said
    assert "halfseen fine-tuning report Satellite, fine-tuning" in said
    for fact in (
        "encoder runs/ mine",
        "finetuned from runs/ mine",
        "window 64 × 32",
        "parts test as listed",
        "select mean IoU",
        "block 16",
        "head upernet",
        "python -m x",
    ):
        assert fact in said, fact
    assert "Reconstructions" not in said
    seen = watch(html)
    assert (seen.mistakes, seen.open) == ([], [])
    assert "<i>" not in html


def test_scores_of_classes_have_a_table_of_their_own(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run"))
    tables = re.findall(r"<h3>([^<]*)</h3><table>(.*?)</table>", html)
    names = {heading: re.findall(r'class="name">([^<]+)<', body) for heading, body in tables}
    assert names == {
        "All together": ["mean IoU", "pixel accuracy"],
        "IoU by class": ["water", "&lt;i&gt;forest"],
    }
    assert "0.774 [0.700, 0.800]" in text(html)


def regression(run: Path, *numbers: str, units: tuple[str, ...] = ()) -> Path:
    head = json.loads((run / "head.json").read_text())
    (run / "head.json").write_text(json.dumps(head | {"task": "regress", "classes": numbers, "units": units}))
    return run


def test_errors_in_a_unit_do_not_share_the_axis_of_shares(tmp_path: Path) -> None:
    scores = (("R2", 0.4, 0.1, 0.6), ("MAE", 0.0123, 0.009, 0.0151), ("RMSE", 0.02, 0.01, 0.03))
    html = page(regression(make(tmp_path / "run", scores), "moisture", units=("m3/m3",)))
    assert re.findall(r"<h3>([^<]*?) ?<", html)[:2] == ["Explained share of the variance", "Error, in m3/m3"]
    assert "Explained share of the variance (dashed: the labels' mean)" in text(html)
    assert "MAE 0.0123 [0.0090, 0.0151] RMSE 0.0200 [0.0100, 0.0300]" in text(html)
    assert "R2 0.400 [0.100, 0.600]" in text(html)


def test_each_number_has_its_errors_in_its_own_unit(tmp_path: Path) -> None:
    scores = (("R2 of height", 0.4, 0.1, 0.6), ("MAE of height", 12.0, 9.0, 1500.0), ("MAE of cover", 0.2, 0.1, 0.3))
    html = page(regression(make(tmp_path / "run", scores), "height", "cover", units=("m", "")))
    assert re.findall(r"<h3>([^<]*)</h3><table>", html) == [
        "Error of height, in m",
        "Error of cover, in the unit of the labels",
    ]
    assert "MAE 12 [9, 1,500]" in text(html)
    found = {"event": "validation", "step": 2, "scores": {"R2": 0.4, "MAE": 3.0}}
    (tmp_path / "run/metrics.jsonl").write_text(json.dumps(found) + "\n")
    titles = re.findall("Validation: ([^<]*)</h3>", page(tmp_path / "run"))
    assert titles == ["R2, mean over the numbers", "MAE, mean over the numbers"]


def test_options_of_other_tasks_are_no_facts_of_a_run(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "config.yaml").write_text(CONFIG + "ordinal: auto\ncloud_widths: [64, 32]\nscale: 0.5\n")
    facts = text(page(run)).partition("Full configuration")[0]
    assert "block 16" in facts and "scale 0.5" in facts
    assert "ordinal" not in facts and "cloud" not in facts
    facts = text(page(regression(run, "height"))).partition("Full configuration")[0]
    assert "block 16" not in facts and "numbers height" in facts


def test_a_score_is_written_alike_wherever_it_stands(tmp_path: Path) -> None:
    run = make(tmp_path / "run", (("mean IoU", 0.72986, 0.40001, 0.8),))
    said = text(page(run))
    assert "Test part: mean IoU 0.730, 95 % interval 0.400 to 0.800." in said
    assert "Test mean IoU 0.730 95 % interval 0.400 to 0.800" in said
    assert "mean IoU 0.730 [0.400, 0.800]" in said
    assert "0.7299" not in said


def test_checks_are_drawn_by_the_scores_that_apply(tmp_path: Path) -> None:
    run = make(tmp_path / "run", (("balanced accuracy", 0.5, 0.4, 0.6), ("AUROC", 0.7, 0.6, 0.8)))
    (run / "config.yaml").write_text("training: {mode: linear, select: AUROC}\n")
    found = {"balanced accuracy": 0.4, "AUROC": 0.6, "quadratic kappa": 0.1}
    events = [{"event": "validation", "step": step, "scores": found} for step in (2, 4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert re.findall(r"Validation: ([^<]*)</h3>", page(run)) == ["balanced accuracy", "AUROC"]
    (run / "config.yaml").write_text("training: {mode: linear, select: quadratic kappa}\n")
    assert "Validation: quadratic kappa" in page(run), "it chose the weights"
    (run / "scores.json").unlink()
    assert len(re.findall("<h3>Validation: ", page(run))) == 3, "nothing says which apply"


def test_scores_of_classes_stand_beside_chance(tmp_path: Path) -> None:
    run = make(tmp_path / "run", (("balanced accuracy", 0.6, 0.55, 0.7), ("AUROC", 0.7, 0.6, 0.8)))
    (run / "config.yaml").write_text("training: {mode: linear, select: balanced accuracy}\n")
    assert "chance" not in text(page(run)), "of a segmentation it depends on the areas"
    head = json.loads((run / "head.json").read_text())
    (run / "head.json").write_text(json.dumps(head | {"task": "classify", "classes": ["a", "b", "c", "d"]}))
    html = page(run)
    assert "balanced accuracy 0.600, 95 % interval 0.550 to 0.700; chance: 0.250." in text(html)
    assert "All together (dashed: chance)" in text(html)
    marks = [float(x) for x in re.findall(r'class="mark" x1="([\d.]+)%"', html)]
    low, high = 0.25 - 0.08 * 0.55, 0.8 + 0.08 * 0.55
    assert marks == pytest.approx([100 * (c - low) / (high - low) for c in (0.25, 0.5)], abs=0.01)


def test_labelled_images_of_each_part_are_counted(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "config.yaml").write_text("images: {label: grade}\ntraining: {mode: linear}\n")
    frame = {
        "group": ["a", "a", "b", "c", "d", "e"],
        "split": ["train", "train", "validation", "test", "test", "test"],
        "grade": ["1", "0", "1", "", None, "2"],
    }
    parquet.write_table(pa.table(frame), run / "data.parquet")
    said = text(page(run))
    assert "images 6 train 2 with a label, in 1 group validation 1 with a label, in 1 group test 1 with a label" in said


def test_classes_that_are_called_by_numbers_are_called_classes(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run", (("IoU of 2", 0.5, 0.4, 0.6), ("IoU of 10 m road", 0.5, 0.4, 0.6))))
    assert re.findall(r'class="name">([^<]+)<', html) == ["class 2", "10 m road"]


def test_an_undefined_score_is_said(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run", (("mean IoU", math.nan, math.nan, math.nan),)))
    assert "The test part has no defined score." in text(html)
    assert "mean IoU not defined" in text(html)
    assert "no interval" in text(html)


def test_a_score_of_too_few_groups_has_no_interval_and_the_page_says_why(tmp_path: Path) -> None:
    run = make(tmp_path / "run", (("mean IoU", 0.7, 0.6, 0.8), ("IoU of water", 0.5, math.nan, math.nan)))
    rows = json.loads((run / "scores.json").read_text())
    rows[1]["undefined"] = 0.368
    (run / "scores.json").write_text(json.dumps(rows))
    html = page(run)
    assert "water 0.500 (no interval)" in text(html)
    assert "IoU of water: not defined in 36.8 % of the resamples, so there is no interval" in text(html)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).lower()


def test_held_out_images_are_shown_with_what_each_is(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    pixels = np.full((4, 6, 3), 7, np.uint8)
    rows = [Row("scene", ("red",), (Column("scene", "Scene", pixels),), said=f"block {n}: {n} of 9.") for n in (0, 5)]
    save_rows(run / "figures", rows, legend=[("<i>water", (1, 2, 3))])
    html = page(run)
    said = text(html)
    assert said.index("from the worst to the best") < said.index("block 0: 0 of 9.") < said.index("block 5: 5 of 9.")
    assert 'style="--c:rgb(1,2,3)">&lt;i&gt;water<' in html
    assert said.count("Bands: red.") == 1
    assert len(watch(html).sources) == 2
    assert "no data" not in said
    missing = viz.clear_nodata(pixels, np.arange(24).reshape(4, 6) > 3)
    save_rows(run / "figures", [Row("scene", ("red",), (Column("scene", "Scene", missing),))])
    assert '<p class="swatches"><span class="nodata">no data</span></p>' in page(run)
    assert 'class="coarse" width="6" height="4"' in html


def test_an_evaluation_of_the_encoder_leaves_it_the_page_of_a_fine_tuning(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    page(run, title="Mine")
    (run / "evaluation.json").write_text(table().to_json())
    said = text(page(run))
    assert "halfseen fine-tuning report Mine" in said
    assert "random weights +0.117 [+0.030, +0.200]" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", ""),
        ("scores.json", "[1]"),
        ("scores.json", '[{"metric": "IoU"}]'),
        ("metrics.jsonl", '{"event": "st'),
        ("metrics.jsonl", "[1]"),
        ("figures/panels.json", '{"rows": [7]}'),
        ("figures/panels.json", '{"rows": [], "legend": [["water", [1, 2]]]}'),
        ("figures/panels.json", '{"rows": [], "legend": [["water", ["<", 2, 3]]]}'),
    ],
)
def test_what_is_damaged_or_missing_is_told(tmp_path: Path, name: str, content: str) -> None:
    run = make(tmp_path / "run")
    (run / "figures").mkdir()
    (run / name).write_text(content)
    said = text(page(run))
    assert Path(name).name in said.partition("Scores on the test part")[0]
    assert "What ran" in said
    (run / name).unlink()
    assert "What ran" in text(page(run))
