"""The verbs from end to end on a small sample set: what they write, and that it can be read back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import core
from core.encoders.load import Encoder
from core.heads.load import load_model
from datasets import Manifest, open_image
from domains.retina.collection import collect, resolve
from domains.retina.pretrain import PRESETS, tiny
from domains.verbs.features import random_weights


@pytest.fixture
def encoder(trained) -> Encoder:
    return core.load_encoder(trained, pool="mean_std")


def test_a_run_folder_is_complete(trained):
    names = {path.name for path in trained.iterdir()}
    expected = {"config.yaml", "env.json", "data.parquet", "metrics.jsonl", "last", "encoder", "figures", "report.html"}
    assert expected <= names
    assert (trained / "last").read_text().strip() == "step_000004"
    assert sorted(path.name for path in trained.glob("step_*")) == ["step_000002", "step_000004"]


def test_both_kinds_take_turns_and_are_validated(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [line["stream"] for line in lines if line["event"] == "step"]
    assert steps == ["photograph", "volume", "photograph", "volume"]
    checks = {(line["step"], line["stream"]) for line in lines if line["event"] == "validation"}
    assert checks == {(step, kind) for step in (0, 2, 4) for kind in ("photograph", "volume")}


def test_no_patient_is_on_both_sides(trained, samples):
    manifest = Manifest.read(trained / "data.parquet")
    assert set(manifest.column("split")) == {"train", "held_out"}
    sides = {group: split for group, split in zip(manifest.column("group"), manifest.column("split"), strict=True)}
    assert [sides[group] for group in manifest.column("group")] == manifest.column("split")


def test_pretraining_holds_out_whole_patients(verb, lesions, tmp_path):
    few = ["--steps=2", "--optim.warmup_steps=1", "--data.streams.0.batch_size=2", "--data.held_out=0.4"]
    outcome = verb("pretrain", "tiny", "--data", lesions, "--group", "patient", "--out", tmp_path / "run", *few)
    assert outcome.code == 0, outcome.err
    manifest = Manifest.read(tmp_path / "run" / "data.parquet")
    sides = set(zip(manifest.column("group"), manifest.column("split"), strict=True))
    assert len(sides) == len(set(manifest.column("group"))) == 15
    assert {split for _, split in sides} == {"train", "held_out"}


def test_the_report_shows_both_branches_of_both_kinds(trained):
    page = (trained / "report.html").read_text()
    panels = json.loads((trained / "figures" / "panels.json").read_text())["rows"]
    assert {row["input"] for row in panels} == {"photograph", "volume"}
    assert all(len(row["columns"]) >= 6 for row in panels)
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_encoder_that_is_loaded_is_the_one_that_was_trained(trained, encoder):
    from safetensors.torch import load_file

    whole = load_file(trained / "step_000004" / "model.safetensors")
    own = encoder.backbone.state_dict()
    assert all(torch.equal(own[name], whole[f"encoder.{name}"]) for name in own)
    assert len(encoder.report.placed) == len(own)
    assert encoder.report.missing == encoder.report.unexpected == ()
    assert encoder.num_features == 2 * 192


def test_an_image_is_embedded_alike_by_notebook_and_verb(verb, trained, encoder, samples, tmp_path):
    outcome = verb("embed", "--encoder", trained, "--data", samples / "photographs", "--out", tmp_path / "v.parquet")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip().splitlines()[-1] == str(tmp_path / "v.parquet")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["file", "group", "vector"]
    assert len(table) == 30
    with torch.no_grad():
        for row in (0, 13):
            batch = encoder.preprocess(open_image(table["file"][row].as_py()))
            np.testing.assert_allclose(encoder(batch)[0].numpy(), table["vector"][row].as_py(), rtol=1e-4, atol=1e-5)


def test_tokens_and_maps(encoder, samples):
    image = open_image(next((samples / "volumes").glob("*.nii.gz")))
    batch = encoder.preprocess(image)
    with torch.no_grad():
        tokens, grid = encoder.tokens(batch), encoder.feature_map(batch)
    assert tokens.shape == (1, 64, 192)
    assert grid.shape == (1, 192, 4, 4, 4)
    assert torch.equal(grid.flatten(2).transpose(1, 2), tokens)
    plain = torch.randn(2, 3, 64, 96)
    assert encoder(plain).shape == (2, 384)
    with pytest.raises(core.HalfseenError, match="2D with 5 channels"):
        encoder(torch.zeros(1, 5, 32, 32))


def test_random_weights_are_another_encoder_of_the_same_kind(encoder):
    one, same, other = (random_weights(encoder, seed) for seed in (0, 0, 1))
    batch = torch.randn(2, 3, 64, 64)
    assert torch.equal(one(batch), same(batch))
    assert not torch.allclose(one(batch), other(batch))
    assert not torch.allclose(one(batch), encoder(batch))


@pytest.fixture(scope="session")
def lesions(samples):
    """A list of the photographs with two classes: lesions or none."""
    rows = [line.split(",") for line in (samples / "labels.csv").read_text().splitlines()[1:]]
    kept = [f"{samples / file},{int(int(grade) > 0)},{who}" for file, grade, who, kind in rows if kind == "photograph"]
    path = samples.parent / "labels.csv"  # in a folder that holds the images too
    path.write_text("file,lesions,patient\n" + "\n".join(kept) + "\n")
    return path


def test_evaluate_prints_saves_and_reports_both_baselines(verb, trained, lesions, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    words = ["--encoder", run, "--data", lesions, "--label", "lesions", "--group", "patient", "--ordinal=yes"]
    outcome = verb("evaluate", *words, "--folds=2", "--draws=100", "--random_seeds=2", "--k=5")
    assert outcome.code == 0, outcome.err
    saved = json.loads((run / "evaluation_lesions.json").read_text())
    rows = {(row["features"], row["method"], row["metric"]) for row in saved["rows"]}
    assert {features for features, *_ in rows} == {"encoder", "random weights", "pixel statistics"}
    assert {metric for *_, metric in rows} == {"balanced accuracy", "AUROC", "quadratic kappa"}
    assert all(row["low"] <= row["high"] for row in saved["rows"])
    assert saved["groups"] == 15
    assert "30 of these 30 images were seen in pretraining" in outcome.out
    assert "What the features are worth" in (run / "report.html").read_text()
    again = verb("evaluate", *words)
    assert again.code == 2
    assert "--overwrite" in again.sentence


@pytest.mark.parametrize("mode", ["linear", "full"])
def test_finetune_trains_and_scores_the_test_groups(verb, trained, lesions, tmp_path, mode):
    words = ["--encoder", trained, "--data", lesions, "--label", "lesions", "--group=patient", "--out", tmp_path / mode]
    few = ["--training.steps=4", "--training.warmup_steps=1", "--training.validate_every=2"]
    outcome = verb("finetune", mode, *words, *few, "--batch_size=4", "--draws=100", "--validation=0.3", "--test=0.3")
    assert outcome.code == 0, outcome.err
    scores = json.loads((tmp_path / mode / "scores.json").read_text())
    assert {row["metric"] for row in scores} == {"balanced accuracy", "AUROC"}
    predictions = pq.read_table(tmp_path / mode / "predictions.parquet")
    assert predictions.column_names == ["file", "p_0", "p_1"]
    before, after = core.load_encoder(trained), core.load_encoder(tmp_path / mode)
    same = [torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(same) if mode == "linear" else not all(same)


def test_numbers_are_learnt_and_a_fine_tuned_model_answers_in_python_as_the_test_did(verb, trained, lesions, tmp_path):
    ages = lesions.parent / "ages.csv"
    rows = [line.split(",") for line in lesions.read_text().splitlines()[1:]]
    ages.write_text(
        "file,age,patient\n" + "\n".join(f"{file},{40.5 + 3 * row},{who}" for row, (file, _, who) in enumerate(rows))
    )
    words = ["--encoder", trained, "--data", ages, "--label=age", "--group=patient", "--out", tmp_path / "age"]
    few = ["--training.steps=4", "--training.warmup_steps=1", "--training.validate_every=2"]
    outcome = verb(
        "finetune", "regress", *words, *few, "--batch_size=4", "--draws=100", "--validation=0.3", "--test=0.3"
    )
    assert outcome.code == 0, outcome.err
    scores = json.loads((tmp_path / "age" / "scores.json").read_text())
    assert {row["metric"] for row in scores} == {"R2", "MAE", "RMSE"}
    predictions = pq.read_table(tmp_path / "age" / "predictions.parquet").to_pylist()
    model = load_model(tmp_path / "age")
    for row in predictions[:2]:
        (answer,) = model.probabilities(model.encoder.preprocess(open_image(row["file"])))[0].tolist()
        assert answer == pytest.approx(row["age"], rel=1e-4)


def test_a_run_is_repeated_from_its_own_config(verb, trained, tmp_path):
    outcome = verb("pretrain", "--config", trained / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    one, two = (path / "step_000004" / "model.safetensors" for path in (trained, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()


def test_the_method_is_changed_by_its_name(verb, samples, tmp_path):
    quick = ["--steps=2", "--optim.warmup_steps=1", "--data.streams.0.batch_size=2"]
    words = ["--data", samples / "photographs", "--recipe=mae", "--recipe.masker.ratio=0.5", "--out", tmp_path / "mae"]
    outcome = verb("pretrain", "tiny", *words, *quick)
    assert outcome.code == 0, outcome.err
    config = (tmp_path / "mae" / "config.yaml").read_text()
    assert "kind: mae" in config
    assert "gradient" not in config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_say_what_they_cost(name):
    preset = PRESETS[name]()
    assert PRESETS[name].__doc__
    assert "Source:" in PRESETS[name].__doc__
    with torch.device("meta"):
        recipe = preset.recipe.build()
    size = sum(p.numel() for p in recipe.encoder.parameters()) / 1e6
    expected = {"tiny": 2.9, "small": 22, "base": 87, "large": 305, "uni4eye_large": 308}[name]
    assert size == pytest.approx(expected, rel=0.05)


def test_a_config_is_fitted_to_its_images_once(samples):
    manifest, what = collect([str(samples)], quiet=True)
    assert what == "30 photographs and 10 volumes in 40 groups"
    fitted = resolve(tiny(), manifest)
    assert resolve(fitted, manifest) == fitted
    spacing = {entry.name: entry.spacing for entry in fitted.recipe.encoder.contract.inputs}["volume"]
    assert spacing == pytest.approx(np.median(manifest.select(ndim=3).column("spacing"), axis=0), rel=1e-2)
    alone = resolve(tiny(), manifest.select(ndim=3))
    assert [stream.input for stream in alone.data.streams] == ["volume"]
    assert [entry.name for entry in alone.recipe.encoder.contract.inputs] == ["volume"]
