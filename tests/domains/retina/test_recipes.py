"""Every recipe from the command line, as somebody types it who has read one page: train, load, embed, report."""

from __future__ import annotations

import csv
import json
import math
import shutil

import pytest
import torch

import core
from core import registry
from core.config import load
from datasets import open_image

VIT = "--recipe.encoder.width 48 --recipe.encoder.depth 2"
HEAD = "--recipe.head.hidden 64 --recipe.head.bottleneck 32 --recipe.head.num_prototypes 128"
TEXT = (
    "--recipe.text.width 24 --recipe.text.depth 1 --recipe.text.heads 2 --recipe.text.inner 48 --recipe.text.length 16"
)
TEACHER = "--recipe.teacher frozen --recipe.teacher.path {teacher}"
SWIN = "--recipe.encoder swinv2 --recipe.encoder.width 24 --recipe.encoder.depths 1,1 --recipe.encoder.heads 1,2"
WINDOW = "--recipe.encoder.window 4,4,4"
CONVNET = "--recipe.encoder convnet --recipe.encoder.widths 16,32,48 --recipe.encoder.depths 1,1,1"
GROUPS = "--recipe.encoder.contract.inputs.0.groups [[red],[green],[blue]]"

TYPED = {
    "attmask": f"{VIT} {HEAD}",
    "dmae": f"{VIT} {TEACHER}",
    "ibot": f"{VIT} {HEAD}",
    "maskalign": f"{VIT} {TEACHER}",
    "mr_mae": f"{VIT} {TEACHER}",
    "mrm": f"{VIT} {TEXT} --data.report findings",
    "multimae": f"{VIT} {GROUPS}",
    "simmim": f"{SWIN} {WINDOW}",
    "spark": f"{CONVNET} --recipe.predictor u_decoder --recipe.predictor.width 32",
}
TERMS = {
    "a2mim": {"image", "frequency"},
    "attmask": {"class", "patch"},
    "colormae": {"image"},
    "dbot": {"features"},
    "dmae": {"image", "teacher"},
    "fg_mae": {"hog"},
    "hpm": {"image", "ranking"},
    "ibot": {"class", "patch"},
    "latent_mim": {"contrast"},
    "localmim": {"scale_0_5", "scale_1", "scale_2", "scale_4"},
    "mae": {"image"},
    "maskalign": {"align"},
    "maskfeat": {"hog"},
    "mff": {"image"},
    "mr_mae": {"image", "mimic"},
    "mrm": {"image", "report"},
    "multimae": {"red", "green", "blue"},
    "shape_aware": {"image"},
    "simmim": {"image"},
    "spark": {"image"},
    "uni4eye": {"image", "gradient"},
}
LATENT = {"attmask", "dbot", "ibot", "latent_mim", "maskalign"}
FAST = {"hpm", "mae"}


def rows_of(path, kind=None):
    """Give the rows of a list, of one kind of image."""
    with path.open() as file:
        return [row for row in csv.DictReader(file) if kind is None or row["kind"] == kind]


@pytest.fixture(scope="session")
def eyes(samples):
    """A list of eight photographs with patients and reports; one has none."""
    path = samples / "reports.csv"
    rows = rows_of(samples / "labels.csv", "photograph")[:8]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", "patient", "findings"])
        for number, row in enumerate(rows):
            words = f"Fundus photograph, grade {row['grade']}, lesions: {row['grade'] != '0'}." if number else ""
            out.writerow([row["file"], row["patient"], words])
    return path


@pytest.fixture(scope="session")
def graded(samples):
    """A list of all photographs with two classes, lesions or none."""
    rows = rows_of(samples / "labels.csv", "photograph")
    path = samples / "lesions.csv"
    lines = [f"{row['file']},{int(row['grade'] != '0')},{row['patient']}\n" for row in rows]
    path.write_text("file,lesions,patient\n" + "".join(lines))
    return path


@pytest.fixture
def train(verb, eyes, trained, tmp_path):
    """Pretrain for two steps on the photographs."""

    def type_it(words, *more, out=None, data=eyes):
        few = ["--steps=2", "--optim.warmup_steps=1", "--data.streams.0.batch_size=2", "--data.held_out=0.25"]
        few += ["--recipe.encoder.contract.inputs.0.whole_size=128,128"]
        where = ["--data", data, "--group", "patient", "--out", out or tmp_path / "run"]
        return verb("pretrain", "tiny", *where, *few, *words.replace("{teacher}", str(trained)).split(), *more)

    return type_it


