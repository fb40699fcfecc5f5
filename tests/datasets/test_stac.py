"""STAC on disk: what is found, joined and said, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import rasterio

from core.errors import (
    ConfigError,
    DamagedError,
    DataError,
    HalfseenError,
    MissingDataError,
    UnsafeError,
    UnsupportedError,
)
from datasets import build_manifest
from datasets.collect import gather
from datasets.manifest import Manifest
from datasets.opening import Images


def write(path: Path, seed: int, bands: int = 1) -> np.ndarray:
    """Write (C, 24, 32) uint16 with 30 m pixels."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    pixels = rng.integers(1, 9000, (bands, 24, 32)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32615", "transform": rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)}
    with rasterio.open(path, "w", driver="GTiff", height=24, width=32, count=bands, dtype="uint16", **place) as file:
        file.write(pixels)
    return pixels


def asset(href: str, *names: str, **more: Any) -> dict[str, Any]:
    """An asset by STAC 1.0."""
    return {"href": href, "roles": ["data"], "eo:bands": [{"name": name} for name in names], **more}


def item(name: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    said = {"datetime": "2020-04-15T16:38:39Z", **properties}
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": said, "assets": assets, "links": []}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def scene(folder: Path, name: str, seed: int, **properties: Any) -> dict[str, Any]:
    """Write two files of one scene into a folder of its own; the item names them from `folder`."""
    write(folder / name / "B04.tif", seed)
    write(folder / name / "B08.tif", seed + 1)
    assets = {key: asset(f"./{name}/{key}.tif", key) for key in ("B04", "B08")}
    return item(name, assets, **properties)


def opened(manifest: Manifest) -> np.ndarray:
    return Images(manifest).open(0).read()


def test_an_item_is_one_image_of_its_data_assets(tmp_path: Path) -> None:
    red, rest = write(tmp_path / "s" / "red.tif", 1), write(tmp_path / "s" / "rest.tif", 2, bands=2)
    write(tmp_path / "s" / "cloud.tif", 3)
    raster = [{"nodata": 0, "scale": 0.0001, "offset": -0.1}, {"nodata": "nan"}]
    assets = {
        "thumb": {"href": "https://example.org/thumb.png", "roles": ["thumbnail"], "type": "image/png"},
        "red": {"href": "red.tif", "roles": ["data"], "eo:bands": [{"common_name": "red"}], "nodata": 5},
        "rest": asset("./rest.tif", "B08", "B11", **{"raster:bands": raster}),
        "cloud": {"href": "cloud.tif", "roles": ["cloud"]},
        "meta": {"href": "https://example.org/meta.xml", "roles": ["data"], "type": "application/xml"},
    }
    said = {"grid:code": "MGRS-15TXP", "platform": "sentinel-2a", "datetime": "2020-04-15T16:38:39.024000+00:00"}
    path = put(tmp_path / "s" / "s.json", item("S2_one", assets, **said))
    manifest = build_manifest([path])
    assert len(manifest) == 1
    row = manifest.table.to_pylist()[0]
    assert row["bands"] == ["red", "B08", "B11"]
    assert row["nodata"] == [5.0, 0.0, None]
    assert row["scaling"] == [1.0, 0.0, 0.0001, -0.1, 1.0, 0.0]
    assert (row["id"], row["platform"], row["group"]) == ("S2_one", "sentinel-2a", "MGRS-15TXP")
    assert row["time"] == "2020-04-15T16:38:39.024000Z"
    assert (row["crs"], row["reader"]) == ("EPSG:32615", "asset_files")
    assert np.array_equal(opened(manifest), np.concatenate([red, rest]))


def test_a_manifest_of_items_moves_and_notices_a_changed_asset(tmp_path: Path) -> None:
    root = tmp_path / "before"
    manifest = build_manifest([put(root / "items.json", scene(root, "s", 1))])
    manifest.write(root / "manifest.parquet", relative_to=root)
    expected = opened(manifest)
    moved = root.rename(tmp_path / "after")
    assert np.array_equal(opened(Manifest.read(moved / "manifest.parquet")), expected)
    assert np.array_equal(opened(build_manifest([moved])), expected)
    write(moved / "s" / "B08.tif", 77)
    with pytest.raises(DataError, match="changed since the manifest was built"):
        opened(Manifest.read(moved / "manifest.parquet"))


def test_bands_go_before_eo_bands_and_those_before_raster_bands(tmp_path: Path) -> None:
    write(tmp_path / "x.tif", 4)
    said = {
        "raster:bands": [{"nodata": 3, "scale": 3, "offset": 3}],
        "eo:bands": [{"name": "second", "nodata": 2, "scale": 2}],
        "bands": [{"name": "first", "nodata": 1}],
    }
    described = item("x", {"one": {"href": "x.tif", "roles": ["data"], "nodata": 4, **said}})
    row = build_manifest([put(tmp_path / "x.json", described)]).table.to_pylist()[0]
    assert (row["bands"], row["nodata"], row["scaling"]) == (["first"], [1.0], [2.0, 3.0])


@pytest.mark.parametrize("nodata", [None, "nan", "NaN", "inf", "-inf"])
def test_what_never_is_data_needs_no_nodata(nodata: str | None, tmp_path: Path) -> None:
    write(tmp_path / "x.tif", 4)
    path = put(tmp_path / "x.json", item("x", {"B04": asset("x.tif", "B04", nodata=nodata)}))
    assert build_manifest([path]).column("nodata") == [None]


def test_stac_1_1_names_bands_in_one_list(tmp_path: Path) -> None:
    pixels = write(tmp_path / "x.tif", 4, bands=2)
    bands = [{"name": "B04", "eo:common_name": "red", "raster:scale": 0.5}, {"eo:common_name": "nir", "nodata": 3}]
    described = item(
        "x", {"all": {"href": "x.tif", "roles": ["data", "reflectance"], "bands": bands, "raster:offset": 2}}
    )
    described["stac_version"] = "1.1.0"
    manifest = build_manifest([put(tmp_path / "x.json", described)])
    row = manifest.table.to_pylist()[0]
    assert (row["bands"], row["file"]) == (["B04", "nir"], "x.tif")
    assert row["scaling"] == [0.5, 2.0, 1.0, 2.0]
    assert row["nodata"] == [None, 3.0]
    assert np.array_equal(opened(manifest), pixels)


def test_a_collection_in_one_file_is_one_image_per_item(tmp_path: Path) -> None:
    features = [
        scene(tmp_path, "a", 1, **{"landsat:wrs_path": "022", "landsat:wrs_row": "049"}),
        scene(tmp_path, "b", 3, **{"s2:mgrs_tile": "33TVM"}),
        scene(tmp_path, "c", 5, datetime=None, start_datetime="2021-01-01T00:00:00Z"),
    ]
    path = put(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})
    manifest = build_manifest([path])
    assert manifest.column("id") == ["a", "b", "c"]
    assert manifest.column("group") == ["022_049", "33TVM", "c"]
    assert manifest.column("time") == ["2020-04-15T16:38:39Z", "2020-04-15T16:38:39Z", None]  # a span is no time
    assert manifest.column("file") == ["a", "b", "c"]


