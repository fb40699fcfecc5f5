"""Scenes: real coordinate systems, scales and nodata, and a label that lies in the spectra."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from core.rng import numpy_rng
from datasets.synthetic.scene import (
    COVERS,
    LANDSAT,
    MODIS,
    SENTINEL2,
    Scene,
    Sensor,
    cut,
    scene,
    write_geotiff,
    write_label,
    write_landsat,
    write_zarr,
)

SIZE = (256, 320)


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    """Two scenes of each cover, by Sentinel-2."""
    return [scene(numpy_rng(4, number), COVERS[number // 2], size=SIZE) for number in range(12)]


@pytest.mark.parametrize("sensor", ["sentinel2", "modis"])
def test_same_generator_same_scene(sensor: Sensor) -> None:
    first, again = (scene(numpy_rng(6), "crop", sensor, SIZE) for _ in range(2))
    assert np.array_equal(first.raw, again.raw)
    assert (first.epsg, first.origin, first.nodata) == (again.epsg, again.origin, again.nodata)
    assert first.raw.shape == (len(SENTINEL2 if sensor == "sentinel2" else MODIS), *SIZE)
    assert first.raw.dtype == np.uint16


def test_the_label_is_the_cover_with_the_most_ground(drawn: list[Scene]) -> None:
    for number, one in enumerate(drawn):
        assert max(one.fractions, key=lambda cover: one.fractions[cover]) == COVERS[number // 2]
        assert sum(one.fractions.values()) == pytest.approx(1)
        assert one.fractions[COVERS[number // 2]] > 0.38
        assert np.array_equal(one.label == 0, (one.raw == one.nodata).all(axis=0))
        assert (one.label > 0).mean() > 0.6


def test_nodata_is_all_bands_or_none(drawn: list[Scene]) -> None:
    modis = [scene(numpy_rng(8, number), "soil", "modis", SIZE) for number in range(8)]
    assert {one.nodata for one in modis} == {0, 65535}
    for one in [*drawn, *modis]:
        missing = one.raw == one.nodata
        assert (missing.any(axis=0) == missing.all(axis=0)).all()
    assert 2 <= sum((one.label == 0).any() for one in drawn) <= 11


def reflectance(one: Scene) -> np.ndarray:
    return one.raw * np.array(one.scales)[:, None, None]


def guess(one: Scene) -> str:
    """The cover by textbook indices of the scene's clear measured pixels, medians only."""
    clear = (one.label > 0) & ~one.cloud
    names = list(one.bands)
    green, red, near, swir = (
        float(np.median(reflectance(one)[names.index(b)][clear])) for b in ("B03", "B04", "B08", "B11")
    )
    if green > 0.4:
        return "snow"
    if near < 0.12:
        return "water"
    if (near - red) / (near + red) > 0.6:
        return "crop" if near > 0.38 else "forest"
    return "soil" if swir > 0.31 else "urban"


def test_textbook_indices_tell_the_cover(drawn: list[Scene]) -> None:
    right = sum(guess(one) == COVERS[number // 2] for number, one in enumerate(drawn))
    assert right >= 10, [(COVERS[n // 2], guess(one)) for n, one in enumerate(drawn)]


def test_place_and_swath_tell_nothing_of_the_cover() -> None:
    """The same generator gives the same place whatever is drawn; so place cannot predict it."""
    scenes = [scene(numpy_rng(9), cover, size=(64, 64)) for cover in COVERS]
    assert len({(one.epsg, one.origin, one.nodata) for one in scenes}) == 1
    assert all(np.array_equal(one.label == 0, scenes[0].label == 0) for one in scenes)


def test_emissive_bands_are_kelvin_and_clouds_are_cold() -> None:
    cloudy = [one for n in range(12) if (one := scene(numpy_rng(11, n), "soil", "modis", SIZE)).cloud.mean() > 0.03]
    assert cloudy
    for one in cloudy:
        names = list(one.bands)
        kelvin = reflectance(one)[names.index("M31")]
        clear = (one.label > 0) & ~one.cloud
        assert one.units[names.index("M31")] == "K"
        assert 270 < np.median(kelvin[clear]) < 325
        assert np.median(kelvin[one.cloud]) < np.median(kelvin[clear]) - 20


def test_geotiff_holds_names_scales_units_nodata_and_place(tmp_path: Path, drawn: list[Scene]) -> None:
    import rasterio

    one = drawn[3]
    write_geotiff(tmp_path / "s.tif", one)
    write_label(tmp_path / "l.tif", one)
    with rasterio.open(tmp_path / "s.tif") as file, rasterio.open(tmp_path / "l.tif") as label:
        assert np.array_equal(file.read(), one.raw)
        assert file.descriptions == tuple(SENTINEL2)
        assert (file.scales, file.offsets, set(file.units)) == (one.scales, (0.0,) * 13, {"reflectance"})
        assert (file.nodata, file.crs.to_epsg(), file.res) == (one.nodata, one.epsg, (10.0, 10.0))
        assert (file.transform.c, file.transform.f) == one.origin
        assert file.block_shapes[0] == (256, 256)
        assert np.array_equal(label.read(1), one.label)
        assert label.transform == file.transform
    write_geotiff(tmp_path / "again.tif", one)
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "s.tif").read_bytes()


def test_geotiff_without_place_has_none(tmp_path: Path, drawn: list[Scene]) -> None:
    import rasterio

    write_geotiff(tmp_path / "s.tif", drawn[0], georeferenced=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "s.tif") as file:
            assert file.crs is None
            assert file.transform.is_identity


def test_a_cut_keeps_its_place(drawn: list[Scene]) -> None:
    one = drawn[2]
    part = cut(one, slice(100, 200), slice(50, 90))
    assert part.raw.shape == (13, 100, 40)
    assert part.origin == (one.origin[0] + 500, one.origin[1] - 1000)
    assert sum(part.fractions.values()) == pytest.approx(1)


def test_landsat_folder_has_one_file_per_band_and_its_own_scaling(tmp_path: Path) -> None:
    import rasterio

    one = scene(numpy_rng(2), "forest", size=SIZE, bands=LANDSAT)
    name = "LC09_L2SP_022049_20240101_20240102_02_T1"
    write_landsat(tmp_path / name, one)
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [f"{name}_SR_B{n}.TIF" for n in range(1, 8)]
    with rasterio.open(tmp_path / name / f"{name}_SR_B5.TIF") as file:
        physical = file.read(1) * 2.75e-5 - 0.2
        assert file.nodata == 0
        valid = one.label > 0
        np.testing.assert_allclose(physical[valid], reflectance(one)[4][valid], atol=2e-5)


def test_zarr_is_a_plain_array_with_names(tmp_path: Path, drawn: list[Scene]) -> None:
    import zarr

    write_zarr(tmp_path / "s.zarr", drawn[5])
    array = zarr.open_array(str(tmp_path / "s.zarr"), mode="r")
    assert np.array_equal(array[...], drawn[5].raw)
    assert array.metadata.dimension_names == ("band", "y", "x")
    assert array.attrs["bands"] == list(SENTINEL2)
    assert array.fill_value == drawn[5].nodata
