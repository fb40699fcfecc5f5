"""Bands spread over named files: the reader's exam, and what joins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from core.errors import BandError, ConfigError, DataError, GeometryError, UnsafeError, UnsupportedError
from core.geometry import Georeference, Spacing
from datasets.readers import configured, is_image_folder, open_image, options_of
from datasets.readers.asset_files import AssetFiles
from datasets.testing.reader_contract import Case, ReaderContract

PLACE = Georeference("EPSG:32615", (30.0, 0.0, 5e5, 0.0, -30.0, 4e6))


def noise(*shape: int, dtype: Any = np.uint16, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.uniform(1, 250, shape).astype(dtype)


def write(path: Path, pixels: np.ndarray, *, step: float = 30.0, **profile: Any) -> np.ndarray:
    """Write (C, Y, X) on a UTM grid with its corner at (500000, 4000000)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crs": "EPSG:32615", "transform": rasterio.Affine(step, 0, 5e5, 0, -step, 4e6), **profile}
    scales, offsets = options.pop("scales", None), options.pop("offsets", None)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
        if scales is not None:
            file.scales, file.offsets = scales, offsets
    return pixels


class TestAssetFiles(ReaderContract):
    def reader(self) -> AssetFiles:
        return AssetFiles(
            files=("nir.tif", "visible.tif", "visible.tif"),
            bands=("nir", "red", "green"),
            nodata=("7", "", ""),
            scaling=("", "0.5 -1", ""),
        )

    def cases(self, folder: Path) -> list[Case]:
        found = []
        layouts: tuple[dict[str, Any], ...] = (
            {},
            {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
        )
        for number, tiles in enumerate(layouts):
            place = folder / f"item{number}"
            nir = noise(1, 60, 45, seed=number)
            nir[0, 3:20, 5:30] = 7
            image = np.concatenate(
                [
                    write(place / "nir.tif", nir, **tiles),
                    write(place / "visible.tif", noise(2, 60, 45, seed=9 + number), nodata=99, **tiles),
                ]
            )
            found.append(
                Case(
                    path=place,
                    image=image,
                    bands=("nir", "red", "green"),
                    spacing=Spacing((30.0, 30.0), "m"),
                    georeference=PLACE,
                    nodata=(7.0, 99.0, 99.0),
                    scaling=((1.0, 0.0), (0.5, -1.0), (1.0, 0.0)),
                    valid=image != np.array([7, 99, 99])[:, None, None],
                )
            )
        return found

    def large(self, folder: Path) -> Path:
        tiles: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256}
        write(folder / "large" / "nir.tif", noise(1, 1300, 1100), **tiles)
        write(folder / "large" / "visible.tif", noise(2, 1300, 1100), **tiles)
        return folder / "large"

    def test_content_decides_not_the_name(self, tmp_path: Path) -> None:
        """Options decide here: without them nothing is recognised, so that no other image is ever taken."""
        case = self.cases(tmp_path)[0]
        assert not is_image_folder(case.path)
        assert not AssetFiles().recognises(case.path / "nir.tif", (case.path / "nir.tif").read_bytes()[:512])
        again = configured(options_of(self.reader()))
        assert np.array_equal(open_image(case.path, *again).read(), case.image)
        assert open_image(case.path, *again).bands == ("nir", "red", "green")


def two(folder: Path, other: np.ndarray, **profile: Any) -> Path:
    write(folder / "a.tif", noise(1, 20, 20))
    write(folder / "b.tif", other, **profile)
    return folder


BOTH = AssetFiles(files=("a.tif", "b.tif"), bands=("red", "nir"))


def test_interleaved_bands_of_two_files_keep_their_order(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.tif", noise(2, 20, 20)), write(tmp_path / "b.tif", noise(2, 20, 20, seed=1))
    reader = AssetFiles(files=("a.tif", "b.tif", "a.tif", "b.tif"), bands=("a1", "b1", "a2", "b2"))
    image = open_image(tmp_path, reader)
    assert np.array_equal(image.read(), np.stack([a[0], b[0], a[1], b[1]]))
    assert np.array_equal(image.read(bands=("b2", "a1")), np.stack([b[1], a[0]]))


def test_of_several_resolutions_one_is_read_and_it_is_said(tmp_path: Path) -> None:
    a = write(tmp_path / "a.tif", noise(1, 20, 20))
    write(tmp_path / "b.tif", noise(1, 10, 10), step=60.0)
    image = open_image(tmp_path, BOTH)
    assert image.bands == ("red",)
    assert np.array_equal(image.read(), a)
    assert [(flag.code, "nir (60 m)" in flag.text) for flag in image.flags] == [("other_resolution", True)]


@pytest.mark.parametrize(
    ("pixels", "profile", "error", "says"),
    [
        (noise(1, 20, 20), {"crs": "EPSG:32616"}, GeometryError, "expected one CRS"),
        (noise(1, 20, 21), {}, GeometryError, "expected one grid"),
        (noise(1, 20, 20, dtype=np.float32), {}, UnsupportedError, "uint16 and float32"),
        (noise(2, 20, 20), {}, BandError, r"expected 1 bands \(nir\), got 2"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    pixels: np.ndarray, profile: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        open_image(two(tmp_path, pixels, **profile), BOTH)


def test_a_scaling_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1, 20, 20), scales=(0.0001,), offsets=(-0.1,))
    same = AssetFiles(files=("a.tif",), bands=("red",), scaling=("0.0001 -0.1",))
    assert open_image(tmp_path / "a.tif", same).scaling == ((0.0001, -0.1),)
    other = AssetFiles(files=("a.tif",), bands=("red",), scaling=("0.0001 0",))
    with pytest.raises(DataError, match="its own scale and offset are 0.0001 and -0.1"):
        open_image(tmp_path / "a.tif", other)


def test_a_nodata_value_that_cannot_occur_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1, 20, 20))
    for value in ("-9999", "0.5"):
        with pytest.raises(DataError, match=f"calls {value} not measured"):
            open_image(tmp_path / "a.tif", AssetFiles(files=("a.tif",), bands=("red",), nodata=(value,)))


def test_a_nodata_value_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", noise(1, 20, 20), nodata=9)
    assert open_image(tmp_path / "a.tif", AssetFiles(files=("a.tif",), bands=("red",), nodata=("9.0",))).nodata == (
        9.0,
    )
    with pytest.raises(DataError, match="calls 9 not measured, the STAC item says 0"):
        open_image(tmp_path / "a.tif", AssetFiles(files=("a.tif",), bands=("red",), nodata=("0",)))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out.tif", noise(1, 20, 20))
    write(tmp_path / "item" / "a.tif", noise(1, 20, 20))
    (tmp_path / "item" / "b.tif").symlink_to(tmp_path / "out.tif")
    with pytest.raises(UnsafeError, match=r"b\.tif"):
        open_image(tmp_path / "item", BOTH)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bands": ("red",)}, "expected `bands` for each of 2 `files`, got 1"),
        ({"bands": ("red", "red")}, "'red' occurs twice"),
        ({"bands": ("red", "nir"), "nodata": ("0",)}, "expected `nodata` for each"),
        ({"bands": ("red", "nir"), "nodata": ("x", "")}, "expected 1 finite number"),
        ({"bands": ("red", "nir"), "scaling": ("1", "")}, "expected 2 finite numbers"),
        ({"bands": ("red", "nir"), "scaling": ("inf 0", "")}, "expected 2 finite numbers"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AssetFiles(files=("a.tif", "b.tif"), **options)
