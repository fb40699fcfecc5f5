"""A reader option works or is refused, whatever names the images: manifests, folders, lists, stores, files, STAC."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from core.errors import ConfigError
from datasets.check import main as check
from datasets.collect import entries_of
from datasets.converting.prepare import convert
from datasets.index import build_manifest
from datasets.manifest import Manifest

NAMED = ("geotiff.bands=[red,nir]",)
OTHER = ("geotiff.bands=[nir,red]",)
FOREIGN = ("nifti.affine=sform",)


def scene(path: Path, seed: int = 0) -> Path:
    """Two bands without names, 20 x 24 pixels of 30 m."""
    pixels = np.random.Generator(np.random.Philox(key=seed)).integers(1, 9000, (2, 20, 24)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32615", "transform": rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)}
    with rasterio.open(path, "w", driver="GTiff", height=20, width=24, count=2, dtype="uint16", **place) as file:
        file.write(pixels)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scene(scene(tmp_path / "set" / "a.tif").with_name("b.tif"), 1).parent


def ended(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        check([str(word) for word in (*words, "--quiet")])
    return int(left.value.code or 0)


def test_options_work_on_what_is_read_now(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,kind\na.tif,1\nb.tif,2\n")
    for path in (folder, folder / "labels.csv", folder / "a.tif"):
        manifest = build_manifest([path], options=NAMED)
        assert {tuple(bands) for bands in manifest.column("bands")} == {("red", "nir")}
        with pytest.raises(
            ConfigError, match=r"--options nifti\.affine=sform has no effect: nifti reads none.*by geotiff"
        ):
            build_manifest([path], options=FOREIGN)


def test_one_image_of_many_is_enough_for_an_option(folder: Path) -> None:
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(folder / "0.png")
    assert build_manifest([folder], options=NAMED).column("bands") == [["red", "green", "blue"], *[["red", "nir"]] * 2]


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_manifest_made_without_the_option_refuses_it(named: str, folder: Path, tmp_path: Path) -> None:
    build_manifest([folder]).write(folder / "manifest.parquet", relative_to=folder)
    path = folder if named == "folder" else folder / "manifest.parquet"
    sentence = r"a\.tif: its manifest says .* by geotiff with its defaults, so --options 'geotiff\.bands=\[red,nir\]'"
    with pytest.raises(ConfigError, match=sentence):
        build_manifest([path], options=NAMED)
    with pytest.raises(ConfigError, match=sentence):
        convert([path], tmp_path / "out", options=NAMED)
    with pytest.raises(ConfigError, match="nifti reads none of these images, they are read by geotiff"):
        build_manifest([path], options=FOREIGN)
    extra = scene(tmp_path / "more" / "c.tif", 2)
    with pytest.raises(ConfigError, match=sentence):  # it would work on one image and not on the others
        build_manifest([path, extra], options=NAMED)


def test_an_option_that_a_manifest_was_made_with_is_in_effect(folder: Path, tmp_path: Path) -> None:
    build_manifest([folder], options=NAMED).write(tmp_path / "m.parquet")
    extra = scene(tmp_path / "more" / "c.tif", 2)
    manifest = build_manifest([tmp_path / "m.parquet", extra], options=NAMED)
    assert manifest.column("bands") == [["red", "nir"]] * 3
    assert len(build_manifest([tmp_path / "m.parquet"], options=("geotiff.level=0",))) == 2  # the default that it has
    with pytest.raises(ConfigError, match=r"read by geotiff with geotiff\.bands=\[\"red\", \"nir\"\], so"):
        build_manifest([tmp_path / "m.parquet"], options=OTHER)


def test_check_reads_a_manifest_again_with_its_own_options_and_these(folder: Path, tmp_path: Path) -> None:
    build_manifest([folder], options=NAMED).write(tmp_path / "m.parquet")
    assert ended(tmp_path / "m.parquet", "--options", "geotiff.nodata=[5]", "--out", tmp_path / "n.parquet") == 0
    again = Manifest.read(tmp_path / "n.parquet")
    assert again.column("bands") == [["red", "nir"]] * 2  # what the manifest said is not lost
    assert again.column("nodata") == [[5.0, 5.0]] * 2
    assert entries_of(again, options=OTHER)[0].options[-1] == OTHER[0]
    assert ended(tmp_path / "m.parquet", "--options", *OTHER, "--out", tmp_path / "o.parquet") == 0
    assert Manifest.read(tmp_path / "o.parquet").column("bands") == [["nir", "red"]] * 2


def test_check_refuses_an_option_with_images_that_it_trusts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_manifest([folder]).write(tmp_path / "m.parquet")
    assert ended(tmp_path / "m.parquet", "--trust", "--options", *NAMED) == 2
    assert "with its defaults, so --options 'geotiff.bands=[red,nir]' has no effect" in capsys.readouterr().err


def test_prepared_stores_say_where_an_option_would_have_worked(folder: Path, tmp_path: Path) -> None:
    out = convert([folder], tmp_path / "out", options=NAMED).out
    cure = r"datasets\.convert SRC DST --options 'geotiff\.bands=\[nir,red\]' --overwrite"
    with pytest.raises(ConfigError, match=f"geotiff reads none of these images, they are read by zarr_array.*{cure}"):
        build_manifest([out], options=OTHER)
    shutil.move(out / "images", tmp_path / "stores")  # a folder of stores, without a manifest
    with pytest.raises(ConfigError, match=cure):
        build_manifest([tmp_path / "stores"], options=OTHER)
    named = build_manifest([tmp_path / "stores"], options=("zarr_array.bands=[red,nir]",))
    assert named.column("bands") == [["red", "nir"]] * 2


def test_stac_items_refuse_every_option(folder: Path) -> None:
    assets = {"data": {"href": "a.tif", "roles": ["data"], "eo:bands": [{"name": "red"}, {"name": "nir"}]}}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {"datetime": None}, "links": []}
    (folder / "a.json").write_text(json.dumps(item | {"assets": assets}))
    with pytest.raises(ConfigError, match="STAC items say themselves how their files are read"):
        build_manifest([folder / "a.json"], options=NAMED)


def test_what_no_reader_knows_is_no_reason_to_blame_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(b"torn")
    assert ended(tmp_path, "--options", *NAMED) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_groups_may_be_taken_from_a_column_of_a_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.csv").write_text("file,site\na.tif,1\nb.tif,1\n")
    build_manifest([folder / "labels.csv"]).write(tmp_path / "m.parquet")
    assert build_manifest([tmp_path / "m.parquet"]).column("group") == ["a", "b"]
    assert build_manifest([tmp_path / "m.parquet"], group="site").column("group") == ["1", "1"]
    with pytest.raises(ConfigError, match="no column is called 'sight' for the groups: did you mean 'site'"):
        build_manifest([tmp_path / "m.parquet"], group="sight")
