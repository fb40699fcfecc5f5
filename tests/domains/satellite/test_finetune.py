from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning

from core.cli import Options
from core.config import from_dict, load, to_dict
from core.errors import ConfigError, DataError, MissingDataError, UnsafeError
from core.heads.load import load_model
from core.viz import NATURAL
from datasets import build_manifest
from datasets.converting.prepare import convert
from domains.satellite.finetune import PRESETS, FinetuneScenes, refuse, run
from domains.satellite.predict import Predict, plan
from domains.satellite.predict import run as run_predict
from domains.satellite.scenes import Reading
from domains.satellite.sections import described, read_sections
from domains.satellite.segmenting import LabelMaps
from tests.domains.satellite.labelled import PLACE, write
from tests.domains.satellite.models import reads, save_encoder

FEW = {"steps": 6, "warmup_steps": 1, "validate_every": 3, "seed": 1}


def config(preset: str, encoder: Path, data: Path, **changes: object) -> FinetuneScenes:
    plain = PRESETS[preset]()
    label = changes.pop("label", None)
    group = changes.pop("group", None)
    training = replace(plain.training, **(FEW | changes.pop("training", {})))  # type: ignore[arg-type]
    images = replace(plain.images, encoder=str(encoder), data=(str(data),), label=label, group=group)  # type: ignore[arg-type]
    return replace(plain, images=images, batch_size=4, draws=100, training=training, **changes)  # type: ignore[arg-type]


def encoder(folder: Path, **changes: object) -> Path:
    save_encoder(folder / "encoder", reads(("b1", "b0"), **({"spacing": (10.0, 10.0), "size": (16, 16)} | changes)))
    return folder / "encoder"


def encoder_of_pixels(folder: Path) -> Path:
    """Save an encoder to which pixels have no size in metres, and whole images are what is resized to its window."""
    return encoder(folder, unit="px", spacing=(1.0, 1.0))