ALL = [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in registry.names("recipes")]


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_chosen_by_its_name_and_its_encoder_is_used(train, eyes, tmp_path, name):
    outcome = train(f"--recipe {name} {TYPED.get(name, VIT)}")
    assert outcome.code == 0, outcome.err
    run = tmp_path / "run"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for kind in ("step", "validation"):
        terms = [event["terms"] for event in events if event["event"] == kind]
        assert {frozenset(each) for each in terms} == {frozenset(TERMS[name])}
        assert all(math.isfinite(value) for each in terms for value in each.values())

    encoder = core.load_encoder(run)
    with torch.no_grad():
        vector = encoder(encoder.preprocess(open_image(eyes.parent / rows_of(eyes)[0]["file"])))
    assert vector.shape == (1, encoder.num_features)
    assert bool(torch.isfinite(vector).all())
    assert float(vector.std()) > 0

    page = (run / "report.html").read_text()
    panels = json.loads((run / "figures" / "panels.json").read_text())["rows"]
    assert panels
    assert all((len(row["columns"]) == 3) == (name in LATENT) for row in panels)
    assert ("predicts features, not images" in page) == (name in LATENT)
    assert ("seams show where the prediction is off" in page) == (name not in LATENT)


@pytest.mark.slow
def test_reports_have_a_tokenizer_of_their_own_that_moves_with_the_run(train, verb, tmp_path):
    words = f"--recipe mrm {VIT} {TEXT} --data.report findings"
    assert train(words, "--how.save_every=1").code == 0
    run, moved = tmp_path / "run", tmp_path / "moved"
    config = load(run / "config.yaml")
    assert config["recipe"]["text"]["tokenizer"] == ""
    assert "photograph" in json.loads((run / "tokenizer.json").read_text())["model"]["vocab"]

    shutil.copytree(run, moved)
    shutil.rmtree(moved / "step_000002")
    (moved / "last").write_text("step_000001\n")
    outcome = verb("pretrain", "--resume", "--out", moved)
    assert outcome.code == 0, outcome.err
    weights = [path / "step_000002" / "model.safetensors" for path in (run, moved)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    outcome = verb("pretrain", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "again" / "step_000002" / "model.safetensors").read_bytes() == weights[0].read_bytes()


@pytest.mark.slow
def test_crops_of_a_finer_target_are_loaded_finer_and_the_encoder_stays_as_it_is(train, tmp_path):
    outcome = train(f"--recipe mrm {VIT} {TEXT} --data.report findings --recipe.target.detail 2")
    assert outcome.code == 0, outcome.err
    entry = core.load_encoder(tmp_path / "run").contract.inputs[0]
    assert (entry.size, entry.whole, entry.patch, entry.spacing) == ((128, 128), (128, 128), (16, 16), (1.0, 1.0))
    row = json.loads((tmp_path / "run" / "figures" / "panels.json").read_text())["rows"][0]
    assert (row["columns"][0]["width"], row["columns"][0]["height"]) == (256, 256)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--recipe hmp", "no recipe is called 'hmp': did you mean 'hpm'?"),
        ("--recipe maskalign", "expected a value for 'recipe.teacher' of recipe 'maskalign'"),
        (
            "--recipe maskalign --recipe.teacher frozen",
            "expected a value for 'recipe.teacher.path' of teacher 'frozen'",
        ),
        (
            "--recipe dmae --recipe.teacher frozen --recipe.teacher.path nowhere",
            "expected a run folder, or a published encoder",
        ),
        (
            "--recipe multimae",
            "have none: declare them, such as --recipe.encoder.contract.inputs.0.groups '[[red],[green],[blue]]', or",
        ),
        (
            "--recipe spark --recipe.encoder convnet",
            "expected a value for 'recipe.encoder.widths', 'recipe.encoder.depths'",
        ),
        (f"--recipe mae {SWIN} {WINDOW}", "recipe 'mae' needs an encoder with the ability 'drop', got SwinV2"),
        (f"--recipe simmim {SWIN}", "expected a window of 3 axes for these inputs"),
        (f"--recipe ibot {VIT} --recipe.encoder.class_token no", "choose encoder 'vit' with class_token true"),
        ("--recipe mrm", "name the list's column of reports with --data.report COLUMN"),
        ("--recipe mrm --data.report finding", "no column of reports is called 'finding': did you mean 'findings'?"),
        ("--recipe mae --data.report findings", "has no effect with recipe 'mae', which reads no text"),
        ("--recipe mae --data.report_form words", "have no effect without 'data.report'"),
        ("--recipe mrm --data.report findings --data.report_template a", "expected one '{}' for the report, got 'a'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence_before_a_folder_exists(train, tmp_path, words, sentence):
    outcome = train(words)
    assert outcome.code == 2
    assert sentence in outcome.sentence
    assert outcome.err.count("error: ") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "--recipe mff",
        f"--recipe simmim {SWIN} {WINDOW}",
        f"--recipe multimae {VIT} {GROUPS} --recipe.encoder.contract.inputs.1.groups=[[intensity]]",
    ],
)
def test_both_kinds_of_image_take_turns(train, samples, tmp_path, words):
    turns = ["--data.streams.0.turns=1", "--data.streams.1.batch_size=2"]
    outcome = train(words, *turns, data=samples / "labels.csv")
    assert outcome.code == 0, outcome.err
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [event["stream"] for event in events if event["event"] == "step"] == ["photograph", "volume"]


