"""Scenes as GeoTIFF: damaged, hostile, unusual."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from core.errors import BandError, DamagedError, DataError, UnsupportedError
from datasets.image import LazyImage
from tests.corpus.kind import Accept, Kind, Refuse

Rng = np.random.Generator
Make = Callable[[Path, Rng], Path]

BANDS = ("blue", "green", "red", "nir")
TILES = {"tiled": True, "blockxsize": 32, "blockysize": 32}


def kinds() -> list[Kind]:
    """37 of them: the 31 of the programme, those with several faces (a VRT, what lies beside the file) counted apart.

    What only a whole collection can show (types and resolutions that differ from scene to scene) is read here as it is.
    """
    return [
        Kind("truncated", _truncated, Refuse(DamagedError, ("truncated", "copy it again"))),
        Kind("deflate_tile_damaged", _damaged("deflate", 64), Refuse(DamagedError, ("window rows", "decoded"))),
        Kind("zstd_tile_damaged", _damaged("zstd", 4), Refuse(DamagedError, ("window rows", "decoded"))),
        # No checksum tells: the digest in the manifest does.
        Kind("plain_tile_flipped", _flipped, Accept(check=_one_voxel_is_not_7)),
        Kind("directories_in_a_circle", _circle, Refuse(DamagedError, "circle")),
        Kind("size_zero", _size_zero, Refuse(DamagedError, "0 x")),
        Kind("blocks_missing_in_directory", _larger_than_its_blocks, Refuse(DamagedError, "blocks and its directory")),
        Kind("sparse_huge", _sparse_huge, Refuse(UnsupportedError, ("sparse", "option"))),
        Kind("sparse_huge_with_nodata", _sparse_huge_with_nodata, Accept("sparse", _mostly_unmeasured)),
        Kind("sparse_holes", _sparse_holes, Refuse(UnsupportedError, ("sparse", "never written"))),
        Kind("sparse_holes_allowed", _sparse_holes, Accept("sparse", _holes_are_unmeasured), options=("geotiff.sparse=invalid",)),
        Kind("no_crs", _with(crs=None), Accept("no_crs", _has_no_place)),
        Kind("wrong_axis", _wrong_axis, Accept("wrong_axis")),
        Kind("rotated", _rotated, Accept("rotated", _is_10_m)),
        Kind("south_up", _with(transform=rasterio.Affine(10, 0, 5e5, 0, 10, 4e6)), Accept("south_up", _is_10_m)),
        Kind("band_count", _with(), Refuse(BandError, ("expected 4", "bands")), options=("geotiff.bands=[red, nir]",)),
        Kind("bands_permuted", _permuted, Accept(check=_bands_hold_their_number)),
        Kind("names_missing", _with(descriptions=("blue", None, None, "nir")), Accept("unnamed_bands", _is_numbered)),
        Kind("type_of_another_scene", _any_type, Accept()),
        Kind("scaled_bands", _scaled, Accept(check=_has_its_scaling)),
        Kind("nodata_none", _with(), Accept(check=_all_measured)),
        Kind("nodata_nan", _nodata(np.float32, np.nan), Accept(check=_first_row_unmeasured)),
        Kind("nodata_minus_9999", _nodata(np.int16, -9999), Accept(check=_first_row_unmeasured)),
        Kind("nodata_0", _nodata(np.uint16, 0), Accept(check=_first_row_unmeasured)),
        Kind("nodata_out_of_range", _nodata_out_of_range, Accept("nodata_out_of_range")),
        Kind("mask_band", _masked, Accept(check=_first_row_unmeasured)),
        Kind("window_over_the_edge", _with(), Accept(check=_stays_inside)),
        Kind("vrt_reads_a_file", _vrt(_raw), Refuse(UnsupportedError, "none of these")),
        Kind("vrt_calls_a_server", _vrt(_remote), Refuse(UnsupportedError, "none of these")),
        Kind("vrt_of_itself", _vrt(_itself), Refuse(UnsupportedError, "none of these")),
        Kind("sidecar_contradicts", _sidecar, Accept("sidecar", _all_measured)),
        Kind("overviews_beside_contradict", _overviews_beside, Accept("sidecar", _has_one_level)),
        Kind("big_tiff", _with(BIGTIFF="YES"), Accept(check=_all_measured)),
        Kind("palette", _palette, Refuse(UnsupportedError, ("colour table", "option"))),
        Kind("complex", _complex, Refuse(UnsupportedError, ("complex", "convert"))),
        Kind("antimeridian", _antimeridian, Accept("antimeridian")),
        Kind("resolution_of_another_scene", _any_resolution, Accept()),
    ]  # fmt: skip


# --- writing ----------------------------------------------------------------------------------------------------------


def _pixels(rng: Rng, dtype: Any = np.uint16, bands: int = 4) -> np.ndarray:
    height, width = (int(n) for n in rng.integers(64, 130, 2))
    return rng.uniform(1, 200, (bands, height, width)).astype(dtype)


def _write(path: Path, image: np.ndarray, **profile: Any) -> Path:
    options = {"crs": "EPSG:32615", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6), **TILES, **profile}
    names = BANDS if len(image) == len(BANDS) else None
    after = {"descriptions": options.pop("descriptions", names)}
    after |= {key: options.pop(key) for key in ("scales", "offsets") if key in options}
    count, height, width = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=image.dtype, **options
        ) as file:
            file.write(image)
            for key, value in after.items():
                if value is not None:
                    setattr(file, key, value)
    return path


def _with(**profile: Any) -> Make:
    return lambda folder, rng: _write(folder / "scene.tif", _pixels(rng), **profile)


def _first_block(path: Path) -> tuple[int, int]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.dataoffsets[0], page.databytecounts[0]


def _patched(path: Path, place: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)
    return path


def _directory(path: Path) -> tuple[int, int]:
    """Position of the first entry of the first directory, and how many there are."""
    head = path.read_bytes()
    begin = struct.unpack("<I", head[4:8])[0]
    return begin + 2, struct.unpack("<H", head[begin : begin + 2])[0]


def _entry(path: Path, tag: int, value: int) -> Path:
    """Overwrite the value of a tag that has one number."""
    begin, count = _directory(path)
    data = path.read_bytes()
    for place in range(begin, begin + 12 * count, 12):
        found, kind = struct.unpack("<HH", data[place : place + 4])
        if found == tag:
            return _patched(path, place + 8, struct.pack("<H" if kind == 3 else "<I", value))
    raise AssertionError(f"no tag {tag}")


def _truncated(folder: Path, rng: Rng) -> Path:
    path = _write(folder / "scene.tif", _pixels(rng), compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * rng.uniform(0.1, 0.99))])
    return path


def _damaged(compress: str, count: int) -> Make:
    def make(folder: Path, rng: Rng) -> Path:
        path = _write(folder / "scene.tif", _pixels(rng), compress=compress)
        begin, length = _first_block(path)
        place = begin if count < 8 else begin + int(rng.integers(100, length // 2))
        return _patched(path, place, rng.bytes(count))

    return make


def _flipped(folder: Path, rng: Rng) -> Path:
    path = _write(folder / "scene.tif", np.full_like(_pixels(rng), 7))
    begin, _ = _first_block(path)
    return _patched(path, begin + 2 * int(rng.integers(0, 1024)), bytes([7 ^ (1 << int(rng.integers(0, 8)))]))


def _circle(folder: Path, rng: Rng) -> Path:
    path = _write(folder / "scene.tif", _pixels(rng))
    begin, count = _directory(path)
    return _patched(path, begin + 12 * count, struct.pack("<I", begin - 2))


def _size_zero(folder: Path, rng: Rng) -> Path:
    return _entry(_write(folder / "scene.tif", _pixels(rng)), 257, 0)


def _larger_than_its_blocks(folder: Path, rng: Rng) -> Path:
    return _entry(_write(folder / "scene.tif", _pixels(rng)), 257, int(rng.integers(10_000, 60_000)))


def _sparse(path: Path, rng: Rng, side: int, block: int, **profile: Any) -> Path:
    grid = {"crs": "EPSG:32615", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6), "SPARSE_OK": True}
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint16", tiled=True, blockxsize=block,
        blockysize=block, **grid, **profile,
    ) as file:  # fmt: skip
        row, column = (int(n) * block for n in rng.integers(0, side // block, 2))
        file.write(_written(block), window=((row, row + block), (column, column + block)))
    return path


def _written(block: int) -> np.ndarray:
    return np.full((1, block, block), 9, np.uint16)


def _sparse_huge(folder: Path, rng: Rng) -> Path:
    return _sparse(folder / "scene.tif", rng, 200_000, 256)


def _sparse_huge_with_nodata(folder: Path, rng: Rng) -> Path:
    return _sparse(folder / "scene.tif", rng, 200_000, 256, nodata=0)


def _sparse_holes(folder: Path, rng: Rng) -> Path:
    return _sparse(folder / "scene.tif", rng, 256, 32)


def _wrong_axis(folder: Path, rng: Rng) -> Path:
    north, east = rng.uniform(-60, 60), rng.uniform(100, 170)
    return _write(
        folder / "scene.tif", _pixels(rng), crs="EPSG:4326", transform=rasterio.Affine(0.001, 0, north, 0, -0.001, east)
    )


def _rotated(folder: Path, rng: Rng) -> Path:
    turn = rng.uniform(0.1, 1.4)
    cos, sin = 10 * np.cos(turn), 10 * np.sin(turn)
    return _write(folder / "scene.tif", _pixels(rng), transform=rasterio.Affine(cos, sin, 5e5, sin, -cos, 4e6))


def _permuted(folder: Path, rng: Rng) -> Path:
    order = rng.permutation(len(BANDS))
    image = np.broadcast_to(order[:, None, None] + 1, (4, 70, 80)).astype(np.uint8)
    return _write(folder / "scene.tif", image, descriptions=tuple(BANDS[n] for n in order))


def _any_type(folder: Path, rng: Rng) -> Path:
    return _write(folder / "scene.tif", _pixels(rng, rng.choice(["uint8", "int16", "uint16", "float32", "float64"])))


def _any_resolution(folder: Path, rng: Rng) -> Path:
    step = float(rng.choice([10, 20, 30, 60]))
    return _write(folder / "scene.tif", _pixels(rng), transform=rasterio.Affine(step, 0, 5e5, 0, -step, 4e6))


def _scaled(folder: Path, rng: Rng) -> Path:
    return _write(folder / "scene.tif", _pixels(rng), scales=(0.5, 1, 2, 0.0001), offsets=(0, -1, 10, -0.1))


def _nodata(dtype: Any, value: float) -> Make:
    def make(folder: Path, rng: Rng) -> Path:
        image = _pixels(rng, dtype)
        image[:, 0] = value
        return _write(folder / "scene.tif", image, nodata=value)

    return make


def _nodata_out_of_range(folder: Path, rng: Rng) -> Path:
    tags = [(42113, "s", 0, str(rng.choice(["-9999", "256", "0.5", "nan"])), True)]
    tifffile.imwrite(folder / "scene.tif", _pixels(rng, np.uint8, 1)[0], extratags=tags)
    return folder / "scene.tif"


def _masked(folder: Path, rng: Rng) -> Path:
    image = _pixels(rng)
    mask = np.ones(image.shape[1:], bool)
    mask[0] = False
    path = _write(folder / "scene.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    return path


def _vrt(content: Callable[[Path], str]) -> Make:
    def make(folder: Path, rng: Rng) -> Path:
        path = folder / str(rng.choice(["scene.tif", "scene.vrt"]))
        path.write_text(content(path))
        return path

    return make


def _raw(path: Path) -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{Path(__file__)}</SourceFilename></VRTRasterBand></VRTDataset>"
    )


def _simple(target: str) -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{target}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def _remote(path: Path) -> str:
    return _simple("/vsicurl/http://127.0.0.1:9/scene.tif")


def _itself(path: Path) -> str:
    return _simple(str(path))


def _sidecar(folder: Path, rng: Rng) -> Path:
    image = _pixels(rng)
    (folder / "scene.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><Description>nir</Description><NoDataValue>{image[0, 0, 0]}</NoDataValue>'
        "</PAMRasterBand></PAMDataset>"
    )
    return _write(folder / "scene.tif", image)


def _overviews_beside(folder: Path, rng: Rng) -> Path:
    _write(folder / "scene.tif.ovr", _pixels(rng))
    return _write(folder / "scene.tif", _pixels(rng))


def _palette(folder: Path, rng: Rng) -> Path:
    path = _write(folder / "scene.tif", _pixels(rng, np.uint8, 1), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    return path


def _complex(folder: Path, rng: Rng) -> Path:
    return _write(folder / "scene.tif", _pixels(rng).astype(rng.choice(["complex64", "complex128"])))


def _antimeridian(folder: Path, rng: Rng) -> Path:
    west = 180 - rng.uniform(0.01, 0.05)
    return _write(
        folder / "scene.tif", _pixels(rng), crs="EPSG:4326", transform=rasterio.Affine(0.001, 0, west, 0, -0.001, 10)
    )


# --- what must hold ---------------------------------------------------------------------------------------------------


def _one_voxel_is_not_7(image: LazyImage) -> None:
    assert (image.read() != 7).sum() == 1


def _mostly_unmeasured(image: LazyImage) -> None:
    assert image.shape == (1, 200_000, 200_000)
    voxels, valid = image.read_valid((slice(99_900, 100_500), slice(199_000, 200_000)))
    assert np.array_equal(valid, voxels == 9)


def _holes_are_unmeasured(image: LazyImage) -> None:
    voxels, valid = image.read_valid()
    assert valid.sum() == 32 * 32
    assert np.array_equal(valid, voxels == 9)


def _has_no_place(image: LazyImage) -> None:
    assert (image.georeference, image.spacing.unit) == (None, "px")


def _is_10_m(image: LazyImage) -> None:
    assert image.spacing.unit == "m"
    np.testing.assert_allclose(image.spacing.values, (10, 10), rtol=1e-9)


def _bands_hold_their_number(image: LazyImage) -> None:
    assert np.array_equal(image.read(bands=BANDS)[:, 0, 0], [1, 2, 3, 4])


def _is_numbered(image: LazyImage) -> None:
    assert image.bands == ("band_1", "band_2", "band_3", "band_4")


def _has_its_scaling(image: LazyImage) -> None:
    assert image.scaling == ((0.5, 0.0), (1.0, -1.0), (2.0, 10.0), (0.0001, -0.1))


def _all_measured(image: LazyImage) -> None:
    assert image.nodata is None
    assert image.bands == BANDS
    assert image.read_valid()[1].all()


def _first_row_unmeasured(image: LazyImage) -> None:
    valid = image.read_valid()[1]
    assert not valid[:, 0].any()
    assert valid[:, 1:].all()


def _has_one_level(image: LazyImage) -> None:
    assert image.levels == (image.size,)


def _stays_inside(image: LazyImage) -> None:
    height, width = image.size
    for window in (
        (slice(0, height + 1), slice(0, 5)),
        (slice(0, 5), slice(width - 3, width + 3)),
        (slice(-1, 5), slice(0, 5)),
    ):
        with pytest.raises(DataError, match="expected a window of 2 slices"):
            image.read(window)