def test_a_static_catalog_is_walked_once(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 3)):
        put(tmp_path / "l8" / f"{name}.json", scene(tmp_path / "l8", name, seed))
    links = [{"rel": "item", "href": "./a.json"}, {"rel": "item", "href": "./b.json"}]
    links += [{"rel": "root", "href": "https://example.org"}, {"rel": "child", "href": "../catalog.json"}]
    put(tmp_path / "l8" / "collection.json", {"type": "Collection", "stac_version": "1.0.0", "links": links})
    children = [{"rel": "child", "href": "./l8/collection.json"}]
    put(tmp_path / "catalog.json", {"type": "Catalog", "stac_version": "1.0.0", "links": children})
    for path in (tmp_path, tmp_path / "catalog.json", tmp_path / "l8" / "collection.json"):
        if path.name == "collection.json":
            with pytest.raises(UnsafeError, match="its link"):  # it leads above where it was asked to look
                gather([path])
            continue
        entries, _ = gather([path])
        assert [entry.file for entry in entries] == ["l8/a", "l8/b"]


def test_a_folder_with_another_catalog_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "x.tif", 1)
    put(tmp_path / "catalog.json", {"books": 3})
    entries, _ = gather([tmp_path])
    assert [(entry.file, entry.options) for entry in entries] == [("x.tif", ())]


