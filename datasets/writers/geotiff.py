"""GeoTIFF (`.tif`, `.tiff`) as cloud-optimised GeoTIFF: tiled, with overviews, BigTIFF when it must be.

Tiles are collected and written once into a plain temporary file, from which GDAL makes the final one with its overviews;
both steps hold a block cache and a few tiles in memory. Only what `Facts` hold is written: no tag of a source.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from core.bands import RGB
from core.errors import DataError, GeometryError
from core.preprocess import Window
from datasets.readers._scene import is_crs_text, representable
from datasets.writers._blocks import Blocks
from datasets.writers.base import Draft, Facts, Writer, refuse_dtype

_KNOWN = frozenset("int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64".split())
_TILE_BYTES = 16 << 20
_CACHE_BYTES = 64 << 20  # GDAL's own default is 5 % of the machine


@dataclass(frozen=True)
class GeoTiff(Writer):
    """Writes scenes. Kept: CRS and transform, band names, one nodata value, scaling, units, a mask for all bands.

    Attributes:
        compression: `deflate` opens everywhere; `zstd` packs and opens about three times faster, in GDAL 2.3 and later.
        tile: pixels along an edge of a tile, a multiple of 16; halved while a tile of all bands exceeds 16 MiB.
        overviews: how overviews are made: `average` for intensities, `nearest` for labels, `none` leaves them out.
        legend: of a label image of one band: (value, name, (red, green, blue)) each; needs `nearest` or `none`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff")
    compression: Literal["deflate", "zstd"] = "deflate"
    tile: int = 512
    overviews: Literal["average", "nearest", "none"] = "average"
    legend: tuple[tuple[int, str, tuple[int, int, int]], ...] = ()

    def check(self, path: Path, facts: Facts) -> None:
        """Refuse volumes, dtypes, and masks or nodata values that differ between bands."""
        if len(facts.size) != 2:
            raise DataError(f"{path}: a GeoTIFF holds (C, Y, X), got {facts.shape}; write .nii.gz or .zarr.")
        refuse_dtype(path, facts, _KNOWN, "give uint8 for a mask, float32 for float16, or write .zarr")
        if self.tile < 16 or self.tile % 16:
            raise DataError(f"{path}: expected a tile that is a multiple of 16 pixels, got {self.tile}.")
        if facts.valid > 1:
            raise DataError(
                f"{path}: a GeoTIFF holds one mask for all bands, got one per band; mark what is not measured by a "
                "nodata value, or write .zarr."
            )
        nodata = facts.nodata or (None,)
        if len({repr(value) for value in nodata}) > 1:
            raise DataError(f"{path}: a GeoTIFF holds one nodata value for all bands, got {nodata}; write .zarr.")
        for value in facts.nodata or ():
            if value is not None and representable(value, facts.dtype) is None:
                raise DataError(
                    f"{path}: its nodata value {value:g} cannot occur in {facts.dtype}; give another, or none."
                )
        if facts.georeference is not None:
            _crs(path, facts.georeference.crs)
        if self.legend and (facts.dtype.name not in ("uint8", "uint16") or facts.shape[0] > 1):
            raise DataError(f"{path}: a legend needs one uint8 or uint16 band, got {facts.shape[0]} of {facts.dtype}.")
        if self.legend and self.overviews == "average":
            raise DataError(f"{path}: classes cannot be averaged; set overviews='nearest' or 'none'.")

    def block(self, facts: Facts) -> tuple[int, ...]:
        """One tile."""
        tile = self.tile
        while tile > 128 and tile % 32 == 0 and facts.shape[0] * tile * tile * facts.dtype.itemsize > _TILE_BYTES:
            tile //= 2
        return (tile, tile)

    def begin(self, path: Path, draft: Path, spool: Path, facts: Facts) -> Draft:
        """Create the temporary file."""
        return _Tiles(draft, spool, facts, self)


