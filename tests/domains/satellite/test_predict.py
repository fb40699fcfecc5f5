"""Maps of whole scenes: where they lie, what they say, where they are silent, and what is refused."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from core.cli import Options
from core.errors import BandError, ConfigError, DataError, GeometryError, RunFolderError
from core.heads.load import Task
from datasets import build_manifest, open_image, whole_batches
from domains.satellite.predict import Predict, default_out, plan, run
from domains.satellite.products import colours, legend_of
from domains.satellite.scenes import Reading
from tests.domains.satellite.models import TRANSFORM, reads, save_model, write_scene

BANDS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def real(shared: Path) -> Path:
    return shared / "data/satellite/misc_geotiff/RGB.byte.tif"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "landcover"
    save_model(folder, reads(BANDS), about={"codes": [1, 2, 7]}, colours=((0, 90, 0), (0, 0, 200), (200, 0, 0)))
    return folder


def drawn(height: int = 70, width: int = 90, seed: int = 1) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(1, 255, (3, height, width)).astype(np.uint8)


def predict(model: Path, *data: Path, out: Path, overwrite: bool = False, **options: Any) -> Path:
    own = {name: options.pop(name) for name in ("output", "scheduler", "picture") if name in options}
    reading = Reading(data=tuple(map(str, data)), device="cpu", **options)
    return run(Predict(model=str(model), reading=reading, **own), Options(out=out, overwrite=overwrite))


def test_a_real_scene_is_mapped_where_it_lies(trained: Path, real: Path, tmp_path: Path) -> None:
    path = predict(trained, real, out=tmp_path / "map.tif", window=(128,), overlap=(32,))
    with rasterio.open(real) as scene, rasterio.open(path) as made:
        assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)
        assert (made.dtypes, made.nodata, made.descriptions) == (("uint8",), 255.0, ("class",))
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        found, measured = made.read(1), (scene.read() != 0).all(axis=0)
        assert np.array_equal(found != 255, measured)
        assert 0.1 < measured.mean() < 0.9, "the scene has both"
        assert set(np.unique(found[measured])) <= {1, 2, 7}
        assert made.colormap(1)[7] == (200, 0, 0, 255)
        assert made.tags(1)["CLASS_2"] == "water"


@pytest.mark.slow
def test_rio_says_the_same_of_scene_and_map(trained: Path, real: Path, tmp_path: Path) -> None:
    path = predict(trained, real, out=tmp_path / "map.tif", window=(256,), overlap=(0,))
    rio = Path(sys.executable).with_name("rio")
    if not rio.exists():
        pytest.skip("rasterio's command line is not installed")
    for fact in ("--crs", "--bounds", "--shape"):
        said = [
            subprocess.run([rio, "info", fact, file], capture_output=True, check=True).stdout for file in (real, path)
        ]
        assert said[0] == said[1] != b"", fact


def test_a_scene_of_one_window_gets_what_the_model_says(tmp_path: Path) -> None:
    model = save_model(tmp_path / "run", reads(BANDS))
    scene = write_scene(tmp_path / "scene.tif", drawn(32, 32), BANDS)
    path = predict(tmp_path / "run", scene, out=tmp_path / "map.tif", output="probabilities")
    with torch.no_grad():
        expected = model.probabilities(model.encoder.preprocess(open_image(scene)))[0].numpy()
    with rasterio.open(path) as file:
        assert np.abs(file.read() - expected).max() < 1e-6
        assert file.descriptions == ("forest", "water", "town")
        assert np.isnan(file.nodata)
    classes = predict(tmp_path / "run", scene, out=tmp_path / "classes.tif")
    with rasterio.open(classes) as file:
        assert np.array_equal(file.read(1), expected.argmax(axis=0))
        assert len(np.unique(file.read(1))) > 1, "the test can tell classes apart"


def test_classes_are_those_of_the_blended_probabilities(trained: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    names = {kind: tmp_path / f"{kind}.tif" for kind in ("classes", "probabilities")}
    for kind, path in names.items():
        predict(trained, scene, out=path, output=kind)
    with rasterio.open(names["classes"]) as classes, rasterio.open(names["probabilities"]) as shares:
        values = shares.read()
        assert np.allclose(values.sum(axis=0), 1, atol=1e-5)
        assert np.array_equal(classes.read(1), np.array([1, 2, 7])[values.argmax(axis=0)])


def test_band_order_in_the_file_changes_nothing(trained: Path, tmp_path: Path) -> None:
    image = drawn()
    first = predict(trained, write_scene(tmp_path / "a.tif", image, BANDS), out=tmp_path / "1.tif")
    turned = predict(trained, write_scene(tmp_path / "b.tif", image[::-1], BANDS[::-1]), out=tmp_path / "2.tif")
    with rasterio.open(first) as a, rasterio.open(turned) as b:
        assert np.array_equal(a.read(), b.read())


def test_a_prepared_store_gives_the_same_map(trained: Path, tmp_path: Path) -> None:
    image = drawn()
    image[:, :20, :20] = 0
    scenes = [write_scene(tmp_path / name, image, BANDS, nodata=0) for name in ("scene.tif", "scene.zarr")]
    maps = []
    for number, scene in enumerate(scenes):
        with rasterio.open(predict(trained, scene, out=tmp_path / f"{number}.tif")) as file:
            maps.append((file.read(), file.crs, file.transform))
    assert np.array_equal(maps[0][0], maps[1][0]) and maps[0][1:] == maps[1][1:]


def test_windows_are_those_that_the_head_was_trained_on(tmp_path: Path) -> None:
    save_model(tmp_path / "run", reads(BANDS), about={"window": [64, 64]})
    scene = write_scene(tmp_path / "scene.tif", drawn(128, 128), BANDS)
    reading = Reading(data=(str(scene),), device="cpu")
    assert "9 windows of 64 x 64 with an overlap of 16 x 16" in plan(
        Predict(model=str(tmp_path / "run"), reading=reading)
    )


def test_nodata_in_one_band_is_silent_or_by_choice_not(trained: Path, tmp_path: Path) -> None:
    image = drawn()
    image[1, 10:20, 30:50] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    for measured, blank in (("all", 200), ("any", 0)):
        path = predict(trained, scene, out=tmp_path / f"{measured}.tif", measured=measured)
        with rasterio.open(path) as file:
            assert (file.read(1) == 255).sum() == blank


def test_a_model_of_whole_tiles_gives_one_answer_per_window(tmp_path: Path) -> None:
    model = save_model(tmp_path / "run", reads(BANDS), "classify")
    image = drawn(70, 90)
    scene = write_scene(tmp_path / "scene.tif", image, BANDS)
    path = predict(tmp_path / "run", scene, out=tmp_path / "map.tif", output="probabilities")
    with torch.no_grad():
        padded = model.encoder.preprocess(open_image(write_scene(tmp_path / "t.tif", image[:, :32, 32:64], BANDS)))
        expected = model.probabilities(padded)[0].numpy()
    with rasterio.open(path) as file:
        assert file.shape == (3, 3)
        a, b, c, d, e, f = TRANSFORM
        assert tuple(file.transform)[:6] == (32 * a, b, c, d, 32 * e, f)
        values = file.read()
        assert np.abs(values[:, 0, 1] - expected).max() < 1e-4
        assert np.isfinite(values[:, 1, 2]).all(), "26 of 32 columns are there"
        assert np.isnan(values[:, 2]).all(), "6 of 32 rows are less than half of a window"


@pytest.mark.parametrize("size", [(20, 32), (32, 17), (21, 23), (32, 32)])
@pytest.mark.parametrize("task", ["segment", "classify", "regress"])
def test_a_scene_no_larger_than_the_window_gets_what_the_model_says_of_the_whole_image(
    task: Task, size: tuple[int, int], tmp_path: Path
) -> None:
    model = save_model(tmp_path / "run", reads(BANDS), task)
    image = drawn(*size)
    if task != "segment":  # whose map keeps to the pixels of the scene; answers to the whole look at its content
        image[:, :, :4] = 0
        image[:2, :3] = 0  # the third band has data here, and so it is content
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    output = None if task == "regress" else "probabilities"
    path = predict(tmp_path / "run", scene, out=tmp_path / "map.tif", output=output)
    manifest = build_manifest([scene])
    (whole,) = whole_batches(manifest, model.contract.inputs[0], 1)
    with torch.no_grad():
        expected = model.probabilities(whole)[0].numpy()
    if task == "segment":
        top, left = ((32 - n) // 2 for n in size)
        expected = expected[:, top : top + size[0], left : left + size[1]]
    with rasterio.open(path) as made, rasterio.open(scene) as asked:
        assert np.abs(made.read().reshape(expected.shape) - expected).max() < 1e-5
        assert (made.crs, made.transform) == (
            asked.crs,
            asked.transform @ rasterio.Affine.scale(1 if task == "segment" else 32),
        )


@pytest.mark.parametrize("size", [(20, 32), (9, 31), (21, 23), (32, 32)])
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_a_small_scene_fills_the_window_of_a_model_of_whole_images_whose_pixels_have_no_size(
    task: Task, size: tuple[int, int], tmp_path: Path
) -> None:
    model = save_model(tmp_path / "run", reads(BANDS, unit="px", spacing=(1.0, 1.0)), task)
    image = drawn(*size)
    image[1, :, : 2 * size[1] // 3] = 0  # most of it is not measured in one band, and so not content
    image[:, 5, 7] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    path = predict(
        tmp_path / "run", scene, out=tmp_path / "map.tif", output=None if task == "regress" else "probabilities"
    )
    (whole,) = whole_batches(build_manifest([scene]), model.contract.inputs[0], 1)
    with torch.no_grad():
        expected = model.probabilities(whole)[0].numpy()
    with rasterio.open(path) as made, rasterio.open(scene) as asked:
        assert np.abs(made.read()[:, 0, 0] - expected).max() < 1e-5
        assert (made.shape, made.crs, made.transform) == (
            (1, 1),
            asked.crs,
            asked.transform @ rasterio.Affine.scale(32),
        )


def test_a_regression_gives_numbers_with_units(tmp_path: Path) -> None:
    save_model(tmp_path / "run", reads(BANDS), "regress", units=("m", "%"))
    scene = write_scene(tmp_path / "scene.tif", drawn(64, 64), BANDS)
    path = predict(tmp_path / "run", scene, out=tmp_path / "map.tif")
    with rasterio.open(path) as file:
        assert (file.descriptions, file.units) == (("height", "cover"), ("m", "%"))
        assert np.isfinite(file.read()).all()
    with pytest.raises(ConfigError, match="a regression gives numbers"):
        predict(tmp_path / "run", scene, out=tmp_path / "other.tif", output="classes")


def test_scenes_of_a_folder_become_maps_of_a_folder(trained: Path, tmp_path: Path) -> None:
    for name in ("north", "south"):
        write_scene(tmp_path / f"scenes/{name}.tif", drawn(40, 40, len(name)), BANDS)
    out = predict(trained, tmp_path / "scenes", out=tmp_path / "maps")
    assert out == tmp_path / "maps"
    assert sorted(path.name for path in out.iterdir()) == [
        "north.overlay.png",
        "north.tif",
        "report.html",
        "south.overlay.png",
        "south.tif",
    ]
    with pytest.raises(ConfigError, match="expected a folder for 2 scenes"):
        predict(trained, tmp_path / "scenes", out=tmp_path / "map.tif")


@pytest.mark.parametrize("task", ["segment", "classify", "regress"])
def test_of_several_scenes_one_that_is_not_measured_gets_a_map_of_nodata_and_the_others_theirs(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "run", reads(BANDS), task)
    for name in ("a", "c"):
        write_scene(tmp_path / f"scenes/{name}.tif", drawn(40, 40, ord(name)), BANDS, nodata=0)
    write_scene(tmp_path / "scenes/b.tif", np.zeros((3, 70, 40), np.uint8), BANDS, nodata=0)
    out = predict(tmp_path / "run", tmp_path / "scenes", out=tmp_path / "maps")
    said = capsys.readouterr().err
    assert said.count("b.tif: nowhere is ") == said.count("Its map is nodata everywhere.") == 1
    for name, share in (("a", 1.0), ("b", 0.0), ("c", 1.0)):
        alone = out / f"{name}.tif"
        with rasterio.open(alone) as made, rasterio.open(tmp_path / f"scenes/{name}.tif") as scene:
            cell = 1 if task == "segment" else 32
            assert made.shape == tuple(-(-n // cell) for n in scene.shape)
            assert (made.crs, made.transform) == (scene.crs, scene.transform @ rasterio.Affine.scale(cell))
            valid = made.read_masks() > 0
            assert (valid[:, 0, 0] == bool(share)).all() and (share or not valid.any())
    page = re.sub(r'src="data:[^"]*"', "", (out / "report.html").read_text())
    assert "b.tif: nothing of it is measured, and its map is nodata everywhere." in page
    assert all(page.count(f'<h3 class="apart">{name}.tif</h3>') == 1 for name in "abc") and "not finite" not in page
    assert page.index(">a.tif<") < page.index(">b.tif<") < page.index(">c.tif<")
    again = predict(tmp_path / "run", tmp_path / "scenes", out=tmp_path / "maps", overwrite=True)
    assert sorted(again.iterdir()) == sorted(out.iterdir())


def test_scenes_of_which_none_is_measured_are_refused_and_maps_of_before_stay(trained: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scene(tmp_path / f"scenes/{name}.tif", drawn(40, 40), BANDS, nodata=0)
        write_scene(tmp_path / f"blank/{name}.tif", np.zeros((3, 40, 40), np.uint8), BANDS, nodata=0)
    out = predict(trained, tmp_path / "scenes", out=tmp_path / "maps")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=r"in none of 2 scenes is there anything to map: .*a.tif: nowhere is a pixel"):
        predict(trained, tmp_path / "blank", out=out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_volume_of_memory_is_said_before(trained: Path, real: Path) -> None:
    text = plan(Predict(model=str(trained), reading=Reading(data=(str(real),), window=(128,), device="cpu")))
    assert "718 x 791 pixels, 64 windows of 128 x 128 with an overlap of 32 x 32" in text
    # mean of 3 classes, weight and valid of 128 rows: 128 * 791 * 17 bytes
    assert "1.7 MB  row of windows that is blended" in text
    assert default_out(Predict(model=str(trained), reading=Reading())) == trained / "maps"


def test_what_cannot_be_mapped_is_refused_before_anything_is_written(trained: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    out = tmp_path / "out/map.tif"
    unnamed = write_scene(tmp_path / "unnamed.tif", drawn(), ("band_1", "band_2", "x"))
    empty = write_scene(tmp_path / "empty.tif", np.zeros((3, 40, 40), np.uint8), BANDS, nodata=0)
    with pytest.raises(BandError, match=r"unnamed.tif.*geotiff.bands"):
        predict(trained, unnamed, out=out)
    with pytest.raises(DataError, match=r"empty.tif: nowhere is a pixel measured.*--measured=any"):
        predict(trained, empty, out=out)
    with pytest.raises(ConfigError, match="multiples of the patch"):
        predict(trained, scene, out=out, window=(36,))
    with pytest.raises(ConfigError, match="below the window"):
        predict(trained, scene, out=out, overlap=(32,))
    with pytest.raises(ConfigError, match="only .tif keeps"):
        predict(trained, scene, out=out.with_suffix(".zarr"))
    with pytest.raises(ConfigError, match="expected --data"):
        predict(trained, out=out)
    assert not out.exists() and not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("more", [(), ("--plan",)])
def test_a_model_or_scenes_that_nobody_named_are_asked_for_by_their_options(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(
        sys.modules, "domains.satellite.predict"
    )  # as the program, which is not imported before it runs
    for words, said in (
        (["--data=scene.tif"], "expected --model, a run folder of `python -m domains.satellite.finetune`"),
        (["--model=runs/mine"], "expected --data, the scenes to read: files, folders, lists or manifests"),
        ([], "expected --model"),
    ):
        monkeypatch.setattr(sys, "argv", ["predict", *words, *more])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("domains.satellite.predict", run_name="__main__", alter_sys=True)
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_map_that_is_there_is_kept(trained: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    out = tmp_path / "map.tif"
    out.write_text("mine")
    with pytest.raises(RunFolderError, match="--overwrite"):
        predict(trained, scene, out=out)
    assert out.read_text() == "mine"
    predict(trained, scene, out=out, overwrite=True)
    with rasterio.open(out) as file:
        assert file.shape == (70, 90)


def test_a_scene_without_a_place_is_refused_by_an_encoder_of_metres(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(drawn(40, 40).transpose(1, 2, 0)).save(tmp_path / "photo.png")
    with pytest.raises(GeometryError, match="photo.png.*metres|photo.png.* in m"):
        predict(trained, tmp_path / "photo.png", out=tmp_path / "map.tif")
    save_model(tmp_path / "run", reads(BANDS, unit="px", spacing=(1.0, 1.0)))
    path = predict(tmp_path / "run", tmp_path / "photo.png", out=tmp_path / "map.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.shape == (40, 40) and file.crs is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the event loops of dask.distributed
def test_a_cluster_makes_the_same_map(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    from domains.satellite import cluster

    monkeypatch.setattr(cluster, "_STEPS", 1)
    image = drawn(150, 90)
    image[:, :40, :30] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    alone = predict(trained, scene, out=tmp_path / "alone.tif", window=(32,))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as workers:
        address = workers.scheduler_address
        together = predict(trained, scene, out=tmp_path / "together.tif", window=(32,), scheduler=address)
        empty = write_scene(tmp_path / "empty.tif", np.zeros_like(image), BANDS, nodata=0)
        with pytest.raises(DataError, match="nowhere is a pixel measured"):
            predict(trained, empty, out=tmp_path / "none.tif", scheduler=address)
    with rasterio.open(alone) as a, rasterio.open(together) as b:
        assert np.array_equal(a.read(), b.read())
    assert not (tmp_path / "none.tif").exists()
    monkeypatch.setattr("datasets.converting.dispatch._CONNECT_S", 1)
    with pytest.raises(ConfigError, match="no Dask scheduler answers"):
        predict(trained, scene, out=tmp_path / "none.tif", scheduler="tcp://127.0.0.1:9")


def test_wrong_units_are_refused(tmp_path: Path) -> None:
    from core.contract import Normalisation

    bands = ("B04", "B08")
    value_space = Normalisation(method="fixed", mean=(0.2, 0.3), std=(0.1, 0.1), full_scale=False)
    save_model(tmp_path / "run", reads(bands, sensor="sentinel2_l1c", normalisation=value_space))
    counts = (drawn(64, 64)[:2] * 40).astype(np.uint16) + np.uint16(1000)
    scene = write_scene(tmp_path / "scene.tif", counts, bands)
    with pytest.raises(BandError, match=r"scene.tif: band B04 has median .* expects reflectance in 0..1"):
        predict(tmp_path / "run", scene, out=tmp_path / "map.tif")


def test_a_picture_shows_the_classes_over_the_scene(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = np.full((3, 64, 48), 100, np.uint8)
    image[:, :, :8] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    path = predict(trained, scene, out=tmp_path / "map.tif", overlap=(0,))
    with rasterio.open(path) as file:
        codes = file.read(1)
    pixels = np.asarray(Image.open(tmp_path / "map.overlay.png"))
    assert pixels.shape[1] >= 48 + 8 + 48 and pixels.shape[0] > 64
    colour = {1: (0, 90, 0), 2: (0, 0, 200), 7: (200, 0, 0)}
    expected = np.rint(
        pixels[:64, 8:48, :3] * 0.55 + np.array([[colour[c] for c in row] for row in codes[:, 8:]]) * 0.45
    )
    assert np.abs(pixels[:64, 64:104, :3] - expected).max() <= 1
    assert (pixels[:64, :8, 3] < 255).all(), "nodata is a translucent wash"
    (tmp_path / "map.tif").unlink()
    with pytest.raises(RunFolderError, match=r"map.overlay.png exists"):
        predict(trained, scene, out=tmp_path / "map.tif")
    predict(trained, scene, out=tmp_path / "plain.tif", picture=False)
    assert not (tmp_path / "plain.overlay.png").exists()


def test_a_legend_has_its_own_numbers_and_colours(trained: Path, tmp_path: Path) -> None:
    from core.heads.load import load_model

    given = legend_of(load_model(trained))
    assert (given.codes, given.nodata, given.dtype) == ((1, 2, 7), 255, np.dtype(np.uint8))
    plain = legend_of(save_model(tmp_path / "plain", reads(BANDS)))
    assert plain.codes == (0, 1, 2)
    taken = legend_of(save_model(tmp_path / "taken", reads(BANDS), about={"codes": [0, 255, 3]}))
    assert taken.nodata == 254
    assert len(set(colours(40))) == 40 and colours(3) == colours(40)[:3]