@pytest.mark.parametrize(
    "href", ["https://example.org/B04.tif", "s3://bucket/B04.tif", "file://host/B04.tif", "//x/B04.tif"]
)
def test_a_remote_asset_is_refused_whatever_is_allowed(href: str, tmp_path: Path) -> None:
    path = put(tmp_path / "i.json", item("i", {"B04": asset(href, "B04")}))
    for free in (False, True):
        with pytest.raises(UnsafeError, match="asset 'B04' of item 'i' is remote"):
            gather([path], allow_outside=free)


def test_what_lies_outside_is_read_only_when_that_is_allowed(tmp_path: Path) -> None:
    pixels = write(tmp_path / "elsewhere" / "B04.tif", 1)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.tif").symlink_to(tmp_path / "elsewhere" / "B04.tif")
    for href in ("../elsewhere/B04.tif", "link.tif", str(tmp_path / "elsewhere" / "B04.tif")):
        path = put(tmp_path / "in" / "i.json", item("i", {"B04": asset(href, "B04")}))
        with pytest.raises(UnsafeError, match="--allow-outside"):
            build_manifest([path])
        manifest = build_manifest([path], allow_outside=True)
        assert manifest.column("file") == ["B04.tif"]
        assert np.array_equal(opened(manifest), pixels)


@pytest.mark.parametrize("name", ["B04.tif", "my scene/B 04 ü.tif", "50%25.tif"])
def test_an_href_is_a_path_or_a_uri_of_this_machine(name: str, tmp_path: Path) -> None:
    pixels = write(tmp_path / "in" / name, 1)
    place = tmp_path / "in" / name
    hrefs = [name, f"./{name}", quote(name), str(place), place.as_uri(), place.as_uri().replace("://", "://localhost")]
    for href in hrefs:
        path = put(tmp_path / "in" / "i.json", item("i", {"B04": asset(href, "B04")}))
        manifest = build_manifest([path])
        assert manifest.column("file") == [name], href
        assert np.array_equal(opened(manifest), pixels)


@pytest.mark.parametrize("href", ["file:///etc/B04.tif", "file:/etc/B04.tif", "%2e%2e/B04.tif", "%2Fetc/B04.tif"])
def test_a_uri_that_leads_outside_is_refused_like_the_path_it_is(href: str, tmp_path: Path) -> None:
    path = put(tmp_path / "in" / "i.json", item("i", {"B04": asset(href, "B04")}))
    with pytest.raises(UnsafeError, match="--allow-outside"):
        gather([path])
    with pytest.raises(MissingDataError, match=r"is not at /.*/B04\.tif"):
        gather([path], allow_outside=True)


def test_two_items_may_not_share_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "s" / "B05.tif", 9)
    other = item("t", {"B04": asset("s/B04.tif", "B04"), "B05": asset("s/B05.tif", "B05")})
    path = put(tmp_path / "i.json", {"type": "FeatureCollection", "features": [scene(tmp_path, "s", 1), other]})
    with pytest.raises(DataError, match=r"2 items have their files in .*/s; give each"):
        gather([path])


def test_a_folder_is_a_catalog_where_a_file_of_that_name_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    described = put(folder / "i.json", scene(folder, "s", 1))
    for other in ([1, 2], {"pictures": 2}, "3"):
        put(folder / "catalog.json", other)
        assert [entry.file for entry in gather([folder])[0]] == ["s/B04.tif", "s/B08.tif"]
    links = [{"rel": "item", "href": described.name}]
    put(folder / "collection.json", {"type": "Collection", "stac_version": "1.0.0", "id": "c", "links": links})
    assert [entry.file for entry in gather([folder])[0]] == ["s"]
    put(folder / "catalog.json", "{")
    with pytest.raises(DamagedError, match=r"catalog\.json: expected JSON"):
        gather([folder])


