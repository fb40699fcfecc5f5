"""The evaluate verb on scenes: table, label-efficiency curve, and what does not fit the encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.domains.satellite.writing import geotiff, noise

QUICK = ["--folds=2", "--draws=100", "--random_seeds=2", "--k=3", "--repeats=2"]


@pytest.fixture(scope="module")
def covers(scenes: Path) -> Path:
    """The drawn scenes with two classes: water or not the most of them, the quarters of a scene in one group."""
    header, *rows = [line.split(",") for line in (scenes / "labels.csv").read_text().splitlines()]
    at = {name: position for position, name in enumerate(header)}
    median = sorted(float(row[at["share_forest"]]) for row in rows)[len(rows) // 2]
    lines = [
        f"{row[at['file']]},{'wooded' if float(row[at['share_forest']]) >= median else 'open'},{number}"
        for number, row in enumerate(rows)
    ]
    path = scenes / "wooded.csv"
    path.write_text("file,forest,place\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_evaluate_scores_frozen_features_for_each_number_of_labels(satellite, scene_run, covers, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(scene_run, run)
    words = ["--encoder", run, "--data", covers, "--label", "forest", "--group", "place", "--shots", "2,4", *QUICK]
    outcome = satellite("evaluate", *words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip().splitlines()[-1] == str(run / "evaluation_forest.json")
    curve = json.loads((run / "label_efficiency_forest.json").read_text())
    found = {(point["features"], point["method"], point["shots"]) for point in curve["points"]}
    sets, methods = ("encoder", "random weights", "pixel statistics"), ("k-NN", "linear probe")
    assert found == {(features, method, shots) for features in sets for method in methods for shots in (2, 4)}
    assert all(0 <= point["low"] <= point["value"] <= point["high"] <= 1 for point in curve["points"])
    assert (run / "label_efficiency_forest.md").read_text().count("|") > 20
    page = (run / "report.html").read_text()
    assert "Labels per class" in page
    assert "What the features are worth" in page
    (run / "evaluation_forest.json").unlink()
    again = satellite("evaluate", *words)
    assert again.code == 2
    assert "label_efficiency_forest.json exists" in again.sentence
    assert "--overwrite" in again.sentence


def test_an_encoder_of_other_bands_is_refused(satellite, scene_run, tmp_path) -> None:
    for number in range(2):
        geotiff(tmp_path / f"set/{number}.tif", noise(2, 96, 96, seed=number).astype("uint16"), ("red", "nir"))
    (tmp_path / "set/labels.csv").write_text("file,class\n0.tif,a\n1.tif,b\n")
    words = ["--encoder", scene_run, "--data", tmp_path / "set/labels.csv", "--label", "class"]
    outcome = satellite("evaluate", *words, "--out", tmp_path / "scores.json")
    assert outcome.code == 2
    assert "0.tif: expected bands ('B01'," in outcome.sentence
    assert "('red', 'nir')" in outcome.sentence
    assert not (tmp_path / "scores.json").exists()


def test_a_curve_needs_two_labels_per_class(satellite, scene_run, tmp_path) -> None:
    outcome = satellite("evaluate", "--encoder", scene_run, "--shots", "1,5", "--out", tmp_path / "scores.json")
    assert outcome.code == 2
    assert "at least 2 labels per class" in outcome.sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--folds", "20", "--k", "2"], "expected at least 20 groups of each class for 20 folds"),
        (["--folds", "2", "--k", "500"], "neighbours, as a fold leaves that many of"),
        (["--folds", "2", "--k", "2", "--shots", "400"], "expected a class with 400 labelled images or more"),
    ],
)
def test_what_the_labels_do_not_allow_is_refused_before_an_image_is_embedded(
    satellite, scene_run, covers, tmp_path, monkeypatch, words, sentence
) -> None:
    def embedded(*_: object, **__: object) -> None:
        raise AssertionError("images were embedded")

    monkeypatch.setattr("domains.verbs.evaluate.describe", embedded)
    common = ["--encoder", scene_run, "--data", covers, "--label", "forest", "--group", "place", "--draws", "100"]
    outcome = satellite("evaluate", *common, *words, "--out", tmp_path / "scores.json")
    assert outcome.code == 2
    assert sentence in outcome.sentence


def test_a_table_that_could_not_be_written_is_refused_before_any_work(satellite, scene_run, covers, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    words = ["--encoder", scene_run, "--data", covers, "--label", "forest", "--out", tmp_path / "file/scores.json"]
    outcome = satellite("evaluate", *words)
    assert outcome.code == 2
    assert "refuses: Not a directory: choose another --out." in outcome.sentence
