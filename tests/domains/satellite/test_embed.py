"""Tile vectors, feature grids and token colours of whole scenes."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch

from core.cli import Options
from core.encoders.load import Encoder
from core.errors import ConfigError, DataError, RunFolderError
from datasets import open_image
from domains.satellite.embed import Embed, check_ending, default_out, plan, run
from domains.satellite.feature_maps import TokenColours
from domains.satellite.scenes import Found, Reading
from domains.satellite.tile_vectors import taken, time_of
from tests.domains.satellite.models import TRANSFORM, reads, save_encoder, write_scene
from tests.domains.satellite.writing import landsat, noise

BANDS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Encoder]:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    return folder, save_encoder(folder, reads(BANDS))


def drawn(height: int = 70, width: int = 90, seed: int = 1) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(1, 255, (3, height, width)).astype(np.uint8)


def embed(run_folder: Path, *data: Path, out: Path, **options: Any) -> Path:
    own = {name: options.pop(name) for name in ("product", "pool") if name in options}
    overwrite = options.pop("overwrite", False)
    reading = Reading(data=tuple(map(str, data)), device="cpu", **options)
    return run(Embed(encoder=str(run_folder), reading=reading, **own), Options(out=out, overwrite=overwrite))


def square(y: int, x: int, height: int, width: int) -> list[list[float]]:
    a, _, c, _, e, f = TRANSFORM
    places = [(y + height, x), (y + height, x + width), (y, x + width), (y, x)]
    return sorted([c + a * column, f + e * row] for row, column in places)


def test_a_tile_has_its_place_and_the_vector_of_its_pixels(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    folder, encoder = trained
    image = drawn()
    scene = write_scene(tmp_path / "scene.tif", image, BANDS)
    table = pq.read_table(embed(folder, scene, out=tmp_path / "tiles.parquet"))
    rows = table.to_pylist()
    assert [(row["row"], row["column"], row["height"], row["width"]) for row in rows] == [
        *((0, x, 32, min(32, 90 - x)) for x in (0, 32, 64)),
        *((32, x, 32, min(32, 90 - x)) for x in (0, 32, 64)),
    ], "of the last six rows there is too little"
    one = write_scene(tmp_path / "one.tif", image[:, 32:64, :32], BANDS)
    with torch.no_grad():
        expected = encoder(encoder.preprocess(open_image(one)))[0].numpy()
    assert np.abs(np.array(rows[3]["vector"]) - expected).max() < 1e-5
    assert np.abs(np.array(rows[0]["vector"]) - expected).max() > 1e-3, "tiles differ"
    ring = np.frombuffer(rows[5]["geometry"][13:], "<f8").reshape(-1, 2)
    assert struct.unpack("<BIII", rows[5]["geometry"][:13]) == (1, 3, 1, 5)
    assert sorted(ring[:-1].tolist()) == square(32, 64, 32, 26)
    assert rows[0]["file"] == str(scene)
    geo = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert geo["crs"]["id"]["code"] == 32615
    about = json.loads(table.schema.metadata[b"halfseen"])
    assert (about["pool"], about["window"], about["bands"]) == ("mean", [32, 32], list(BANDS))


def test_tiles_without_data_have_no_row(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    image = drawn(64, 64)
    image[:, :32, :40] = 0  # all of a tile, and a quarter of another
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    rows = pq.read_table(embed(trained[0], scene, out=tmp_path / "tiles.parquet")).to_pylist()
    assert [(row["row"], row["column"]) for row in rows] == [(0, 32), (32, 0), (32, 32)]


def test_scenes_of_several_crs_share_longitude_and_latitude(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    import dataclasses

    from core.geometry import Georeference
    from datasets.writers import Facts, write_image

    first = write_scene(tmp_path / "a.tif", drawn(32, 32), BANDS)
    lazy = open_image(first)
    facts = dataclasses.replace(Facts.of(lazy), georeference=Georeference("EPSG:32616", TRANSFORM))
    second = write_image(tmp_path / "b.tif", facts, [((slice(0, 32), slice(0, 32)), lazy.read())])
    table = pq.read_table(embed(trained[0], first, second, out=tmp_path / "tiles.parquet"))
    boxes = table["bbox"].to_pylist()
    assert boxes[1]["xmin"] - boxes[0]["xmin"] == pytest.approx(6.0, abs=1e-6), "the next zone is 6 degrees east"
    geo = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert geo["crs"]["id"] == {"authority": "OGC", "code": "CRS84"}


def test_the_time_is_what_a_list_or_a_name_says(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    name = "LC08_L1TP_022049_20160101_20170405_01_T1.tif"
    write_scene(tmp_path / name, drawn(32, 32), BANDS)
    out = tmp_path / "tiles.parquet"
    assert pq.read_table(embed(trained[0], tmp_path / name, out=out))["time"].to_pylist() == [
        datetime(2016, 1, 1, tzinfo=UTC)
    ]
    (tmp_path / "list.csv").write_text(f"file,time\n{name},2016-01-01T16:33:20+01:00\n")
    found = pq.read_table(embed(trained[0], tmp_path / "list.csv", out=out, overwrite=True))["time"].to_pylist()
    assert found == [datetime(2016, 1, 1, 15, 33, 20, tzinfo=UTC)]
    (tmp_path / "list.csv").write_text(f"file,time\n{name},yesterday\n")
    with pytest.raises(DataError, match="got 'yesterday'"):
        embed(trained[0], tmp_path / "list.csv", out=out, overwrite=True)
    assert pq.read_table(out).num_rows == 1, "what was there is kept"


MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "LANDSAT_7"
    DATE_ACQUIRED = 1999-11-18
    SCENE_CENTER_TIME = "16:25:47.1943529Z"
  END_GROUP = IMAGE_ATTRIBUTES
END_GROUP = LANDSAT_METADATA_FILE
END
"""


