"""Labels beside scenes: files that lists name, classes of rasters, and the class at each pixel of a scene by its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError, GeometryError, MissingDataError
from core.preprocess import Window
from datasets import LazyImage, Manifest, open_image
from datasets.readers import configured
from datasets.safety import inside, local
from datasets.tiling import cover

_NONE = -(1 << 40)  # no raster's number
_TILE = 2048  # pixels along an edge of what is read of a label raster to find its classes
_HIGHEST = 65535  # of a map, see `products`
_NUDGE = 1e-6  # of a pixel: where a centre falls on the border of two labels, the same one is taken all over the scene

Box = tuple[int, int, int, int]
"""First and last + 1 row, first and last + 1 column."""


@dataclass(frozen=True)
class Classes:
    """The classes of label rasters.

    Attributes:
        codes: the number of each in the rasters, ascending.
        names: of each.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]

    def numbered(self, raw: NDArray[np.int64]) -> NDArray[np.int16]:
        """Turn raster numbers into class numbers 0..K-1; -1 for every other number."""
        known = np.array(self.codes, dtype=np.int64)
        place = np.clip(np.searchsorted(known, raw), 0, len(known) - 1)
        return np.where(known[place] == raw, place, -1).astype(np.int16)


def named_beside(manifest: Manifest, row: int, name: object, *, what: str, allow_outside: bool) -> Path:
    """Give the file of labels that a list names for a scene, relative to the scene.

    Args:
        manifest: of the scenes.
        row: of the scene.
        name: what the list says.
        what: is expected there, such as `a label raster`.
        allow_outside: accept files that lie outside the folder of the list, as for scenes.

    Raises:
        MissingDataError: it is not there.
        UnsafeError: it is no plain file, or lies outside the folder of the list and may not.
    """
    path = local(manifest.path(row).parent / str(name))
    if not allow_outside:
        inside(Path(manifest.column("root")[row]), path, optional=True)
    if not path.exists():
        cure = "mend the list, which names it relative to its scene."
        if manifest.column("reader")[row] == "zarr_array":
            cure = (
                "`datasets.convert` leaves what lies beside scenes where it is: copy it there, or train on the list of the "
                "scenes before they were converted."
            )
        raise MissingDataError(f"expected {what} of {manifest.path(row)}, but {path} does not exist; {cure}")
    return path


def open_labels(path: Path, options: Sequence[str] = ()) -> LazyImage:
    """Open a raster of class numbers; a colour table is no obstacle.

    Raises:
        DataError: it has several bands, or cannot be read.
    """
    image = open_image(path, *configured(("geotiff.palette=index", *options)))
    if image.ndim != 2 or image.shape[0] != 1:
        raise DataError(f"{path}: expected a label raster of one band, got shape {image.shape}.")
    return image


def find_classes(rasters: Sequence[LazyImage], names: Mapping[int, str], ignored: Sequence[int]) -> Classes:
    """List the numbers that occur in label rasters, without nodata and the ignored ones.

    Raises:
        DataError: numbers that are not whole or that no map can hold, fewer than 2 classes, or a name for one that does not
            occur.
    """
    found: set[int] = set()
    for raster in rasters:
        for window in cover(raster.size, (min(_TILE, raster.size[0]), min(_TILE, raster.size[1]))):
            found |= set(np.unique(_whole(raster, window)).tolist())
    codes = sorted(found - {_NONE} - set(ignored))
    unknown = sorted(set(names) - set(codes))
    if unknown:
        raise DataError(f"expected names of classes that occur ({codes}), got one for {unknown}: mend --names.")
    where = f"{rasters[0].path}{f' and {len(rasters) - 1} more' if len(rasters) > 1 else ''}"
    beyond = [code for code in codes if not 0 <= code <= _HIGHEST]
    if beyond:
        raise DataError(
            f"{where}: expected class numbers from 0 to {_HIGHEST}, which a map can hold, got {beyond[0]}: say with "
            f"--ignored={beyond[0]} that it is no label, or number the classes anew."
        )
    if len(codes) < 2:
        raise DataError(
            f"{where}: expected labels of at least 2 classes, got {codes or 'none'}: use rasters that hold several, or, where "
            "one number was taken for nodata or ignored, say otherwise with --raster_options or --ignored."
        )
    return Classes(tuple(codes), tuple(names.get(code, str(code)) for code in codes))


def _whole(raster: LazyImage, window: Window) -> NDArray[np.int64]:
    """Read class numbers; what is nodata becomes `_NONE`."""
    values, valid = raster.read_valid(window)
    known = np.where(valid[0], values[0], 0)
    if values.dtype.kind == "f" and not np.array_equal(known, np.round(known)):
        raise DataError(f"{raster.path}: expected whole class numbers, got measurements; use a raster of classes.")
    return np.where(valid[0], known.astype(np.int64), _NONE)


def sampled(raster: LazyImage, scene: LazyImage, box: Box) -> NDArray[np.int64]:
    """Give the class number at the centre of each pixel of a part of a scene; `_NONE` beyond the raster and at nodata.

    Raises:
        GeometryError: one of both has no place on Earth, and they are not of one size.
    """
    shape = (box[1] - box[0], box[3] - box[2])
    if raster.georeference is None or scene.georeference is None:
        if raster.georeference is not scene.georeference or raster.size != scene.size:
            raise GeometryError(
                f"{raster.path} and {scene.path}: expected both with CRS and transform, or neither and one size, got sizes "
                f"{raster.size} and {scene.size}; georeference the one that has none."
            )
        return _whole(raster, (slice(box[0], box[1]), slice(box[2], box[3])))
    rows, columns = _positions(raster, scene, box)
    inside = (rows >= 0) & (rows < raster.size[0]) & (columns >= 0) & (columns < raster.size[1])
    found = np.full(shape, _NONE, dtype=np.int64)
    if inside.any():
        top, left = int(rows[inside].min()), int(columns[inside].min())
        bottom, right = int(rows[inside].max()) + 1, int(columns[inside].max()) + 1
        values = _whole(raster, (slice(top, bottom), slice(left, right)))
        found[inside] = values[rows[inside] - top, columns[inside] - left]
    return found


def _positions(raster: LazyImage, scene: LazyImage, box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of a raster at the centres of a scene's pixels."""
    assert raster.georeference is not None
    assert scene.georeference is not None
    y, x = np.meshgrid(np.arange(box[0], box[1]) + 0.5, np.arange(box[2], box[3]) + 0.5, indexing="ij")
    a, b, c, d, e, f = scene.georeference.transform
    east, north = a * x + b * y + c, d * x + e * y + f
    if not _same_crs(scene.georeference.crs, raster.georeference.crs):
        from rasterio.warp import transform

        moved = transform(scene.georeference.crs, raster.georeference.crs, east.ravel(), north.ravel())
        east, north = (np.asarray(axis, dtype=np.float64).reshape(y.shape) for axis in moved[:2])
    a, b, c, d, e, f = raster.georeference.transform
    determinant = a * e - b * d
    columns = (e * (east - c) - b * (north - f)) / determinant
    rows = (a * (north - f) - d * (east - c)) / determinant
    outside = ~(np.isfinite(rows) & np.isfinite(columns))
    whole = [np.floor(np.where(outside, -1.0, axis) + _NUDGE).astype(np.int64) for axis in (rows, columns)]
    return whole[0], whole[1]


def _same_crs(one: str, other: str) -> bool:
    from rasterio.crs import CRS

    return one == other or CRS.from_user_input(one) == CRS.from_user_input(other)
