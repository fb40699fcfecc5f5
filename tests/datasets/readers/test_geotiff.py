"""Scenes: the reader's exam, and what is particular to GeoTIFF."""

from __future__ import annotations

import os
import shutil
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.control import GroundControlPoint

from core.errors import (
    BandError,
    BudgetError,
    ConfigError,
    DamagedError,
    DataError,
    GeometryError,
    HalfseenError,
    UnsupportedError,
)
from core.geometry import Georeference, Spacing
from datasets.image import LazyImage
from datasets.readers import configured, find_reader, name_of, open_image
from datasets.readers._tiff import belongs_to
from datasets.readers.geotiff import GeoTiff
from datasets.testing.reader_contract import Case, ReaderContract

UTM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)


def noise(bands: int, height: int, width: int, dtype: Any = np.uint16, seed: int = 0) -> np.ndarray:
    """Draw (bands, height, width) numbers from 1 to 250 (or with a fraction), so that none is a usual nodata value."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    values = rng.uniform(1, 250, (bands, height, width))
    return values.astype(dtype)


def write(path: Path, image: np.ndarray, **profile: Any) -> Path:
    """Write (C, Y, X) as a GeoTIFF on a UTM grid of 10 m, unless the profile says otherwise."""
    options = {"crs": "EPSG:32615", "transform": rasterio.Affine(*UTM), **profile}
    after = {key: options.pop(key) for key in ("descriptions", "scales", "offsets", "units") if key in options}
    count, height, width = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=image.dtype, **options
        ) as file:
            file.write(image)
            for key, value in after.items():
                setattr(file, key, value)
    return path


def codes(image: LazyImage) -> set[str]:
    return {flag.code for flag in image.flags}


class TestGeoTiff(ReaderContract):
    def reader(self) -> GeoTiff:
        return GeoTiff()

    def cases(self, folder: Path) -> list[Case]:
        cases = []

        def add(
            name: str, image: np.ndarray, bands: tuple[str, ...], valid: np.ndarray | None = None, **profile: Any
        ) -> None:
            nodata = profile.get("nodata")
            scaling = tuple(zip(profile["scales"], profile["offsets"], strict=True)) if "scales" in profile else None
            cases.append(
                Case(
                    path=write(folder / name, image, **profile),
                    image=image,
                    bands=bands,
                    spacing=Spacing((10.0, 10.0), "m"),
                    georeference=Georeference("EPSG:32615", UTM),
                    nodata=None if nodata is None else (nodata,) * len(image),
                    scaling=scaling,
                    valid=np.ones(image.shape, bool) if valid is None else valid,
                )
            )

        named = ("blue", "nir", "swir")
        tiles = {"tiled": True, "blockxsize": 16, "blockysize": 32}
        add("tiles.tif", noise(3, 70, 45), named, descriptions=named, compress="deflate", predictor=2, **tiles)
        add(
            "planes.tif",
            noise(3, 33, 64, np.int16, 1),
            named,
            descriptions=named,
            interleave="band",
            compress="zstd",
            **tiles,
        )
        add("strips.tif", noise(2, 41, 23, np.float32, 2), ("band_1", "band_2"), compress="lzw")
        add("plain.tif", noise(1, 21, 34, np.float64, 3), ("band_1",))
        add("colour.tif", noise(3, 20, 17, np.uint8, 4), ("red", "green", "blue"), photometric="RGB")
        add("big.tif", noise(1, 25, 19, np.int32, 5), ("band_1",), BIGTIFF="YES", ENDIANNESS="BIG")
        add("signed.tif", noise(1, 9, 11, np.int8, 6) // 2, ("band_1",))
        holed = noise(2, 30, 31, np.int16, 7)
        holed[0, 3:9, 4:20], holed[1, 25:, :5] = -9999, -9999
        scales = {"scales": (0.5, 0.0001), "offsets": (0.0, -0.1), "units": ("K", "")}
        add("holed.tif", holed, ("band_1", "band_2"), holed != -9999, nodata=-9999.0, **scales)
        image, mask = noise(2, 40, 40, np.uint16, 8), noise(1, 40, 40, np.uint8, 9)[0] > 90
        add("masked.tif", image, ("a", "b"), np.broadcast_to(mask, image.shape), descriptions=("a", "b"), **tiles)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(folder / "masked.tif", "r+") as file:
            file.write_mask(mask)
        return cases

    def large(self, folder: Path) -> Path:
        image = noise(4, 1024, 1024, np.uint16)
        return write(folder / "large.tif", image, tiled=True, blockxsize=128, blockysize=128, compress="zstd")


# --- which TIFF is whose ----------------------------------------------------------------------------------------------


def test_plain_photographs_stay_with_the_other_reader(tmp_path: Path) -> None:
    for number, (image, photometric) in enumerate(
        [
            (noise(1, 20, 20, np.uint8)[0], "minisblack"),
            (noise(1, 20, 20, np.uint16)[0], "minisblack"),
            (noise(3, 20, 20, np.uint8).transpose(1, 2, 0), "rgb"),
            (noise(4, 20, 20, np.uint16).transpose(1, 2, 0), "rgb"),
        ]
    ):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric=photometric)
        assert belongs_to(tmp_path / f"{number}.tif") == "photograph"
        assert name_of(find_reader(tmp_path / f"{number}.tif")) == "raster_image"


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, np.float64])
def test_numbers_that_no_photograph_has_make_a_scene(dtype: type, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(1, 20, 20, dtype)[0])
    image = open_image(tmp_path / "a.tif")
    assert name_of(find_reader(tmp_path / "a.tif")) == "geotiff"
    assert (image.dtype, image.bands) == (dtype, ("band_1",))
    assert codes(image) == {"no_crs", "unnamed_bands"}
    assert np.array_equal(image.read(), noise(1, 20, 20, dtype))


def test_more_than_four_samples_or_bands_that_are_no_colours_make_a_scene(tmp_path: Path) -> None:
    for count in (3, 4, 5, 13):
        tifffile.imwrite(
            tmp_path / "a.tif", noise(count, 9, 8).transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"
        )
        assert open_image(tmp_path / "a.tif").shape == (count, 9, 8)


def test_one_gdal_tag_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1, 9, 9, np.uint8), crs=None, transform=None, nodata=3)
    assert open_image(tmp_path / "a.tif").nodata == (3.0,)


def test_a_damaged_directory_is_reported_as_damage_by_either_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 9, 9))
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", len(data) + 5)
    path.write_bytes(data)
    assert belongs_to(path) == "nobody"
    with pytest.raises(DamagedError, match=r"a\.tif: expected a whole TIFF, but the file is truncated or altered"):
        open_image(path)


# --- bands, nodata, masks ---------------------------------------------------------------------------------------------


def test_descriptions_name_bands_only_when_all_differ(tmp_path: Path) -> None:
    for described, bands in [
        (("red", "nir"), ("red", "nir")),
        (("red", None), ("band_1", "band_2")),
        (("red", "red"), ("band_1", "band_2")),
    ]:
        image = open_image(write(tmp_path / "a.tif", noise(2, 9, 9), descriptions=described))
        assert image.bands == bands
        assert codes(image) == (set() if bands == described else {"unnamed_bands"})


def test_option_names_bands_and_their_number_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(2, 9, 9))
    image = open_image(path, *configured(["geotiff.bands=[red, nir]"]))
    assert (image.bands, image.flags) == (("red", "nir"), ())
    for wrong in (("red",), ("red", "red")):
        with pytest.raises(BandError, match=r"a\.tif: expected 2 different band names"):
            open_image(path, GeoTiff(bands=wrong))


def test_colours_name_bands_and_a_fourth_is_numbered(tmp_path: Path) -> None:
    image = open_image(write(tmp_path / "a.tif", noise(4, 9, 9), photometric="RGB", alpha="unspecified"))
    assert image.bands == ("red", "green", "blue", "band_4")
    assert codes(image) == {"unnamed_bands"}


def test_alpha_is_no_band_but_says_what_is_measured(tmp_path: Path) -> None:
    pixels = noise(4, 20, 30, np.uint8)
    pixels[3] = np.where(pixels[3] < 100, 0, pixels[3])
    image = open_image(write(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes"))
    assert image.bands == ("red", "green", "blue")
    voxels, valid = image.read_valid(bands=("blue", "red"))
    assert np.array_equal(voxels, pixels[[2, 0]])
    assert np.array_equal(valid, np.broadcast_to(pixels[3] > 0, (2, 20, 30)))
    assert codes(image) == {"alpha"}


def test_a_fourth_band_that_was_marked_as_alpha_by_mistake_is_a_band(tmp_path: Path) -> None:
    """GDAL writes four 8-bit bands as RGBA unless told otherwise."""
    pixels, names = noise(4, 20, 30, np.uint8), ("red", "green", "blue", "nir")
    pixels[3, :5] = 0
    silent = write(tmp_path / "silent.tif", pixels)
    assert open_image(silent).shape == (3, 20, 30)
    for image in (
        open_image(silent, GeoTiff(bands=names)),
        open_image(write(tmp_path / "told.tif", pixels, descriptions=names)),
    ):
        assert image.bands == names
        voxels, valid = image.read_valid()
        assert np.array_equal(voxels, pixels)
        assert valid.all()


def test_mask_holds_beside_nodata(tmp_path: Path) -> None:
    pixels = noise(1, 20, 30, np.uint8)
    pixels[0, :5] = 255
    path = write(tmp_path / "a.tif", pixels, nodata=255)
    mask = np.ones((20, 30), bool)
    mask[:, :7] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert np.array_equal(open_image(path).read_valid()[1][0], mask & (pixels[0] != 255))


@pytest.mark.parametrize(
    ("dtype", "said", "kept"),
    [
        (np.uint8, 0, 0.0),
        (np.float32, np.nan, np.nan),
        (np.float32, -3.4028234663852886e38, -3.4028234663852886e38),
        (np.float32, 0.1, float(np.float32(0.1))),
        (np.int16, -9999, -9999.0),
    ],
)
def test_nodata_is_a_value_that_a_voxel_can_have(dtype: type, said: float, kept: float, tmp_path: Path) -> None:
    pixels = noise(1, 9, 9, dtype)
    pixels[0, 2, 3] = said
    image = open_image(write(tmp_path / "a.tif", pixels, nodata=said))
    assert image.nodata is not None
    np.testing.assert_equal(image.nodata, (kept,))
    valid = image.read_valid()[1]
    assert (valid.sum(), valid[0, 2, 3]) == (80, False)


@pytest.mark.parametrize("said", ["-9999", "300", "0.5", "nan", "none"])
def test_nodata_that_cannot_occur_is_ignored_with_a_flag(said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(1, 9, 9, np.uint8)[0], extratags=[(42113, "s", 0, said, True)])
    image = open_image(path)
    assert image.nodata is None
    assert "nodata_out_of_range" in codes(image)
    assert image.read_valid()[1].all()


def test_nodata_can_be_declared(tmp_path: Path) -> None:
    pixels = noise(2, 9, 9)
    pixels[:, 1, 1], pixels[1, 2, 2] = 16000, 7000
    path = write(tmp_path / "a.tif", pixels)
    assert open_image(path).read_valid()[1].all()
    assert open_image(path, *configured(["geotiff.nodata=16000"])).read_valid()[1].sum(axis=(1, 2)).tolist() == [80, 80]
    each = open_image(path, GeoTiff(nodata=(16000, 7000)))
    assert each.nodata == (16000.0, 7000.0)
    assert each.read_valid()[1].sum(axis=(1, 2)).tolist() == [80, 80]
    with pytest.raises(BandError, match=r"a\.tif: expected one nodata value, or 2"):
        open_image(path, GeoTiff(nodata=(1, 2, 3)))
    with pytest.raises(ConfigError, match=r"a\.tif: nodata \(-1,\) cannot occur in uint16"):
        open_image(path, GeoTiff(nodata=(-1,)))


def test_scale_zero_or_not_finite_is_refused(tmp_path: Path) -> None:
    for scales in ((0.0, 1.0), (1.0, float("inf"))):
        path = write(tmp_path / "a.tif", noise(2, 9, 9), scales=scales)
        with pytest.raises(DamagedError, match=r"a\.tif: expected finite scales"):
            open_image(path)


# --- place ------------------------------------------------------------------------------------------------------------


def test_spacing_is_in_metres_whatever_the_unit_of_the_crs(tmp_path: Path) -> None:
    feet = open_image(
        write(tmp_path / "a.tif", noise(1, 9, 9), crs="EPSG:2225", transform=rasterio.Affine(3, 0, 6e6, 0, -6, 2e6))
    )
    assert feet.spacing.unit == "m"
    assert feet.spacing.values == pytest.approx((6 * 1200 / 3937, 3 * 1200 / 3937), rel=1e-9)
    assert feet.georeference == Georeference("EPSG:2225", (3.0, 0.0, 6e6, 0.0, -6.0, 2e6))


def test_degrees_become_metres_at_the_centre(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tif", noise(1, 100, 100), crs="EPSG:4326", transform=rasterio.Affine(0.01, 0, 10, 0, -0.01, 60.5)
    )
    image = open_image(path)
    # Length of a degree at latitude 60 on WGS84: 111,412 m north, 55,800 m east (NGA tables).
    assert image.spacing.values == pytest.approx((1114.12, 558.00), rel=1e-4)
    assert "geographic_crs" in codes(image)


def test_crs_without_code_stays_wkt(tmp_path: Path) -> None:
    text = "+proj=laea +lat_0=47 +lon_0=11 +datum=WGS84 +units=m"
    image = open_image(write(tmp_path / "a.tif", noise(1, 9, 9), crs=text))
    assert image.georeference is not None
    assert image.georeference.crs.startswith("PROJCS")
    assert rasterio.CRS.from_wkt(image.georeference.crs) == rasterio.CRS.from_string(text)
    assert image.spacing == Spacing((10.0, 10.0), "m")


@pytest.mark.parametrize(
    ("crs", "transform", "code"),
    [
        ("EPSG:32615", (8.0, 6.0, 5e5, 6.0, -8.0, 4e6), "rotated"),
        ("EPSG:32615", (10.0, 0.0, 5e5, 0.0, 10.0, 4e6), "south_up"),
        ("EPSG:32615", (-10.0, 0.0, 5e5, 0.0, -10.0, 4e6), "east_left"),
        ("EPSG:4326", (0.01, 0.0, 47.0, 0.0, -0.01, 122.0), "wrong_axis"),
        ("EPSG:32615", (10.0, 0.0, 4e6, 0.0, -10.0, 5e5), "wrong_axis"),
        ("EPSG:32615", (0.001, 0.0, -93.0, 0.0, -0.001, 35.0), "wrong_axis"),
        ("EPSG:4326", (0.1, 0.0, 179.5, 0.0, -0.1, 10.0), "antimeridian"),
        ("EPSG:32660", (1000.0, 0.0, 825_000.0, 0.0, -1000.0, 100_000.0), "antimeridian"),
    ],
)
def test_unusual_places_are_read_and_flagged(crs: str, transform: tuple[float, ...], code: str, tmp_path: Path) -> None:
    image = open_image(write(tmp_path / "a.tif", noise(1, 30, 30), crs=crs, transform=rasterio.Affine(*transform)))
    assert code in codes(image)
    assert image.georeference is not None
    np.testing.assert_allclose(image.georeference.transform, transform)
    if code == "rotated":
        assert image.spacing == Spacing((10.0, 10.0), "m")


def test_ordinary_places_have_no_flag(tmp_path: Path) -> None:
    for crs, transform in [("EPSG:32660", UTM), ("EPSG:32701", UTM), ("EPSG:3857", UTM)]:
        image = open_image(write(tmp_path / "a.tif", noise(1, 30, 30), crs=crs, transform=rasterio.Affine(*transform)))
        assert codes(image) == {"unnamed_bands"}


def test_pixel_is_point_is_shifted_by_half_a_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 9, 9))
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    with tifffile.TiffFile(path) as file:
        keys = file.pages.first.tags[34735].value
        tiepoint = file.pages.first.tags[33922].value
    assert 1025 in keys and keys[keys.index(1025) + 3] == 2
    image = open_image(path)
    assert image.georeference is not None
    assert image.georeference.transform[2] == tiepoint[3] - 5.0
    assert image.georeference.transform[5] == tiepoint[4] + 5.0


def test_no_place_is_flagged_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 9, 9, np.int16), crs=None, transform=None)
    image = open_image(path)
    assert (image.georeference, image.spacing) == (None, Spacing.pixels(2))
    assert "no_crs" in codes(image)
    with pytest.raises(GeometryError, match=r"a\.tif: expected a CRS and a transform"):
        open_image(path, GeoTiff(crs="require"))
    untold = write(tmp_path / "b.tif", noise(1, 9, 9), transform=None)
    assert "no_transform" in codes(open_image(untold))
    points = [
        GroundControlPoint(row, column, 1e5 + column, 2e5 - row) for row, column in ((0, 0), (0, 9), (9, 0), (9, 9))
    ]
    controlled = write(tmp_path / "c.tif", noise(1, 9, 9), crs=None, transform=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(controlled, "r+") as file:
            file.gcps = (points, rasterio.CRS.from_epsg(32615))
    assert "control_points" in codes(open_image(controlled))


# --- levels -----------------------------------------------------------------------------------------------------------


def test_levels_are_read_with_their_place_and_names(tmp_path: Path) -> None:
    pixels = noise(2, 100, 60)
    profile = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    path = write(
        tmp_path / "a.tif", pixels, descriptions=("red", "nir"), scales=(2.0, 3.0), offsets=(0.0, 1.0), **profile
    )
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    full, half = open_image(path), open_image(path, GeoTiff(level=1))
    assert full.levels == half.levels == ((100, 60), (50, 30), (25, 15))
    assert (full.level, half.level, half.shape) == (0, 1, (2, 50, 30))
    assert (half.bands, half.scaling) == (full.bands, full.scaling)
    assert half.spacing == Spacing((20.0, 20.0), "m")
    assert half.georeference == Georeference("EPSG:32615", (20.0, 0.0, 500_000.0, 0.0, -20.0, 4_000_000.0))
    means = pixels.reshape(2, 50, 2, 30, 2).mean(axis=(2, 4))
    assert np.abs(half.read().astype(float) - means).max() <= 0.5
    assert np.array_equal(half.read((slice(10, 20), slice(5, 9))), half.read()[:, 10:20, 5:9])
    with pytest.raises(UnsupportedError, match=r"a\.tif: expected a level from 0 to 2, got 3"):
        open_image(path, GeoTiff(level=3))


# --- sparse files and budgets -----------------------------------------------------------------------------------------


def sparse(path: Path, *, side: int = 256, nodata: float | None = None, interleave: str = "pixel") -> np.ndarray:
    """Write two bands of which only some 64-pixel tiles exist; give what was written, 0 elsewhere."""
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 2, "dtype": "uint16", "crs": "EPSG:32615"}
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": True, "transform": rasterio.Affine(*UTM)}
    image, block = np.zeros((2, side, side), np.uint16), noise(2, 64, 64)
    with rasterio.open(path, "w", nodata=nodata, interleave=interleave, **profile, **tiles) as file:
        for band, row, column in (
            ((1, 64, 128), (2, 64, 128), (2, 0, 0)) if interleave == "band" else ((1, 64, 128), (2, 64, 128))
        ):
            image[band - 1, row : row + 64, column : column + 64] = block[band - 1]
            file.write(block[band - 1], band, window=((row, row + 64), (column, column + 64)))
    return image


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_blocks_never_written_are_refused_or_taken_as_the_option_says(interleave: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    written = sparse(path, interleave=interleave)
    count = {"pixel": "15 of 16", "band": "29 of 32"}[interleave]
    with pytest.raises(UnsupportedError, match=rf"a\.tif: expected a whole scene, but it is sparse: {count} blocks"):
        open_image(path)
    kept = open_image(path, GeoTiff(sparse="invalid"))
    voxels, valid = kept.read_valid()
    assert np.array_equal(voxels, written)
    assert np.array_equal(valid, written > 0)
    window = (slice(50, 90), slice(120, 200))
    for bands in (None, kept.bands[1:], kept.bands[::-1]):
        rows = [kept.bands.index(name) for name in bands or kept.bands]
        assert np.array_equal(kept.read_valid(window, bands)[1], (written > 0)[rows][:, 50:90, 120:200])
    assert open_image(path, GeoTiff(sparse="fill")).read_valid()[1].all()
    assert "sparse" in codes(kept)


def test_sparse_blocks_read_as_nodata_where_there_is_one(tmp_path: Path) -> None:
    written = sparse(tmp_path / "a.tif", nodata=999)
    image = open_image(tmp_path / "a.tif")
    assert "sparse" in codes(image)
    assert np.array_equal(image.read_valid()[1], written > 0)


def test_a_declared_nodata_does_not_excuse_blocks_that_read_as_zero(tmp_path: Path) -> None:
    sparse(tmp_path / "a.tif")
    with pytest.raises(UnsupportedError, match="sparse"):
        open_image(tmp_path / "a.tif", GeoTiff(nodata=(16000,)))
    assert codes(open_image(tmp_path / "a.tif", GeoTiff(nodata=(0,)))) >= {"sparse"}


def test_a_hundred_thousand_blocks_open_fast(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 5120, "height": 5120, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        path,
        "w",
        tiled=True,
        blockxsize=16,
        blockysize=16,
        SPARSE_OK=True,
        **profile,
        crs="EPSG:32615",
        transform=rasterio.Affine(*UTM),
    ) as file:
        file.write(noise(1, 16, 16, np.uint8), window=((16, 32), (16, 32)))
    open_image(path)
    start = time.perf_counter()
    image = open_image(path)
    taken = time.perf_counter() - start
    assert "102399 of 102400 blocks" in " ".join(flag.text for flag in image.flags)
    assert taken < 0.25, f"{taken:.3f} s"


def test_budget_is_of_the_window_not_of_the_scene(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(2, 200, 200), tiled=True, blockxsize=16, blockysize=16)
    image = open_image(path, GeoTiff(max_bytes=2000))
    assert image.read((slice(0, 20), slice(0, 25))).nbytes == 2000
    with pytest.raises(
        BudgetError, match=r"a\.tif: expected windows of at most 2e-06 GB, window rows 0-20, columns 0-26"
    ):
        image.read((slice(0, 20), slice(0, 26)))
    with pytest.raises(BudgetError, match=r"a\.tif: expected blocks of at most"):
        open_image(path, GeoTiff(max_bytes=1000))


# --- kinds that are refused -------------------------------------------------------------------------------------------


def test_complex_numbers_pages_and_palettes_are_refused_with_the_cure(tmp_path: Path) -> None:
    complex_ = write(tmp_path / "complex.tif", noise(1, 9, 9).astype(np.complex64))
    with pytest.raises(
        UnsupportedError, match=r"complex\.tif: expected real numbers, got complex64; convert it to magn"
    ):
        open_image(complex_)
    tifffile.imwrite(tmp_path / "pages.tif", noise(3, 9, 9, np.float32), photometric="minisblack")
    with pytest.raises(UnsupportedError, match=r"pages\.tif: expected one image, got a TIFF of 3 pages"):
        open_image(tmp_path / "pages.tif")
    pixels = noise(1, 9, 9, np.uint8)
    palette = write(tmp_path / "palette.tif", pixels, photometric="palette")
    with rasterio.open(palette, "r+") as file:
        file.write_colormap(1, {value: (value, 0, 255 - value, 255) for value in range(256)})
    with pytest.raises(UnsupportedError, match=r"palette\.tif: .*geotiff\.palette=index"):
        open_image(palette)
    assert np.array_equal(open_image(palette, GeoTiff(palette="index")).read(), pixels)


def test_jpeg_2000_is_read_only_when_allowed(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.jp2", noise(2, 64, 48)
    profile = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "blockxsize": 32, "blockysize": 32}
    with rasterio.open(
        path,
        "w",
        count=2,
        height=64,
        width=48,
        dtype="uint16",
        crs="EPSG:32615",
        transform=rasterio.Affine(*UTM),
        **profile,
    ) as file:
        file.write(pixels)
    with pytest.raises(
        UnsupportedError, match=r"a\.jp2: expected a GeoTIFF, got JPEG 2000; .*--options geotiff\.jp2=true"
    ):
        open_image(path)
    image = open_image(path, GeoTiff(jp2=True))
    assert np.array_equal(image.read(), pixels)
    assert np.array_equal(image.read((slice(30, 40), slice(5, 48))), pixels[:, 30:40, 5:48])
    assert image.georeference == Georeference("EPSG:32615", UTM)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedError, match=r"a\.jp2"):
        open_image(path, GeoTiff(jp2=True)).read()


# --- damage -----------------------------------------------------------------------------------------------------------


def test_truncation_is_noticed_when_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 300, 300), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(
        DamagedError, match=rf"a\.tif: .*truncated: it has {len(data) - 1} bytes, its pixels reach to byte {len(data)}"
    ):
        open_image(path)


def test_damaged_block_names_file_and_window_and_says_nothing_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.tif", noise(1, 256, 256), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[offset + 40 : offset + 400] = bytes(360)
    path.write_bytes(data)
    image = open_image(path)
    assert np.array_equal(image.read((slice(0, 128), slice(0, 256))), noise(1, 256, 256)[:, :128])
    with pytest.raises(
        DamagedError, match=r"a\.tif: .* window rows 128-140, columns 130-256 cannot be decoded \(.*a\.tif"
    ):
        image.read((slice(128, 140), slice(130, 256)))
    assert capfd.readouterr() == ("", "")


def test_metadata_that_are_no_text_are_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.tif", noise(2, 9, 9), descriptions=("red", "nir"))
    path.write_bytes(path.read_bytes().replace(b"nir", b"n\xf5r"))
    with pytest.raises(DamagedError, match=r"a\.tif: .* its metadata is no text"):
        open_image(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("profile", [{"compress": "deflate"}, {"compress": "zstd", "BIGTIFF": "YES"}])
def test_flipped_bits_end_in_voxels_or_in_a_sentence(
    profile: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.tif", noise(2, 40, 40), descriptions=("red", "nir"), **profile)
    data, said = path.read_bytes(), list[tuple[str, str]]()
    rng = np.random.Generator(np.random.Philox(key=11))
    for number in range(300):
        place = int(rng.integers(0, min(len(data), 900) * 8))  # header, directory and metadata come first
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        broken = tmp_path / f"b{number % 7}.tif"
        broken.write_bytes(changed)
        try:
            image = open_image(broken)
            image.read(tuple(slice(0, min(n, 40)) for n in image.size))
        except HalfseenError as error:
            said.append((broken.name, str(error)))
    assert len(said) > 20
    assert all(name in text for name, text in said)
    assert capfd.readouterr() == ("", "")


def test_a_file_replaced_in_between_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 40, 40))
    image = open_image(path)
    before = image.read()
    write(tmp_path / "b.tif", noise(1, 40, 40, seed=1) + 1000)
    os.utime(tmp_path / "b.tif", ns=(1, 1))
    (tmp_path / "b.tif").replace(path)
    assert np.array_equal(image.read(), before)  # through the handle that is still open
    assert np.array_equal(open_image(path).read(), noise(1, 40, 40, seed=1) + 1000)
    from datasets.handles import discard

    discard(image.source.handle.key)  # type: ignore[attr-defined]
    with pytest.raises(DamagedError, match=r"a\.tif: the file was replaced"):
        image.read()


# --- what lies beside the file ----------------------------------------------------------------------------------------


def test_sidecars_are_read_only_when_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(2, 20, 20, np.int16), nodata=-9999)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><Description>red</Description></PAMRasterBand>"
        "<PAMRasterBand band='2'><Description>nir</Description><NoDataValue>5</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    mask = np.full((1, 20, 20), 255, np.uint8)
    mask[0, :10] = 0
    write(tmp_path / "mask.tif", mask)
    with rasterio.open(tmp_path / "mask.tif", "r+") as file:
        file.update_tags(INTERNAL_MASK_FLAGS_1="2", INTERNAL_MASK_FLAGS_2="2")
    shutil.move(tmp_path / "mask.tif", tmp_path / "a.tif.msk")
    alone = open_image(path)
    assert (alone.bands, alone.nodata) == (("band_1", "band_2"), (-9999.0, -9999.0))
    assert alone.read_valid()[1].all()
    assert "sidecar" in codes(alone)
    both = open_image(path, GeoTiff(sidecars=True))
    assert (both.bands, both.nodata) == (("red", "nir"), (-9999.0, 5.0))
    voxels, valid = both.read_valid()
    assert not valid[:, :10].any()
    assert np.array_equal(valid[1, 10:], voxels[1, 10:] != 5)


def test_world_files_are_sidecars(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 9, 9), transform=None)
    (tmp_path / "a.tfw").write_text("7\n0\n0\n-7\n1000\n2000\n")
    assert open_image(path).georeference is None
    image = open_image(path, GeoTiff(sidecars=True))
    assert image.georeference is not None
    assert image.georeference.transform == (7.0, 0.0, 996.5, 0.0, -7.0, 2003.5)


def test_overviews_beside_the_file_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 64, 64))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    assert (tmp_path / "a.tif.ovr").exists()
    image = open_image(path)
    assert (image.levels, "sidecar" in codes(image)) == (((64, 64),), True)


def test_a_network_disk_is_not_listed(tmp_path: Path) -> None:
    """Opening beside 3,000 files costs no more than alone: GDAL does not read the folder."""
    path = write(tmp_path / "a.tif", noise(1, 9, 9))
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    reads = []
    for _ in range(5):
        os.utime(path)
        before = _syscalls()
        open_image(path)
        reads.append(_syscalls() - before)
    assert min(reads) < 60


def _syscalls() -> int:
    file = Path("/proc/self/io")
    if not file.exists():
        pytest.skip("needs /proc")
    return int(next(line for line in file.read_text().splitlines() if line.startswith("syscr")).split()[1])


# --- real scenes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def satellite(shared: Path) -> Path:
    return shared / "data/satellite"


def test_real_scenes_read_as_rasterio_reads_them(satellite: Path) -> None:
    for path in [*satellite.glob("misc_geotiff/*.tif"), *satellite.glob("landsat7_mexico/*.gtif")]:
        image = open_image(path)
        with rasterio.open(path) as file:
            assert np.array_equal(image.read(), file.read()), path
            assert image.georeference is not None
            assert image.georeference.transform == tuple(file.transform)[:6]
            assert rasterio.CRS.from_string(image.georeference.crs) == file.crs
            assert image.spacing.values == pytest.approx((file.res[0], file.res[1]), rel=1e-4)


def test_four_nodata_conventions(satellite: Path) -> None:
    folder = satellite / "misc_geotiff"
    assert open_image(folder / "L7_ETMs.tif").nodata is None
    assert open_image(folder / "RGB.byte.tif").nodata == (0.0, 0.0, 0.0)
    assert open_image(folder / "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif").nodata == (-99.0,)
    assert open_image(folder / "naip_m_4709963_se_14_1_20150926.tif").nodata == (0.0,) * 4


def test_landsat_fill_can_be_declared(satellite: Path) -> None:
    path = satellite / "landsat7_mexico/LE70220492002106EDC00_stack.gtif"
    silent, told = open_image(path), open_image(path, GeoTiff(nodata=(16000,)))
    assert silent.read_valid()[1].all()
    voxels, valid = told.read_valid()
    assert np.array_equal(valid, voxels != 16000)
    assert 0 < (~valid).sum() < valid.size


def test_landsat_sidecar_corrects_the_mask_band(satellite: Path) -> None:
    path = satellite / "landsat7_mexico/LE70220491999322EDC01_stack.gtif"
    assert open_image(path).nodata == (-9999.0,) * 8
    told = open_image(path, GeoTiff(sidecars=True))
    assert told.nodata == (*(-9999.0,) * 7, 255.0)


def test_refusals_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"a\.tif"):
        open_image(tmp_path / "a.tif")