@pytest.mark.slow
def test_a_volume_of_a_finer_target_keeps_the_length_of_a_voxel(train, samples, tmp_path):
    rows = rows_of(samples / "labels.csv", "volume")
    listed = samples / "volumes.csv"
    listed.write_text("file,patient,findings\n" + "".join(f"{row['file']},{row['patient']},a volume\n" for row in rows))
    words = f"--recipe mrm {VIT} {TEXT} --data.report findings"
    spacing = {}
    for detail in (1, 2):
        out = tmp_path / f"detail-{detail}"
        outcome = train(
            f"{words} --recipe.target.detail {detail}", "--data.streams.1.batch_size=2", data=listed, out=out
        )
        assert outcome.code == 0, outcome.err
        spacing[detail] = core.load_encoder(out).contract.inputs[0].spacing
    assert spacing[2] == pytest.approx([2 * step for step in spacing[1]], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        f"--recipe simmim {SWIN} {WINDOW}",
        f"--recipe spark {CONVNET}",
        f"--recipe ibot {VIT} {HEAD}",
        f"--recipe multimae {VIT} {GROUPS}",
        f"--recipe simmim --recipe.encoder relative_vit {VIT} --recipe.encoder.extent 4,8,8",
    ],
    ids=["swinv2", "convnet", "teacher of ibot", "band groups", "relative_vit"],
)
def test_every_kind_of_encoder_is_finetuned_and_embeds(train, verb, graded, tmp_path, words):
    run, labelled = tmp_path / "run", ["--data", graded, "--label", "lesions", "--group=patient"]
    assert train(words).code == 0
    few = ["--training.steps=2", "--training.warmup_steps=1", "--training.validate_every=2", "--batch_size=4"]
    shares = ["--draws=100", "--validation=0.3", "--test=0.3", "--out", tmp_path / "full"]
    outcome = verb("finetune", "full", "--encoder", run, *labelled, *few, *shares)
    assert outcome.code == 0, outcome.err
    before, after = core.load_encoder(run), core.load_encoder(tmp_path / "full")
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    outcome = verb("embed", "--encoder", run, "--data", graded, "--out", tmp_path / "vectors.parquet")
    assert outcome.code == 0, outcome.err


def test_the_list_of_presets_tells_the_recipes_too(verb):
    outcome = verb("pretrain", "--list")
    assert outcome.code == 0
    assert [name for name in registry.names("recipes") if f"\n  {name} " not in outcome.out] == []
    facts = " ".join(outcome.out.split())
    assert "of those as training goes on. Compute 2.34; encoder: drop; Wang et al. 2023, arXiv 2304.05919." in facts