def scene(path: Path, seed: int = 0, size: tuple[int, int] = (80, 96)) -> np.ndarray:
    """Write a scene of smooth patches, of which the label is the sign of the first band's, and give that label."""
    draw = np.random.Generator(np.random.Philox(key=seed))
    coarse = draw.random((size[0] // 8, size[1] // 8)) > 0.5
    label = np.kron(coarse, np.ones((8, 8), int))
    values = np.stack([0.2 + 0.5 * label, 0.4 + 0 * label]) + 0.02 * draw.standard_normal((2, *size))
    values[:, :3, :5] = -9.0
    write(path, values.astype(np.float32), nodata=-9.0)
    return label


def test_classes_of_pixels_are_learnt_from_a_raster_and_the_model_is_what_predict_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = scene(tmp_path / "scene.tif", size=(64, 64))
    raster = np.where(label > 0, 7, 3).astype(np.uint8)
    raster[40:44] = 0
    write(tmp_path / "cover.tif", raster, nodata=0)
    maps = LabelMaps(rasters=(str(tmp_path / "cover.tif"),), names=("7=forest",))
    given = config(
        "segment",
        encoder(tmp_path),
        tmp_path / "scene.tif",
        maps=maps,
        training={"steps": 16, "validate_every": 8, "lr": 0.05},
    )
    out = run(given, Options(out=tmp_path / "run"))
    assert re.search(
        r"labels: train \d+ blocks \(pixels of class 3: \d+, forest: \d+\); validation", capsys.readouterr().err
    )
    scores = {row["metric"]: row for row in json.loads((out / "scores.json").read_text())}
    assert scores["mean IoU"]["value"] > 0.6
    assert {"IoU of class 3", "IoU of forest", "Dice of forest", "pixel accuracy"} <= set(scores)
    model = load_model(out)
    assert (model.task, model.classes, model.about["codes"]) == ("segment", ("3", "forest"), [3, 7])
    cells = pq.read_table(out / "predictions.parquet").to_pydict()
    right = sum(cells["right"]) / sum(cells["labelled"])
    assert right == pytest.approx(scores["pixel accuracy"]["value"])
    assert from_dict(FinetuneScenes, load(out / "config.yaml")) == given
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "validation"] == [8, 16]
    panels = json.loads((out / "figures/panels.json").read_text())
    assert [name for name, _ in panels["legend"]] == ["3", "forest", "right", "wrong"]
    told = [
        re.fullmatch(r"scene.tif, (.+): (\d+) of (\d+) labelled places are right.", row["said"])
        for row in panels["rows"]
    ]
    shown = {match[1]: (int(match[2]), int(match[3])) for match in told if match}
    assert len(shown) == len(panels["rows"]) == min(6, len(cells["block"]))
    counts = dict(zip(cells["block"], zip(cells["right"], cells["labelled"], strict=True), strict=True))
    assert all(counts[block] == found for block, found in shown.items()), "the pictures show what was scored"
    shares = [right / labelled for right, labelled in shown.values()]
    assert shares == sorted(shares)
    page = (out / "report.html").read_text()
    assert "IoU by class" in page and page.count("Right and wrong") == 2 * len(shown)
    assert NATURAL in page, "how the colours of a scene are made is said"
    with Image.open(out / "figures" / panels["rows"][0]["columns"][3]["file"]) as picture:
        drawn = np.asarray(picture)
    right, labelled = next(iter(shown.values()))
    assert (drawn[..., :3] == (58, 63, 72)).all(-1).sum() == right
    assert (drawn[..., :3] == (230, 100, 0)).all(-1).sum() == labelled - right


def with_own_rasters(folder: Path) -> None:
    """Write two scenes, a raster of labels for each, and the list that names both."""
    lines = ["file,labels"]
    for number in range(2):
        label = scene(folder / f"s{number}.tif", number, (64, 64))
        write(folder / f"cover{number}.tif", (label + 1).astype(np.uint8))
        lines.append(f"s{number}.tif,cover{number}.tif")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")


def test_each_scene_may_name_its_own_raster_and_blocks_are_of_the_ground(tmp_path: Path) -> None:
    with_own_rasters(tmp_path)
    given = config("upernet", encoder(tmp_path), tmp_path / "list.csv", label="labels")
    given = replace(given, maps=replace(given.maps, width=8))
    out = run(given, Options(out=tmp_path / "run"))
    cells = pq.read_table(out / "predictions.parquet").to_pydict()
    by_file = {
        name: {b for f, b in zip(cells["file"], cells["block"], strict=True) if f.endswith(name)}
        for name in ("s0.tif", "s1.tif")
    }
    assert by_file["s0.tif"] == by_file["s1.tif"]  # one place, both dates: in one split
    # the corner of each scene that is not measured is not scored either
    corner = {"EPSG:32633 block -31250,3125"} & by_file["s0.tif"]
    assert sum(cells["labelled"]) == 2 * (256 * len(by_file["s0.tif"]) - 15 * len(corner))


def chips(
    folder: Path, count: int = 24, *sizes: tuple[int, int], place: Affine | None = PLACE, hole: bool = False
) -> list[float]:
    """Write chips of these sizes by turns, and their list; a hole is a margin that is not measured, of every third."""
    sizes = sizes or ((16, 16),)
    draw = np.random.Generator(np.random.Philox(key=9))
    levels = [float(level) for level in draw.uniform(0.1, 0.9, count)]
    lines = ["file,place,level,kind,section"]
    for number, level in enumerate(levels):
        size = sizes[number % len(sizes)]
        values = np.stack([np.full(size, level), np.full(size, 0.4)]) + 0.02 * draw.standard_normal((2, *size))
        if hole and number % 3 == 0:
            values[number % 2, :3] = values[:, :, -1] = -9.0
        write(folder / f"c{number}.tif", values.astype(np.float32), place, nodata=-9.0)
        section = np.zeros((5, 4), np.uint8)
        section[: round(5 * level)] = 1
        section[0, 0] = 255
        np.save(folder / f"c{number}.npy", section)
        lines.append(
            f"c{number}.tif,p{number // 2},{300 + 20 * level:.4f},{'dry' if level > 0.5 else 'wet'},c{number}.npy"
        )
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return levels


@pytest.mark.slow
def test_numbers_of_scenes_are_learnt_in_their_unit(tmp_path: Path) -> None:
    levels = chips(tmp_path)
    given = config(
        "regress",
        encoder(tmp_path),
        tmp_path / "list.csv",
        label="level",
        group="place",
    )
    out = run(given, Options(out=tmp_path / "run"))
    table = pq.read_table(out / "predictions.parquet").to_pydict()
    truth = [300 + 20 * levels[int(Path(file).stem[1:])] for file in table["file"]]
    assert min(table["level"]) > 290  # not in units of the head, which are about 0
    assert max(table["level"]) < 330
    scores = {row["metric"]: row["value"] for row in json.loads((out / "scores.json").read_text())}
    assert scores["MAE"] == pytest.approx(float(np.abs(np.array(truth) - table["level"]).mean()), abs=1e-3)
    assert load_model(out).task == "regress"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"draws": 99}, "expected draws >= 100 for a 95 % interval, got 99"),
        ({"validation": 0.0}, "above 0 that leave some to train on, got 0.0 and 0.2"),
        ({"test": 0.8}, "above 0 that leave some to train on, got 0.2 and 0.8"),
    ],
)
@pytest.mark.parametrize("preset", ["linear", "segment"])
def test_what_could_not_be_scored_is_refused_before_training(
    preset: str, option: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(PRESETS[preset](), **option)


@pytest.mark.parametrize("given", ["inf", "about 300"])
def test_labels_that_are_no_finite_numbers_are_refused_before_training(tmp_path: Path, given: str) -> None:
    chips(tmp_path)
    lines = (tmp_path / "list.csv").read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:2], given, *cells[3:]])
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    asked = config("regress", encoder(tmp_path), tmp_path / "list.csv", label="level", group="place")
    with pytest.raises(DataError, match=rf"{cells[0]}: expected a finite number as 'level', got '{given}'"):
        run(asked, Options(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def with_split(path: Path, words: list[str]) -> dict[str, str]:
    """Add a column `split` to a list, of these words, and give the word of each file."""
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},split", *(f"{r},{w}" for r, w in zip(rows, words, strict=True))]) + "\n")
    return {row.split(",")[0]: word for row, word in zip(rows, words, strict=True)}


def test_a_split_of_the_list_itself_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chips(tmp_path, 48)
    words = with_split(tmp_path / "list.csv", (["train"] * 24 + ["val"] * 10 + ["test"] * 12 + ["extra"] * 2))
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    out = run(replace(given, split=("extra=none",)), Options(out=tmp_path / "run"))
    told = capsys.readouterr()
    said = (
        "the list's own column `split` is used: train 24 images, validation (val) 10 images, test 12 images, 2 left out"
    )
    assert said in told.err and "the list's test images, linear: AUROC" in told.out
    scores = json.loads((out / "scores.json").read_text())
    assert {(row["features"], row["groups"]) for row in scores} == {("the list's test images", 6)}
    files, _ = scored(out)
    assert sorted(file.name for file in files) == sorted(name for name, word in words.items() if word == "test")
    recorded = pq.read_table(out / "data.parquet").to_pydict()
    expected = {"train": "train", "val": "validation", "test": "test"}
    found = {Path(file).name: part for file, part in zip(recorded["file"], recorded["split"], strict=True)}
    assert found == {name: expected[word] for name, word in words.items() if word != "extra"}
    assert load_model(out).about["split"] == said
    page = (out / "report.html").read_text()
    assert "column `split` is used" in page and "24 with a label, in 12 groups" in page
    again = replace(given, images=replace(given.images, data=(str(out / "data.parquet"),)))
    run(again, Options(out=tmp_path / "again"))
    assert sorted(scored(tmp_path / "again")[0]) == sorted(files), "a run's own table keeps its parts"


def test_what_the_split_of_a_list_leaves_open_is_dealt_out_of_its_training_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chips(tmp_path, 48)
    words = with_split(tmp_path / "list.csv", ["test"] * 12 + ["train"] * 36)
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind", group="place", validation=0.3)
    out = run(given, Options(out=tmp_path / "run"))
    assert "train 36 images, validation dealt out of train, test 12 images" in capsys.readouterr().err
    recorded = pq.read_table(out / "data.parquet").to_pydict()
    found = {Path(file).name: part for file, part in zip(recorded["file"], recorded["split"], strict=True)}
    assert {name for name, part in found.items() if part == "test"} == {n for n, w in words.items() if w == "test"}
    places = {part: {int(name[1:-4]) // 2 for name in found if found[name] == part} for part in found.values()}
    assert not places["train"] & places["validation"] and len(places["validation"]) >= 2
    with pytest.raises(ConfigError, match=r"--test=0\.3 has no effect: the list's own column `split` says which"):
        run(replace(given, test=0.3), Options(out=tmp_path / "other"))
    dealt = run(replace(given, test=0.3, split=("dealt",)), Options(out=tmp_path / "dealt"))
    assert "is left aside (--split=dealt): parts are dealt by group" in capsys.readouterr().err
    assert {row["features"] for row in json.loads((dealt / "scores.json").read_text())} == {"test images"}
    assert {file.name for file in scored(dealt)[0]} != {n for n, w in words.items() if w == "test"}


def test_images_that_are_in_two_parts_byte_for_byte_are_told_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chips(tmp_path, 48)
    with_split(tmp_path / "list.csv", ["train"] * 24 + ["val"] * 12 + ["test"] * 12)
    (tmp_path / "c47.tif").write_bytes((tmp_path / "c3.tif").read_bytes())
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind")
    out = run(given, Options(out=tmp_path / "run"))
    said = "2 of 48 images are in several parts, byte for byte: the model may be scored on what it has learnt."
    assert said in capsys.readouterr().err and said in (out / "report.html").read_text()


@pytest.mark.parametrize(("metres", "shared", "second"), [(20_000, 0, "train"), (320, 8, "val")])
def test_classes_of_pixels_keep_the_split_of_their_scenes_and_shared_ground_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metres: int, shared: int, second: str
) -> None:
    lines = ["file,labels,split"]
    for number, (word, east) in enumerate((("train", 0), (second, 10_000), ("test", metres))):
        label = scene(tmp_path / f"s{number}.tif", number, (64, 64))
        with rasterio.open(tmp_path / f"s{number}.tif") as file:
            values = file.read()
        place = Affine.translation(east, 0) @ PLACE
        write(tmp_path / f"s{number}.tif", values, place, nodata=-9.0)
        write(tmp_path / f"cover{number}.tif", (label + 1).astype(np.uint8), place)
        lines.append(f"s{number}.tif,cover{number}.tif,{word}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    given = config("segment", encoder(tmp_path), tmp_path / "list.csv", label="labels")
    out = run(given, Options(out=tmp_path / "run"))
    told, page = capsys.readouterr(), (out / "report.html").read_text()
    validation = {
        "train": "train 2 images, validation dealt out of train",
        "val": "train 1 images, validation (val) 1 images",
    }
    assert f"{validation[second]}, test 1 images" in told.err
    parts = pq.read_table(out / "data.parquet")["split"].to_pylist()
    assert parts == ["train", {"train": "train", "val": "validation"}[second], "test"]
    assert {Path(file).name for file in pq.read_table(out / "predictions.parquet")["file"].to_pylist()} == {"s2.tif"}
    assert {row["features"] for row in json.loads((out / "scores.json").read_text())} == {"the list's test blocks"}
    found = re.search(r"(\d+) of \d+ blocks of the ground are in several parts of the list's own split", told.err)
    assert (0 if found is None else int(found[1])) == shared
    assert ("blocks of the ground are in several parts" in page) == bool(shared)
    with pytest.raises(ConfigError, match=r"--test=0\.3 has no effect"):
        run(replace(given, test=0.3), Options(out=tmp_path / "other"))


def test_classes_of_scenes_are_learnt(tmp_path: Path) -> None:
    chips(tmp_path, 48)
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    out = run(given, Options(out=tmp_path / "run"))
    assert pq.read_table(out / "predictions.parquet").column_names == ["file", "p_dry", "p_wet"]
    assert load_model(out).classes == ("dry", "wet")


def test_a_head_of_whole_scenes_is_mapped_by_windows_of_the_size_that_it_was_trained_on(tmp_path: Path) -> None:
    chips(tmp_path, 48)
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    given = replace(given, images=replace(given.images, size=(8,)))  # of the encoder: 16
    out = run(given, Options(out=tmp_path / "run"))
    assert load_model(out).about["window"] == [8, 8]
    reading = Reading(data=(str(tmp_path / "c0.tif"),), device="cpu")
    assert "windows of 8 x 8 " in plan(Predict(model=str(out), reading=reading))
    described = json.loads((out / "head.json").read_text())
    del described["about"]["window"]  # as models of before have none
    (out / "head.json").write_text(json.dumps(described))
    assert "windows of 16 x 16 " in plan(Predict(model=str(out), reading=reading))


def mapped(model: Path, files: list[Path], out: Path, **options: object) -> list[np.ndarray]:
    """Map scenes with a model and give the maps, (K, Y, X) of probabilities or numbers each."""
    output = None if load_model(model).task == "regress" else "probabilities"
    reading = Reading(data=tuple(map(str, files)), device="cpu", **options)  # type: ignore[arg-type]
    run_predict(Predict(model=str(model), reading=reading, output=output, report=False), Options(out=out))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # some have no place
        maps = []
        for file in files:
            with rasterio.open(out / file.name if out.is_dir() else out) as made:
                maps.append(made.read())
    return maps


def scored(run: Path) -> tuple[list[Path], np.ndarray]:
    """Give the test images of a run, and what it answered to them, (N, K)."""
    table = pq.read_table(run / "predictions.parquet")
    answers = np.stack([table.column(name).to_numpy() for name in table.column_names[1:]], axis=1)
    assert len(answers) > 2 and np.ptp(answers[:, 0]) > 1e-3, "answers differ from scene to scene"
    return [Path(file) for file in table.column("file").to_pylist()], answers


@pytest.mark.parametrize(("preset", "label"), [("regress", "level"), ("linear", "kind")])
def test_a_scene_smaller_than_the_window_gets_the_same_answer_from_the_test_and_from_predict(
    tmp_path: Path, preset: str, label: str
) -> None:
    chips(tmp_path, 24 if preset == "regress" else 48, (10, 13))  # 130 of the 256 pixels of a window
    given = config(preset, encoder(tmp_path), tmp_path / "list.csv", label=label, group="place")
    run(given, Options(out=tmp_path / "run"))
    files, expected = scored(tmp_path / "run")
    for file, answer, row in zip(files, mapped(tmp_path / "run", files, tmp_path / "maps"), expected, strict=True):
        assert answer.shape == (len(row), 1, 1)
        np.testing.assert_allclose(answer[:, 0, 0], row, atol=1e-5, rtol=1e-6)
        with rasterio.open(tmp_path / "maps" / file.name) as made, rasterio.open(file) as asked:
            assert (made.crs, made.transform) == (asked.crs, asked.transform @ Affine.scale(16))


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        pytest.param("linear", ((10, 13),), id="smaller"),
        pytest.param("linear", ((16, 16),), id="equal"),
        pytest.param("linear", ((40, 28),), id="larger"),
        pytest.param("regress", ((40, 40),), id="larger, a number"),
        pytest.param("regress", ((12, 15), (16, 16), (33, 50), (90, 60)), id="mixed, a number"),
    ],
)
def test_a_scene_whose_pixels_have_no_size_gets_the_same_answer_from_the_test_and_from_predict(
    tmp_path: Path, sizes: tuple[tuple[int, int], ...], preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chips(tmp_path, 24 if preset == "regress" else 48, *sizes, place=None, hole=True)
    label = {"linear": "kind", "regress": "level"}[preset]
    given = config(preset, encoder_of_pixels(tmp_path), tmp_path / "list.csv", label=label, group="place")
    out = run(given, Options(out=tmp_path / "run"))
    largest = [max(lengths) for lengths in zip(*sizes, strict=True)]
    assert load_model(out).about["scene"] == largest
    least, most = (f"{y} x {x}" for y, x in ([min(lengths) for lengths in zip(*sizes, strict=True)], largest))
    between = most if least == most else f"{least} to {most}"
    line = f"scenes of {between} pixels are learnt and scored as a whole, each resized to fit into 16 x 16 (--size)"
    assert (line in capsys.readouterr().err) == (sizes != ((16, 16),))
    files, expected = scored(out)
    for answer, row in zip(mapped(out, files, tmp_path / "maps"), expected, strict=True):
        assert answer.shape == (len(row), 1, 1)
        np.testing.assert_allclose(answer[:, 0, 0], row, atol=1e-5, rtol=1e-6)


def test_a_scene_larger_than_those_that_were_learnt_gets_an_answer_for_each_window_of_their_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chips(tmp_path, 48, (40, 24))
    given = config("linear", encoder_of_pixels(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    out = run(given, Options(out=tmp_path / "run"))
    files, expected = scored(out)
    pixels = []
    for file in files[:4]:
        with rasterio.open(file) as chip:
            pixels.append(chip.read())
    rows = [np.concatenate(pair, axis=2) for pair in (pixels[:2], pixels[2:4])]
    wide = write(tmp_path / "wide.tif", np.concatenate([*rows, rows[0][:, :10], rows[0][:, :11]], axis=1)[:, :101])
    (made,) = mapped(out, [wide], tmp_path / "map.tif")
    assert made.shape == (2, 3, 2)
    np.testing.assert_allclose(made[:, :2].reshape(2, 4), expected[:4].T, atol=1e-5)
    assert np.isfinite(made[:, 2]).all(), "21 of 40 rows are there"
    with rasterio.open(tmp_path / "map.tif") as answer:
        assert answer.transform == PLACE @ Affine.scale(24, 40)
    capsys.readouterr()
    (coarse,) = mapped(out, [wide], tmp_path / "coarse.tif", window=(101, 48))
    assert coarse.shape == (2, 1, 1), "--window says how much of a scene is looked at at once"
    assert "1 windows of 101 x 48, each resized to 16 x 16," in capsys.readouterr().err


def test_a_model_that_does_not_say_how_large_its_scenes_were_looks_at_windows_of_its_own_size_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chips(tmp_path, 48, (40, 40))
    given = config("linear", encoder_of_pixels(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    out = run(given, Options(out=tmp_path / "run"))
    described = json.loads((out / "head.json").read_text())
    del described["about"]["scene"]  # as models of before have none
    (out / "head.json").write_text(json.dumps(described))
    files, expected = scored(out)
    said = "c\\d+.tif: .*run does not say how large the scenes were .* looks at windows of 16 x 16 pixels; .*--window"
    (made,) = mapped(out, files[:1], tmp_path / "map.tif")
    assert made.shape == (2, 3, 3) and re.search(said, capsys.readouterr().err)
    (made,) = mapped(out, files[:1], tmp_path / "again.tif", window=(40,))
    np.testing.assert_allclose(made[:, 0, 0], expected[0], atol=1e-5)
    assert not re.search(said, capsys.readouterr().err)


def test_of_a_scene_in_metres_the_middle_is_scored_and_mapped_alike(tmp_path: Path) -> None:
    chips(tmp_path, 48, (48, 80))
    given = config("linear", encoder(tmp_path), tmp_path / "list.csv", label="kind", group="place")
    out = run(given, Options(out=tmp_path / "run"))
    assert "scene" not in load_model(out).about
    files, expected = scored(out)
    for answer, row in zip(mapped(out, files, tmp_path / "maps"), expected, strict=True):
        assert answer.shape == (2, 3, 5)
        np.testing.assert_allclose(answer[:, 1, 2], row, atol=1e-5)


@pytest.mark.slow
def test_sections_of_clouds_are_learnt(tmp_path: Path) -> None:
    chips(tmp_path)
    given = config(
        "cloud_mask", encoder(tmp_path), tmp_path / "list.csv", label="section", group="place", cloud_widths=(8, 8)
    )
    out = run(given, Options(out=tmp_path / "run"))
    model = load_model(out)
    assert (model.task, model.classes, model.spec.size) == ("cloud_mask", ("cloud",), (5, 4))  # type: ignore[attr-defined]
    panels = json.loads((out / "figures/panels.json").read_text())
    found = pq.read_table(out / "predictions.parquet").to_pydict()
    scored = {Path(f).name: (r, m) for f, r, m in zip(found["file"], found["right"], found["measured"], strict=True)}
    assert len(panels["rows"]) == min(6, len(scored))
    for row in panels["rows"]:
        name, _, said = row["said"].partition(": ")
        assert said == "{} of {} labelled places are right.".format(*scored[name])
        assert [(c["width"], c["height"]) for c in row["columns"]] == [(16, 16), (5, 4), (5, 4), (5, 4)]
        with Image.open(out / "figures" / row["columns"][1]["file"]) as picture:
            drawn = np.asarray(picture)[..., :3]
        section = np.load(tmp_path / name.replace(".tif", ".npy"))
        for height, length in np.ndindex(4, 5):  # the lowest level is the last row
            colour = {0: (86, 180, 233), 1: (90, 90, 96), 255: (232, 232, 232)}[int(section[length, height])]
            assert tuple(drawn[3 - height, length]) == colour
    scores = {row["metric"] for row in json.loads((out / "scores.json").read_text())}
    assert {"IoU of clear", "IoU of cloud", "pixel accuracy"} <= scores
    table = pq.read_table(out / "predictions.parquet").to_pydict()
    assert set(table["measured"]) == {19}  # of 20 places one was not measured
    np.save(tmp_path / "c3.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"c3\.npy: expected a section of \(5, 4\), got \(2, 2\)"):
        run(given, Options(out=tmp_path / "again"))


def test_scenes_that_are_larger_than_their_section_are_refused(tmp_path: Path) -> None:
    chips(tmp_path, 6)
    scene(tmp_path / "c2.tif", size=(16, 24))
    given = config(
        "cloud_mask", encoder(tmp_path), tmp_path / "list.csv", label="section", group="place", cloud_widths=(8, 8)
    )
    with pytest.raises(
        DataError, match=r"c2\.tif: expected a scene of \(16, 16\) pixels around its section, got \(16, 24\)"
    ):
        run(given, Options(out=tmp_path / "run"))


def test_files_of_labels_are_looked_for_in_the_folder_of_their_list_alone(tmp_path: Path) -> None:
    inner = tmp_path / "scenes"
    inner.mkdir()
    scene(inner / "a.tif")
    np.save(tmp_path / "out.npy", np.zeros((5, 4)))
    write(tmp_path / "out.tif", np.ones((80, 96), np.uint8))
    trained = encoder(tmp_path)
    for ending, preset in (("npy", "cloud_mask"), ("tif", "segment")):
        (inner / "list.csv").write_text(f"file,label\na.tif,../out.{ending}\n")
        given = config(preset, trained, inner / "list.csv", label="label")
        given = replace(given, images=replace(given.images, size=(80, 96)))
        with pytest.raises(UnsafeError, match=rf"out\.{ending}: expected a file inside .*scenes, .*`--allow-outside`"):
            run(given, Options(out=tmp_path / "run"))
        given = replace(given, images=replace(given.images, allow_outside=True))
        with pytest.raises(
            DataError, match="expected training places of every class|expected labels of at least 2 classes"
        ):
            run(given, Options(out=tmp_path / "run"))
        (inner / "list.csv").write_text(f"file,label\na.tif,gone.{ending}\n")
        with pytest.raises(MissingDataError, match=rf"of .*a\.tif, but .*gone\.{ending} does not exist; mend the list"):
            run(given, Options(out=tmp_path / "run"))


def test_labels_beside_scenes_do_not_come_along_when_those_are_converted_and_that_is_said(tmp_path: Path) -> None:
    with_own_rasters(tmp_path)
    convert([tmp_path / "list.csv"], tmp_path / "stores")
    given = config("segment", encoder(tmp_path), tmp_path / "stores", label="labels")
    said = r"of .*s0\.zarr, but .*images/cover0\.tif does not exist; `datasets.convert` leaves .* copy it there"
    with pytest.raises(MissingDataError, match=said):
        run(given, Options(out=tmp_path / "run"))
    for number in range(2):
        (tmp_path / f"cover{number}.tif").rename(tmp_path / f"stores/images/cover{number}.tif")
    assert load_model(run(given, Options(out=tmp_path / "run"))).classes == ("1", "2")


def test_what_is_no_section_is_named(tmp_path: Path) -> None:
    chips(tmp_path, 6)
    manifest = build_manifest([str(tmp_path / "list.csv")])
    odd = np.array([[1, 0, 9, np.nan, 0]])
    np.save(tmp_path / "c0.npy", np.repeat(odd, 4, axis=0).T)
    found = read_sections(manifest, "section")
    assert found[0, :, 0].tolist() == [1, 0, -1, -1, 0]
    assert described(found[:1]) == (
        "sections of 5 places along the track and 4 heights: 20.0 % cloud, 40.0 % clear, 40.0 % not measured"
    )
    for content, said in (
        (np.array([[1, "a"]], object), r"as numpy\.save writes it, got: Object arrays cannot be loaded"),
        (np.array([["0", "1"]]), "expected a section of numbers, got <U1"),
    ):
        np.save(tmp_path / "c3.npy", content, allow_pickle=True)
        with pytest.raises(DataError, match=rf"c3\.npy: .*{said}") as refused:
            read_sections(manifest, "section")
        assert "unsafely" not in str(refused.value)
    (tmp_path / "c3.npy").write_text("no")
    with pytest.raises(DataError, match=r"c3\.npy: expected a \.npy file of a section, as numpy\.save writes it"):
        read_sections(manifest, "section")


def test_labels_that_cannot_be_used_are_told_before_training(tmp_path: Path) -> None:
    label = scene(tmp_path / "scene.tif")
    trained = encoder(tmp_path)
    far = PLACE.translation(9e5, 0) @ PLACE
    write(tmp_path / "far.tif", (label + 1).astype(np.uint8), far)
    maps = LabelMaps(rasters=(str(tmp_path / "far.tif"),))
    given = config("segment", trained, tmp_path / "scene.tif", maps=maps)
    with pytest.raises(DataError, match=r"no label raster has any where a scene lies \(scenes looked at: 1\)"):
        run(given, Options(out=tmp_path / "run"))
    with pytest.raises(MissingDataError, match=r"expected a label raster, but .*gone\.tif does not exist"):
        run(replace(given, maps=LabelMaps(rasters=(str(tmp_path / "gone.tif"),))), Options(out=tmp_path / "run"))
    write(tmp_path / "near.tif", (label + 1).astype(np.uint8))
    one = replace(given, maps=LabelMaps(rasters=(str(tmp_path / "near.tif"),), block=1000))
    with pytest.raises(
        DataError, match=r"at least 2 labelled blocks \(of 1; --block sets their size\) in the split 'test'"
    ):
        run(one, Options(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--maps.block has no effect on the task 'classify'"):
        replace(PRESETS["linear"](), maps=LabelMaps(block=3))
    with pytest.raises(ConfigError, match="--ordinal and --scale have no effect on the task 'segment'"):
        replace(PRESETS["segment"](), ordinal="yes")
    with pytest.raises(ConfigError, match="--cloud_widths has no effect on the task 'segment'"):
        replace(PRESETS["segment"](), cloud_widths=(1,))
    with pytest.raises(ConfigError, match="expected number=name, such as 2=forest, got 'forest'"):
        LabelMaps(names=("forest",))
    plain = PRESETS["segment"]()
    named = replace(plain, images=replace(plain.images, encoder="runs/x"))
    with pytest.raises(ConfigError, match="expected --rasters, or --label with the column"):
        refuse(named, Options(out=tmp_path / "run"))
    with pytest.raises(
        ConfigError, match=r"expected --encoder, a run folder of `python -m domains\.satellite\.pretrain`"
    ):
        refuse(plain, Options(out=tmp_path / "run"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_config_file(name: str) -> None:
    preset = PRESETS[name]()
    assert from_dict(FinetuneScenes, to_dict(preset)) == preset


@pytest.mark.slow
def test_land_cover_of_mexico_is_learnt_from_its_raster(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "satellite" / "landsat7_mexico"
    names = ("B1", "B2", "B3", "B4", "B5", "B7")
    space = {"normalisation": replace(reads(("a",)).inputs[0].normalisation, mean=(900.0,) * 6, std=(800.0,) * 6)}
    save_encoder(tmp_path / "encoder", reads(names, patch=(4, 4), **space))
    plain = PRESETS["upernet"]()
    given = replace(
        plain,
        images=replace(
            plain.images,
            encoder=str(tmp_path / "encoder"),
            data=(str(folder / "LE70220491999322EDC01_stack.gtif"),),
            options=("geotiff.bands=[B1,B2,B3,B4,B5,B7,B6,fmask]",),
        ),
        maps=replace(plain.maps, rasters=(str(folder / "training_data.gtif"),), block=16, width=32),
        training=replace(plain.training, steps=150, warmup_steps=8, validate_every=50),
        draws=200,
    )
    out = run(given, Options(out=tmp_path / "run"))
    scores = {row["metric"]: row["value"] for row in json.loads((out / "scores.json").read_text())}
    assert scores["balanced pixel accuracy"] > 0.35  # guessing: 0.2
    assert load_model(out).about["codes"] == [1, 2, 3, 4, 5]