def test_a_landsat_folder_knows_the_second_and_its_name_the_day(tmp_path: Path) -> None:
    folder = tmp_path / "LE07_L1TP_022049_19991118_20170128_01_T1"
    landsat(folder, noise(2, 32, 32).astype(np.uint8), ("B1", "B2"))
    assert taken(Found(image=open_image(folder), said={})) == datetime(1999, 11, 18, tzinfo=UTC)
    (folder / f"{folder.name}_MTL.txt").write_text(MTL)
    known = Found(image=open_image(folder), said={})
    assert taken(known) == datetime(1999, 11, 18, 16, 25, 47, 194352, tzinfo=UTC)
    assert taken(replace(known, said={"time": None, "kind": "a"})) == taken(known)
    assert taken(replace(known, said={"time": "1999-11-19"})) == datetime(1999, 11, 19, tzinfo=UTC)
    assert taken(replace(known, said={"time": date(1999, 11, 19)})) == datetime(1999, 11, 19, tzinfo=UTC)
    (folder / f"{folder.name}_MTL.txt").write_text(MTL.replace("SCENE_CENTER_TIME", "SCENE_TIME"))
    assert open_image(folder).time == "1999-11-18"


def test_tiles_of_a_geotiff_have_the_time_of_its_acquisition(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "LC08_L1TP_022049_20160101_20170405_01_T1.tif", drawn(32, 32), BANDS)
    with rasterio.open(scene, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2016-01-01 16:33:20")
    table = pq.read_table(embed(trained[0], scene, out=tmp_path / "tiles.parquet"))
    assert table["time"].to_pylist() == [datetime(2016, 1, 1, 16, 33, 20, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("S2A_MSIL1C_20200823T101031_N0209_R022_T32TQR.SAFE", (2020, 8, 23, 10, 10, 31)),
        ("S1A__IW___A_20150309T173017_VV_grd.tif", (2015, 3, 9, 17, 30, 17)),
        ("LE70220491999322EDC01_stack.gtif", (1999, 11, 18)),
        ("LC08_L2SP_044034_20200229_20200822_02_T1_SR_B4.TIF", (2020, 2, 29)),
        ("MOD09GA.A2008296.h14v17.006.2015181011753.hdf", (2008, 10, 22)),
        ("MOD021KM.A2020060.1835.061.2020061071234.hdf", (2020, 2, 29, 18, 35)),
        ("HLS.S30.T17SLU.2020117T160901.v2.0.B02.tif", (2020, 4, 26, 16, 9, 1)),
        ("S2A_MSIL1C_20201323T101031_N0209.tif", None),
        ("MOD09GA.A2008399.h14v17.hdf", None),
        ("MOD09GA.A2008366.h14v17.hdf", (2008, 12, 31)),
        ("MOD09GA.A2007366.h14v17.hdf", None),
        ("MOD09GA.A2008000.h14v17.hdf", None),
        ("scene_20200101.tif", None),
    ],
)
def test_names_of_products_say_when(name: str, expected: tuple[int, ...] | None) -> None:
    assert time_of(name) == (None if expected is None else datetime(*expected, tzinfo=UTC))  # type: ignore[misc,arg-type]


def test_a_real_scene_keeps_its_place(trained: tuple[Path, Encoder], shared: Path, tmp_path: Path) -> None:
    real = shared / "data/satellite/misc_geotiff/RGB.byte.tif"
    grid = embed(trained[0], real, out=tmp_path / "grid.tif", product="grid", window=(128,))
    tiles = pq.read_table(embed(trained[0], real, out=tmp_path / "tiles.parquet", window=(128,)))
    with rasterio.open(real) as scene, rasterio.open(grid) as made:
        assert made.crs == scene.crs and np.isnan(made.nodata)
        assert made.shape == (90, 99), "718 / 8 and 791 / 8, the last cell of each begun"
        assert made.transform.almost_equals(scene.transform @ rasterio.Affine.scale(8, 8))
        measured = (scene.read() != 0).all(axis=0)
        share = measured[:712, :784].reshape(89, 8, 98, 8).mean(axis=(1, 3))
        assert np.array_equal(np.isfinite(made.read(1))[:89, :98], share >= 0.5)
        left, bottom, right, top = scene.bounds
    boxes = tiles["bbox"].to_pylist()
    assert 10 < len(boxes) < 42, "of 6 x 7 tiles those with data"
    assert all(left <= b["xmin"] < b["xmax"] <= right and bottom <= b["ymin"] < b["ymax"] <= top for b in boxes)


@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_a_grid_has_the_features_of_every_token_where_it_lies(
    trained: tuple[Path, Encoder], tmp_path: Path, ending: str
) -> None:
    folder, encoder = trained
    image = drawn(32, 64)
    image[:, 16:32, 48:64] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    found = open_image(embed(folder, scene, out=tmp_path / f"grid{ending}", product="grid", overlap=(0,)))
    a, b, c, d, e, f = TRANSFORM
    assert found.georeference is not None
    assert (found.georeference.crs, found.georeference.transform) == ("EPSG:32615", (8 * a, b, c, d, 8 * e, f))
    assert (found.shape, found.bands[-1]) == ((24, 4, 8), "feature_23")
    values, valid = found.read_valid()
    assert np.array_equal(valid, np.broadcast_to(np.isfinite(values), values.shape))
    assert np.argwhere(~valid[0]).tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]
    for window in (slice(0, 4), slice(4, 8)):
        pixels = image[:, :, 8 * window.start : 8 * window.stop]
        one = write_scene(tmp_path / f"one{window.start}.tif", pixels, BANDS, nodata=0)
        with torch.no_grad():
            expected = encoder.feature_map(encoder.preprocess(open_image(one)))[0].numpy()
        told = valid[0, :, window]
        assert np.abs(values[:, :, window] - expected)[:, told].max() < 1e-5


