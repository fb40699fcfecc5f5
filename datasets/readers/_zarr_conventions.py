"""What foreign Zarr stores say about their axes, geometry and values: OME-Zarr, CF, GeoZarr and plain dimension names."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DamagedError, GeometryError, UnsupportedError
from core.geometry import Georeference, Spacing
from datasets.image import Flag
from datasets.readers._scene import Crs, is_crs_text, located, named_crs, nodata_values, scalings
from datasets.readers._typed import typed
from datasets.readers._zarr_metadata import Document

_LETTERS = {
    "t": ("t", "time", "frame"),
    "c": ("c", "band", "bands", "channel", "channels", "wavelength", "spectral"),
    "z": ("z", "depth", "slice", "plane", "level"),
    "y": ("y", "lat", "latitude", "northing", "row", "rows", "height"),
    "x": ("x", "lon", "long", "longitude", "easting", "col", "cols", "column", "columns", "width"),
}
_LETTER = {name: letter for letter, names in _LETTERS.items() for name in names}
_MM = {
    "angstrom": 1e-7, "nanometer": 1e-6, "nm": 1e-6, "micrometer": 1e-3, "micron": 1e-3, "um": 1e-3, "µm": 1e-3,
    "millimeter": 1.0, "mm": 1.0, "centimeter": 10.0, "cm": 10.0, "meter": 1000.0, "m": 1000.0, "inch": 25.4,
}  # fmt: skip
_WORDS = {"nan": math.nan, "infinity": math.inf, "-infinity": -math.inf, "inf": math.inf, "-inf": -math.inf}


def axes_of(store: Path, ndim: int, names: tuple[str, ...] | None, wanted: str) -> str:
    """Say which axis is which, as letters of `tczyx` in the array's order.

    Args:
        store: for messages.
        ndim: axes of the array.
        names: its dimension names, or None.
        wanted: the reader's option, which decides if it is given.

    Raises:
        UnsupportedError: the names do not say it, or there is no y and x.
    """
    if wanted:
        letters = wanted.lower()
    elif names is not None:
        letters = "".join(_LETTER.get(name.lower(), "?") for name in names)
    else:
        letters = "yx" if ndim == 2 else ""
    if (
        len(letters) == ndim
        and not set(letters) - set("tczyx")
        and len(set(letters)) == ndim
        and {"y", "x"} <= {*letters}
    ):
        return letters
    examples = {3: "zyx for a volume, cyx or yxc for bands", 4: "czyx or zyxc", 5: "tczyx"}.get(ndim, "yx")
    said = f"names them {', '.join(names)}" if names is not None else "does not name them"
    if wanted:
        said = f"was read with axes '{wanted}'"
    raise UnsupportedError(
        f"{store}: expected {ndim} axes out of t c z y x with y and x among them, the array {said}; say which is which with "
        f"{typed('zarr_array.axes=...')} ({examples})."
    )


@dataclass(frozen=True)
class Multiscale:
    """An OME-Zarr image.

    Attributes:
        paths: of its levels in the group, finest first.
        axes: letters in the arrays' order.
        scales: per level, the step along each axis.
        units: per axis, empty where it has none.
        labels: names of the channels, empty where it names none.
    """

    paths: tuple[str, ...]
    axes: str
    scales: tuple[tuple[float, ...], ...]
    units: tuple[str, ...]
    labels: tuple[str, ...]

    def spacing(self, level: int, letters: str) -> Spacing | None:
        """Spacing in mm along the axes of these letters, or None where the unit is not stated."""
        steps = [self.scales[level][self.axes.index(letter)] for letter in letters]
        factors = [_MM.get(self.units[self.axes.index(letter)].lower()) for letter in letters]
        if any(factor is None for factor in factors):
            return None
        return Spacing(tuple(step * (factor or 0.0) for step, factor in zip(steps, factors, strict=True)), "mm")


def multiscale_of(store: Path, attributes: Document) -> Multiscale | None:
    """Read the first image of an OME-Zarr group, version 0.4 or 0.5; None where the group is none.

    Raises:
        DamagedError: its metadata is damaged.
        UnsupportedError: it is a plate, or another version.
    """
    holder = attributes.get("ome", attributes)
    if not isinstance(holder, dict) or not {"multiscales", "plate"} & holder.keys():
        return None
    if "multiscales" not in holder:
        raise UnsupportedError(f"{store}: expected an OME-Zarr image, got a plate; open one of its fields.")
    try:
        return _multiscale(holder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DamagedError(
            f"{store}: expected OME-Zarr multiscales of version 0.4 or 0.5, but they are damaged or of another version "
            f"({type(error).__name__}: {error}); mend the metadata, or read one level with {typed('zarr_array.array=NAME')}."
        ) from None


def _multiscale(holder: Document) -> Multiscale:
    image = holder["multiscales"][0]
    letters = "".join(_LETTER[axis["name"].lower()] for axis in image["axes"])
    if len(set(letters)) != len(letters):
        raise ValueError(f"axes {letters}")
    units = tuple(str(axis.get("unit", "")) for axis in image["axes"])
    common = _scale(image.get("coordinateTransformations", []), len(letters))
    scales = []
    for level in image["datasets"]:
        own = _scale(level.get("coordinateTransformations", []), len(letters))
        scales.append(tuple(a * b for a, b in zip(own, common, strict=True)))
        if any(not 0 < step < math.inf for step, axis in zip(scales[-1], letters, strict=True) if axis in "zyx"):
            raise ValueError(f"scale {scales[-1]}")
    labels = tuple(str(channel.get("label", "")) for channel in holder.get("omero", {}).get("channels", []))
    paths = tuple(str(level["path"]) for level in image["datasets"])
    if not paths:
        raise ValueError("no datasets")
    return Multiscale(paths, letters, tuple(scales), units, labels)


def _scale(transformations: list[Any], ndim: int) -> tuple[float, ...]:
    total = [1.0] * ndim
    for step in transformations:
        if step["type"] == "scale":
            if len(step["scale"]) != ndim:
                raise ValueError(f"scale {step['scale']} for {ndim} axes")
            total = [a * float(b) for a, b in zip(total, step["scale"], strict=True)]
        elif step["type"] not in ("translation", "identity"):
            raise ValueError(f"transformation {step['type']!r}")
    return tuple(total)


def values_of(
    store: Path, attributes: Document, bands: int, dtype: np.dtype
) -> tuple[dict[str, Any], tuple[Flag, ...]]:
    """Read CF's scale_factor, add_offset, _FillValue and units: the fields scaling, nodata and units, and flags.

    Raises:
        DamagedError: one of them is no number, or not finite.
    """
    try:
        scale, offset = (float(attributes.get(n, d)) for n, d in (("scale_factor", 1.0), ("add_offset", 0.0)))
        empty = attributes.get("_FillValue", attributes.get("missing_value"))
        value = None if empty is None else _number(empty)
    except (TypeError, ValueError, binascii.Error, struct.error) as error:
        raise DamagedError(f"{store}: expected numbers in its CF attributes ({error}); mend its metadata.") from None
    nodata, flags = nodata_values(store, (), (value,) * bands, dtype)
    unit = attributes.get("units")
    scaling = scalings(store, (scale,) * bands, (offset,) * bands)
    return {"scaling": scaling, "nodata": nodata, "units": (unit,) * bands if isinstance(unit, str) else None}, flags


def _number(value: Any) -> float:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lower() not in _WORDS:  # xarray packs floats: base64 of a double
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    return _WORDS[value.lower()] if isinstance(value, str) else float(value)


def placement_of(
    store: Path, sources: list[Document], size: tuple[int, int], corner: tuple[float, ...] | None
) -> tuple[Georeference, Spacing, tuple[Flag, ...]] | None:
    """Find a CRS and a transform in attributes: CF grid mapping with GeoTransform, or `proj:` and `spatial:` keys.

    Args:
        store: for messages.
        sources: attributes of the grid mapping, the array and its group; the first that says something wins.
        size: (Y, X) of the array.
        corner: transform derived from the coordinate arrays, used where no attribute states one.

    Raises:
        GeometryError: there is a CRS without a transform, or one of them cannot be understood.
    """
    crs = next((text for text in map(_crs, sources) if text), None)
    if crs is None:
        return None
    try:
        stated = next((t for t in (_transform(found, size) for found in sources) if t), None)
    except (TypeError, ValueError, IndexError) as error:
        raise GeometryError(f"{store}: its geotransform cannot be understood ({error}); mend its metadata.") from None
    transform = stated or corner
    if transform is None:
        raise GeometryError(f"{store}: it states a CRS but no transform and no regular x and y coordinates; mend it.")
    a, b, c, d, e, f = transform
    return located(store, _parsed(store, crs), (a, b, c, d, e, f), size)


def _crs(found: Document) -> str | None:
    for name in ("crs_wkt", "spatial_ref", "proj:wkt2", "proj:code", "crs"):
        value = found.get(name)
        if isinstance(value, str) and value.strip():
            return value
    code = found.get("proj:epsg")
    return f"EPSG:{code}" if isinstance(code, int) else None


def _transform(found: Document, size: tuple[int, int]) -> tuple[float, ...] | None:
    packed = found.get("GeoTransform")
    if packed is not None:
        c, a, b, f, d, e = (float(v) for v in (packed.split() if isinstance(packed, str) else packed))
        return a, b, c, d, e, f
    values = found.get("spatial:transform", found.get("proj:transform"))
    if values is not None:
        a, b, c, d, e, f = (float(v) for v in list(values)[:6])
        if found.get("spatial:registration") == "node":  # the transform gives pixel centres
            c, f = c - (a + b) / 2, f - (d + e) / 2
        return a, b, c, d, e, f
    box = found.get("spatial:bbox", found.get("proj:bbox"))
    if box is None:
        return None
    left, bottom, right, top = (float(v) for v in box)
    return (right - left) / size[1], 0.0, left, 0.0, (bottom - top) / size[0], top


def from_coordinates(x: np.ndarray, y: np.ndarray) -> tuple[float, ...] | None:
    """The transform of coordinates of pixel centres, or None where they are not evenly spaced."""
    steps = []
    for values in (x, y):
        if len(values) < 2 or not np.isfinite(values).all():
            return None
        step = (values[-1] - values[0]) / (len(values) - 1)
        if step == 0 or np.abs(np.diff(values) - step).max() > 1e-3 * abs(step):
            return None
        steps.append(float(step))
    return steps[0], 0.0, float(x[0]) - steps[0] / 2, 0.0, steps[1], float(y[0]) - steps[1] / 2


def _parsed(store: Path, text: str) -> Crs:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not is_crs_text(text):
        raise GeometryError(
            f"{store}: expected its CRS as AUTHORITY:CODE or WKT, got {text[:60]!r}; mend its metadata."
        )
    try:
        return named_crs(CRS.from_user_input(text))
    except CRSError as error:
        raise GeometryError(
            f"{store}: its CRS {text[:60]!r} cannot be understood ({error}); mend its metadata."
        ) from None