def test_reader_options_are_refused_beside_items(tmp_path: Path) -> None:
    path = put(tmp_path / "i.json", scene(tmp_path, "s", 1))
    with pytest.raises(ConfigError, match="reader options cannot be given"):
        build_manifest([path], options=["geotiff.level=0"])


GOOD = {"B04": asset("s/B04.tif", "B04")}


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("{", DamagedError, "expected JSON"),
        ("[" * 100_000, DamagedError, "expected JSON"),
        ("[1]", DataError, "expected a STAC object, got list"),
        ({"type": "Topology"}, UnsupportedError, "got type 'Topology'"),
        ({**item("i", GOOD), "stac_version": "0.9.0"}, UnsupportedError, "got stac_version '0.9.0'"),
        ({"type": "Feature", "geometry": None}, UnsupportedError, "got stac_version None"),
        ({"type": "FeatureCollection", "features": []}, DataError, "found none"),
        ({"type": "FeatureCollection", "features": [3]}, DataError, "`features` to be a list of objects"),
        ({**item("i", GOOD), "properties": None}, DataError, "expected `id`, `properties` and `assets`"),
        ({**item("i", GOOD), "id": None}, DataError, "expected `id`, `properties` and `assets`"),
        (
            item("i", {"x": asset("s/B04.tif", "a", roles="metadata")}),
            DataError,
            "has the roles 'metadata', expected a list",
        ),
        (item("i", {"x": asset("s/B04.tif", "a", **{"raster:scale": 0})}), DataError, "states the scale 0"),
        (item("i", {}), DataError, "got no asset"),
        (item("i", {"B04": {"href": "s/B04.tif"}}), DataError, "of the role `data`, got B04"),
        (item("i", {"B04": asset("s/B04.jp2", "B04")}), UnsupportedError, "asset 'B04' is none; convert it"),
        (item("i", {"B04": asset("s/B05.tif", "B05")}), MissingDataError, "is not at .*B05.tif"),
        (item("i", {"x": asset("s/B04.tif", "B04"), "y": asset("s/B08.tif", "B04")}), DataError, "'B04' occurs twice"),
        (item("i", {"x": asset("s/B04.tif", "B04"), "y": asset("t/B08.tif", "B08")}), DataError, "in one folder"),
        (
            item("i", {"x": asset("s/B04.tif", **{"raster:bands": [{}, {}]})}),
            DataError,
            "band 1 of asset 'x' has no name",
        ),
        (item("i", {"x": asset("s/B04.tif", "a", "b", **{"raster:bands": [{}]})}), DataError, "not as many"),
        (item("i", {"x": asset("s/B04.tif", "a", nodata=[3])}), DataError, r"states \[3\] where a finite number"),
        (item("i", {"x": asset("s/B04.tif", "a", **{"raster:scale": True})}), DataError, "states True"),
        (
            item("i", {"x": asset("s/B04.tif", "a", **{"raster:scale": math.nan})}),
            DataError,
            "states nan where a finite",
        ),
        (
            item("i", {"x": asset("s/B04.tif", "a", **{"raster:offset": math.inf})}),
            DataError,
            "states inf where a finite",
        ),
        ({"type": "Catalog", "stac_version": "1.0.0", "links": [{"rel": "item"}]}, DataError, "no `href`"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    content: Any, error: type[HalfseenError], says: str, tmp_path: Path
) -> None:
    scene(tmp_path, "s", 1)
    write(tmp_path / "t" / "B08.tif", 5)
    path = put(tmp_path / "i.json", content)
    with pytest.raises(error, match=says) as caught:
        gather([path])
    assert "i.json" in str(caught.value)