def test_colours_lie_where_the_scene_does_and_tell_its_halves_apart(
    trained: tuple[Path, Encoder], tmp_path: Path
) -> None:
    image = np.full((3, 96, 128), 40, np.uint8)
    image[0, :, 64:] = 220
    image += np.random.Generator(np.random.Philox(key=5)).integers(0, 9, image.shape).astype(np.uint8)
    image[:, :32, :32] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    path = embed(trained[0], scene, out=tmp_path / "colours.tif", product="colours", overlap=(16,))
    with rasterio.open(path) as file, rasterio.open(scene) as source:
        assert (file.shape, file.dtypes, file.crs) == ((12, 16), ("uint8",) * 3, source.crs)
        assert file.bounds == source.bounds
        assert [colour.name for colour in file.colorinterp] == ["red", "green", "blue"]
        mask = file.read_masks(1) != 0
        assert not mask[:4, :4].any() and mask.sum() == 12 * 16 - 16
        red = file.read(1).astype(float)
        left, right = red[4:, :7], red[4:, 9:]
        assert abs(left.mean() - right.mean()) > 4 * max(left.std(), right.std())


def test_token_colours_are_the_principal_directions() -> None:
    rng = np.random.Generator(np.random.Philox(key=2))
    parts = rng.normal(size=(500, 3)) * (9.0, 4.0, 1.0)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    tokens = torch.from_numpy((parts @ turn + 3).astype(np.float32))
    found = TokenColours.of(tokens)
    assert np.abs(np.abs(found.axes.numpy() @ turn.T) - np.eye(3)).max() < 0.1
    assert (found.axes.gather(1, found.axes.abs().argmax(1, keepdim=True)) > 0).all()
    coloured = found(tokens.T.reshape(1, 6, 20, 25))
    assert coloured.shape == (1, 3, 20, 25)
    assert ((coloured >= 0) & (coloured <= 1)).float().mean() == pytest.approx(0.98, abs=0.005)
    with pytest.raises(DataError, match="all of them are alike"):
        TokenColours.of(torch.ones(10, 4))
    with pytest.raises(DataError, match="at least 4 tokens"):
        TokenColours.of(torch.ones(3, 4))