class _Tiles(Draft):
    def __init__(self, draft: Path, spool: Path, facts: Facts, options: GeoTiff) -> None:
        import rasterio

        self._draft, self._facts, self._options = draft, facts, options
        self._plain = spool / "tiles.tif"
        block = options.block(facts)
        self._voxels = Blocks(facts.shape, (facts.shape[0], *block), facts.dtype, spool=spool, name="voxels.")
        self._valid = Blocks((1, *facts.size), (1, *block), np.dtype(bool), spool=spool, name="valid.")
        with _gdal():
            self._file = rasterio.open(self._plain, "w", **_profile(draft, facts, block, options))
            _describe(self._file, facts, options)

    def put(self, window: Window, voxels: np.ndarray, valid: np.ndarray | None) -> None:
        from rasterio.windows import Window as Rectangle

        with _gdal():
            for blocks, values in ((self._voxels, voxels), (self._valid, valid)):
                if values is None:
                    continue
                for index in blocks.put((slice(0, len(values)), *window), values):
                    _, rows, columns = blocks.coverage.home(index)
                    place = Rectangle.from_slices(rows, columns)
                    if blocks is self._valid:
                        self._file.write_mask(blocks.take(index)[0], window=place)
                    else:
                        self._file.write(blocks.take(index), window=place)

    def missing(self) -> Window | None:
        hole = self._voxels.coverage.missing()
        return None if hole is None else hole[1:]

    def finish(self) -> None:
        from rasterio._err import CPLE_BaseError
        from rasterio.errors import RasterioError
        from rasterio.shutil import copy

        options = self._options
        choice: dict[str, Any] = {"overviews": "NONE"}
        if options.overviews != "none":
            choice = {"overviews": "AUTO", "overview_resampling": options.overviews.upper()}
        try:
            with _gdal():
                self._file.close()
                copy(
                    self._plain,
                    self._draft,
                    driver="COG",
                    compress=options.compression.upper(),
                    predictor="YES",
                    blocksize=options.block(self._facts)[0],
                    bigtiff="IF_SAFER",
                    overview_compress=options.compression.upper(),
                    overview_predictor="YES",
                    **choice,
                )
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(f"GDAL says: {error}") from error

    def abandon(self) -> None:
        with _gdal():
            self._file.close()


def _crs(path: Path, text: str) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    cause = "it is neither"
    try:
        if is_crs_text(text):
            return CRS.from_user_input(text)
    except CRSError as error:
        cause = str(error)
    raise GeometryError(
        f"{path}: expected a CRS as AUTHORITY:CODE or WKT that PROJ knows, got '{text[:80]}' ({cause})."
    )


def _profile(path: Path, facts: Facts, block: tuple[int, ...], options: GeoTiff) -> dict[str, Any]:
    height, width = facts.size
    color = "palette" if options.legend else "rgb" if _is_rgb(facts) else "minisblack"
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": facts.shape[0],
        "dtype": facts.dtype.name,
        "tiled": True,
        "blockysize": block[0],
        "blockxsize": block[1],
        "interleave": "pixel",
        "compress": "zstd",
        "zstd_level": 1,
        "predictor": 3 if facts.dtype.kind == "f" else 2,
        "photometric": color,
        "alpha": "no",  # else GDAL takes a fourth band of bytes for transparency
        "bigtiff": "if_safer",
    }
    if facts.georeference is not None:
        from rasterio.transform import Affine

        profile["crs"] = _crs(path, facts.georeference.crs)
        profile["transform"] = Affine(*facts.georeference.transform)
    if facts.nodata is not None and facts.nodata[0] is not None:
        value = facts.nodata[0]
        profile["nodata"] = int(value) if facts.dtype.kind in "iu" and math.isfinite(value) else value
    return profile


def _describe(file: Any, facts: Facts, options: GeoTiff) -> None:
    for number, name in enumerate(facts.bands, start=1):
        if name != f"band_{number}":  # what unnamed bands are called when they are read
            file.set_band_description(number, name)
    if facts.scaling is not None:
        file.scales = tuple(scale for scale, _ in facts.scaling)
        file.offsets = tuple(offset for _, offset in facts.scaling)
    if facts.units is not None:
        file.units = tuple(unit or "" for unit in facts.units)
    if options.legend:
        file.write_colormap(1, {value: (*color, 255) for value, _, color in options.legend})
        file.update_tags(1, **{f"CLASS_{value}": name for value, name, _ in options.legend})


def _is_rgb(facts: Facts) -> bool:
    return facts.bands[:3] == RGB and facts.dtype.name in ("uint8", "uint16")


@contextmanager
def _gdal() -> Iterator[None]:
    """GDAL with a small cache and masks inside the file, and without its warning that an image lies nowhere on Earth."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
