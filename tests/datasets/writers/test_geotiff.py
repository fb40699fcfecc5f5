"""GeoTIFFs that are written from windows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio

from core.errors import DataError, GeometryError
from core.geometry import Georeference, Spacing
from datasets.testing.writer_contract import WriterContract
from datasets.writers import Facts, Writer, write_image
from datasets.writers.geotiff import GeoTiff

TRANSFORM = (30.0, 0.0, 462405.0, 0.0, -30.0, 1741815.0)


def scene(shape: tuple[int, ...] = (3, 150, 170), dtype: str = "uint16", **changes: object) -> Facts:
    facts = Facts(
        shape=shape,
        dtype=np.dtype(dtype),
        bands=tuple(f"B{n + 2}" for n in range(shape[0])),
        spacing=Spacing((30.0, 30.0), "m"),
        georeference=Georeference("EPSG:32615", TRANSFORM),
        nodata=(0.0,) * shape[0],
        scaling=tuple((0.0001, -0.1 * n) for n in range(shape[0])),
        units=("reflectance",) * shape[0],
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def whole(facts: Facts, value: float = 0) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    return [(tuple(slice(0, n) for n in facts.size), np.full(facts.shape, value, dtype=facts.dtype))]


class TestGeoTiff(WriterContract):
    def writer(self) -> Writer:
        return GeoTiff()

    def name(self) -> str:
        return "scene.tif"

    def facts(self) -> list[Facts]:
        plain = {"nodata": None, "scaling": None, "units": None}
        kinds = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64")
        return [
            scene((3, 600, 700)),
            scene(valid=1, nodata=None),
            scene((1, 5, 7), "float32", nodata=(float("nan"),)),
            scene((1, 40, 33), "float32", nodata=(-99.0,)),
            scene((4, 20, 30), "uint8", **plain),  # not red, green, blue and transparency
            scene((3, 20, 30), "uint8", bands=("red", "green", "blue"), **plain),
            *(scene((1, 20, 30), kind, **plain) for kind in kinds),
            scene((1, 20, 30), "uint8", georeference=None, spacing=Spacing.pixels(2), **plain),
            scene((1, 20, 30), georeference=Georeference("EPSG:32615", (20.0, 10.0, 5e5, 10.0, -20.0, 1e6)), **plain),
        ][:-1]

    def large(self) -> Facts:
        return scene((4, 8000, 8000))


def test_it_is_cloud_optimised_with_overviews_and_band_facts(tmp_path: Path) -> None:
    facts = scene((3, 1100, 700))
    path = write_image(tmp_path / "a.tif", facts, whole(facts, 5), writer=GeoTiff(compression="zstd"))
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.overviews(1), file.block_shapes[0]) == ([2, 4], (512, 512))
        assert file.compression.name == "zstd"
        assert file.descriptions == ("B2", "B3", "B4")
        assert (file.nodata, file.scales[0], file.offsets[2]) == (0.0, 0.0001, -0.2)
        assert file.units == ("reflectance",) * 3
        assert (file.crs.to_epsg(), tuple(file.transform)[:6]) == (32615, TRANSFORM)


def test_nodata_does_not_bleed_into_overviews(tmp_path: Path) -> None:
    facts = scene((1, 1024, 1024))
    voxels = np.full(facts.shape, 1000, dtype=np.uint16)
    voxels[:, :, ::2] = 0
    path = write_image(tmp_path / "a.tif", facts, [(tuple(slice(0, 1024) for _ in "yx"), voxels)])
    with rasterio.open(path, OVERVIEW_LEVEL=0) as file:
        assert np.unique(file.read()).tolist() == [1000]


def test_four_bands_of_bytes_have_no_transparency(tmp_path: Path) -> None:
    facts = scene((4, 20, 30), "uint8", nodata=None, scaling=None, units=None)
    path = write_image(tmp_path / "a.tif", facts, whole(facts))
    with rasterio.open(path) as file:
        assert "alpha" not in {color.name for color in file.colorinterp}
        assert file.read_masks().min() == 255


def test_a_legend_becomes_colours_and_names(tmp_path: Path) -> None:
    facts = scene((1, 600, 600), "uint8", nodata=None, scaling=None, units=None, bands=("land cover",))
    legend = ((1, "forest", (0, 90, 0)), (2, "water", (0, 0, 200)))
    path = write_image(tmp_path / "a.tif", facts, whole(facts, 2), writer=GeoTiff(overviews="nearest", legend=legend))
    with rasterio.open(path) as file:
        assert file.colormap(1)[1] == (0, 90, 0, 255)
        assert file.tags(1)["CLASS_2"] == "water"
        assert file.read(1).max() == 2
    with pytest.raises(DataError, match="cannot be averaged"):
        write_image(tmp_path / "b.tif", facts, whole(facts, 2), writer=GeoTiff(legend=legend))


def test_tiles_shrink_where_many_bands_would_make_them_huge() -> None:
    assert GeoTiff().block(scene((3, 5000, 5000))) == (512, 512)
    assert GeoTiff().block(scene((200, 5000, 5000), "float32")) == (128, 128)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (scene((2, 5, 7), nodata=(0.0, None)), "one nodata value"),
        (scene((2, 5, 7), valid=2), "one mask"),
        (scene((2, 5, 7), "float16"), "float32 for float16"),
        (scene((2, 5, 7), "bool"), "uint8"),
    ],
)
def test_what_geotiff_cannot_keep_is_refused(tmp_path: Path, facts: Facts, words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_image(tmp_path / "a.tif", facts, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [-9999.0, 0.5])
def test_nodata_that_no_voxel_can_have_is_refused_and_not_rounded(value: float, tmp_path: Path) -> None:
    facts = scene(nodata=(value,) * 3)
    with pytest.raises(DataError, match=rf"a\.tif: its nodata value {value:g} cannot occur in uint16"):
        write_image(tmp_path / "a.tif", facts, whole(facts))


@pytest.mark.parametrize("text", ["EPSG:9", "wkt.txt"])
def test_a_crs_that_is_none_is_a_sentence_and_opens_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wkt.txt").write_text(rasterio.crs.CRS.from_epsg(32615).to_wkt())
    monkeypatch.chdir(tmp_path)
    facts = scene(georeference=Georeference(text, TRANSFORM))
    with pytest.raises(GeometryError, match=rf"a\.tif: expected a CRS as AUTHORITY:CODE or WKT .*, got '{text}'"):
        write_image(tmp_path / "a.tif", facts, whole(facts))
    assert [path.name for path in tmp_path.iterdir()] == ["wkt.txt"]