def test_a_scene_smaller_than_a_tile_has_the_vector_that_the_encoder_gives_it_as_a_whole_image(
    trained: tuple[Path, Encoder], tmp_path: Path
) -> None:
    folder, encoder = trained
    image = drawn(20, 27)
    image[:, :, :4] = 0
    scene = write_scene(tmp_path / "small.tif", image, BANDS, nodata=0)
    table = pq.read_table(embed(folder, scene, out=tmp_path / "tiles.parquet"))
    with torch.no_grad():
        expected = encoder(encoder.preprocess(open_image(scene)))[0]
    torch.testing.assert_close(torch.tensor(table["vector"][0].as_py()), expected, atol=1e-5, rtol=0)


def test_what_cannot_be_embedded_is_refused_before_anything_is_written(
    trained: tuple[Path, Encoder], tmp_path: Path
) -> None:
    folder = trained[0]
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    empty = write_scene(tmp_path / "empty.tif", np.zeros((3, 40, 40), np.uint8), BANDS, nodata=0)
    out = tmp_path / "out/tiles.parquet"
    with pytest.raises(ConfigError, match=r"ends in .parquet"):
        embed(folder, scene, out=out.with_suffix(".tif"))
    with pytest.raises(ConfigError, match=r"ends in .tif or .zarr"):
        embed(folder, scene, out=out, product="grid")
    with pytest.raises(ConfigError, match="'pool' has no effect"):
        embed(folder, scene, out=out.with_suffix(".tif"), product="grid", pool="mean")
    with pytest.raises(ConfigError, match="'measured': expected all"):
        embed(folder, scene, out=out, measured="any")
    with pytest.raises(ConfigError, match=r"multiples of \(32, 32\)"):
        embed(folder, scene, out=out, overlap=(8,))
    void = write_scene(tmp_path / "void.tif", np.zeros((3, 40, 40), np.uint8), BANDS, nodata=0)
    with pytest.raises(DataError, match=r"empty.tif: nowhere is half of 32 x 32 pixels measured .*nodata"):
        embed(folder, empty, out=out)
    with pytest.raises(DataError, match=r"in none of 2 scenes is there anything to describe: .*empty.tif: nowhere"):
        embed(folder, empty, void, out=out)
    image = drawn(20, 40)
    image[:, :, ::3] = image[:, :, 1::3] = 0
    third = write_scene(tmp_path / "third.tif", image, BANDS, nodata=0)
    with pytest.raises(
        DataError, match=r"third.tif: nowhere is half of 20 x 32 pixels .* take smaller windows \(--window\)"
    ):
        embed(folder, third, out=out)
    with pytest.raises(DataError, match=r"empty.tif: expected at least 4 tokens"):
        embed(folder, empty, out=out.with_suffix(".tif"), product="colours")
    assert not list(tmp_path.glob("out/*"))
    out.parent.mkdir(exist_ok=True)
    out.write_text("mine")
    with pytest.raises(RunFolderError, match="--overwrite"):
        embed(folder, scene, out=out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("product", ["tiles", "grid", "colours"])
def test_of_several_scenes_one_without_anything_measured_is_told_and_left_out(
    trained: tuple[Path, Encoder], tmp_path: Path, capsys: pytest.CaptureFixture[str], product: str
) -> None:
    empty = write_scene(tmp_path / "a.tif", np.zeros((3, 40, 40), np.uint8), BANDS, nodata=0)
    scene, other = (write_scene(tmp_path / f"{name}.tif", drawn(seed=n), BANDS) for n, name in enumerate("bc"))
    out = tmp_path / ("out/tiles.parquet" if product == "tiles" else "out")
    embed(trained[0], empty, scene, other, out=out, product=product)
    assert re.search(r"a\.tif: .* It is left out\.", capsys.readouterr().err)
    if product == "tiles":
        assert {Path(file).name for file in pq.read_table(out)["file"].to_pylist()} == {"b.tif", "c.tif"}
    else:
        assert sorted(path.name for path in out.iterdir()) == ["b.tif", "c.tif", "report.html"]


def test_the_plan_says_windows_and_memory(trained: tuple[Path, Encoder], tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    config = Embed(encoder=str(trained[0]), reading=Reading(data=(str(scene),), device="cpu"), product="grid")
    assert "70 x 90 pixels, 12 windows of 32 x 32 with an overlap of 8 x 8" in plan(config)
    assert default_out(config) == trained[0] / "grid"


def test_an_encoder_or_scenes_that_nobody_named_are_asked_for_by_their_options(tmp_path: Path) -> None:
    out = Options(out=tmp_path / "tiles.parquet")
    for config, said in (
        (Embed(reading=Reading(data=("scene.tif",))), "expected --encoder, a run folder of"),
        (Embed(encoder="runs/mine"), "expected --data, the scenes to read"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_ending(config, out)
        with pytest.raises(ConfigError, match=said):
            plan(config)
