"""What the header of a scene means: its CRS and pixel size in metres, the names of its bands, its nodata values.

Pure functions of what a library read from the file, shared by the readers of scenes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.bands import RGB, BandNames
from core.errors import BandError, ConfigError, DamagedError, GeometryError
from core.geometry import Georeference, Spacing
from datasets.image import Flag
from datasets.readers._typed import typed

_EQUATOR, _ECCENTRICITY = 6378137.0, 0.00669437999014  # WGS84: semi-major axis in m, first eccentricity squared
_POLE = 89.999  # degrees; beyond it a degree of longitude has no length


@dataclass(frozen=True)
class Crs:
    """A coordinate reference system, worked out once per process: naming it takes PROJ 12 ms.

    Attributes:
        text: `EPSG:32615` where that is certain, else WKT.
        kind: what its coordinates are.
        factor: metres, or degrees, per unit.
        zone: UTM zone, 0 if it is none.
    """

    text: str
    kind: Literal["projected", "geographic", "other"]
    factor: float
    zone: int


def is_crs_text(text: str) -> bool:
    """Say whether a text is AUTHORITY:CODE or WKT; PROJ would open a file or a URL that is called like any other text."""
    return "[" in text or re.fullmatch(r"[A-Za-z]+:\w+", text) is not None


def named_crs(crs: Any) -> Crs:
    """Say what a rasterio CRS is."""
    try:
        return _crs(crs.to_wkt())
    except Exception:  # a CRS that WKT 1 cannot express: rasterio raises one of several classes
        return _crs(crs.to_wkt(version="WKT2_2019"))


@lru_cache(maxsize=256)
def _crs(wkt: str) -> Crs:
    from rasterio.crs import CRS

    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg(confidence_threshold=100)
    certain = code is not None and CRS.from_epsg(code) == crs
    kind: Literal["projected", "geographic", "other"] = "other"
    factor = 1.0
    if crs.is_geographic:
        kind, factor = "geographic", math.degrees(float(crs.units_factor[1]))
    elif crs.is_projected:
        kind, factor = "projected", float(crs.linear_units_factor[1])
    zone = code % 100 if code is not None and certain and code // 100 in (326, 327) and 1 <= code % 100 <= 60 else 0
    return Crs(f"EPSG:{code}" if certain else wkt, kind, factor, zone)


def located(
    path: Path, crs: Crs, transform: tuple[float, float, float, float, float, float], size: tuple[int, int]
) -> tuple[Georeference, Spacing, tuple[Flag, ...]]:
    """Work out georeference and pixel size of a scene of `size` (Y X), and what is unusual about them.

    Raises:
        GeometryError: the transform is not finite or singular.
    """
    try:
        georeference = Georeference(crs.text, transform)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    flags = list(_turned(transform))
    corners = [_place(transform, row, column) for row in (0, size[0]) for column in (0, size[1])]
    centre = _place(transform, size[0] / 2, size[1] / 2)
    if crs.kind == "geographic":
        spacing, more = _on_the_globe(transform, crs.factor, centre, corners)
        return georeference, spacing, (*flags, *more)
    if crs.kind == "other":
        text = "The CRS is neither projected nor geographic, so the size of a pixel on the ground is not known."
        return georeference, Spacing.pixels(2), (*flags, Flag("local_crs", text))
    flags += _on_a_map(crs, centre, corners)
    down, right = georeference.steps
    return georeference, Spacing((down * crs.factor, right * crs.factor), "m"), tuple(flags)


def _place(transform: tuple[float, ...], row: float, column: float) -> tuple[float, float]:
    a, b, c, d, e, f = transform
    return a * column + b * row + c, d * column + e * row + f


def _turned(transform: tuple[float, ...]) -> tuple[Flag, ...]:
    a, b, _, d, e, _ = transform
    flags = []
    if b or d:
        flags.append(Flag("rotated", f"The pixel grid is rotated against its CRS (terms {b:g} and {d:g})."))
    if e > 0:
        flags.append(Flag("south_up", "The first row is the southernmost: the image is upside down against a map."))
    if a < 0:
        flags.append(Flag("east_left", "The first column is the easternmost: the image is mirrored against a map."))
    return tuple(flags)


def _on_the_globe(
    transform: tuple[float, ...], degrees: float, centre: tuple[float, float], corners: list[tuple[float, float]]
) -> tuple[Spacing, list[Flag]]:
    a, b, _, d, e, _ = (value * degrees for value in transform)
    flags = [Flag("geographic_crs", "Pixels have a size in degrees; in metres it holds at the centre of the image.")]
    north = max(abs(y * degrees) for _, y in corners)
    if north > 90.0 + 1e-6:
        flags.append(
            Flag("wrong_axis", f"A latitude of {north:.2f} degrees does not exist: are x and y exchanged in the file?")
        )
        return Spacing.pixels(2), flags
    east = [x * degrees for x, _ in corners]
    if max(east) > 180.0 + 1e-6 or min(east) < -180.0 - 1e-6:
        flags.append(
            Flag("antimeridian", f"Longitudes {min(east):.2f} to {max(east):.2f} cross the antimeridian (180 degrees).")
        )
    latitude = math.radians(min(abs(centre[1] * degrees), _POLE))
    curved = 1 - _ECCENTRICITY * math.sin(latitude) ** 2
    per_y = math.radians(_EQUATOR * (1 - _ECCENTRICITY) / curved**1.5)
    per_x = math.radians(_EQUATOR * math.cos(latitude) / math.sqrt(curved))
    return Spacing((math.hypot(b * per_x, e * per_y), math.hypot(a * per_x, d * per_y)), "m"), flags


def _on_a_map(crs: Crs, centre: tuple[float, float], corners: list[tuple[float, float]]) -> list[Flag]:
    """UTM alone says where it ends; there degrees and exchanged axes show, and a scene beyond 180 degrees."""
    if not crs.zone:
        return []
    x, y = centre
    if not (-1e6 < x < 2e6 and -1.1e7 < y < 1.1e7) or (abs(x) <= 360 and abs(y) <= 180):
        text = f"({x:.1f}, {y:.1f}) is no place in {crs.text}: are x and y exchanged, or are these degrees?"
        return [Flag("wrong_axis", text)]
    if crs.zone in (1, 60) and _crosses(crs.text, corners):
        return [Flag("antimeridian", "The scene crosses the antimeridian (180 degrees).")]
    return []


def _crosses(crs: str, corners: list[tuple[float, float]]) -> bool:
    from rasterio.warp import transform

    longitudes, _ = transform(crs, "EPSG:4326", [x for x, _ in corners], [y for _, y in corners])
    return float(max(longitudes) - min(longitudes)) > 180.0


def band_names(
    option: str, path: Path, given: BandNames, described: Sequence[str | None], colours: Sequence[str]
) -> tuple[BandNames, tuple[Flag, ...]]:
    """Name the bands: as `given` by `option`, else by their descriptions, else by their colours, else band_1, band_2, ...

    Raises:
        BandError: not as many are given as the file has, one twice, or its own names in another order.
    """
    texts = [text.strip() if text else "" for text in described]
    if given:
        if len(given) != len(described) or len(set(given)) != len(given):
            raise BandError(
                f"{path}: expected {len(described)} different band names, one for each band, got {given}; mend "
                f"{typed(f'{option}=[...]')}, or leave out files that have another number."
            )
        if any(name in texts and texts.index(name) != number for number, name in enumerate(given)):
            raise BandError(
                f"{path}: its own band names are {tuple(texts)}, the option {option} gives them in another order "
                f"{given}; leave the option out and choose bands by name."
            )
        return given, ()
    if all(texts) and len(set(texts)) == len(texts):
        return tuple(texts), ()
    coloured = all(list(colours).count(colour) == 1 for colour in RGB)
    names = tuple(
        colour if coloured and colour in RGB else f"band_{number}" for number, colour in enumerate(colours, start=1)
    )
    if set(names) == set(RGB):
        return names, ()
    return names, (
        Flag(
            "unnamed_bands",
            f"The file does not name all {len(names)} bands; name them with {typed(f'{option}=[...]')}.",
        ),
    )


def nodata_values(
    path: Path, given: tuple[float, ...], said: Sequence[float | None], dtype: np.dtype
) -> tuple[tuple[float | None, ...] | None, tuple[Flag, ...]]:
    """Give the nodata value of each band, as a value that a voxel of `dtype` can have.

    `given` by the user (one for all bands, or one each) goes before what the file `said`.

    Raises:
        BandError: not as many are given as there are bands.
        ConfigError: a given one cannot occur in the file.
    """
    if given:
        if len(given) not in (1, len(said)):
            raise BandError(
                f"{path}: expected one nodata value, or {len(said)}, one for each band, got {len(given)}; mend "
                f"{typed('geotiff.nodata=[...]')}."
            )
        values = [representable(value, dtype) for value in given] * (len(said) if len(given) == 1 else 1)
        if None in values:
            raise ConfigError(
                f"{path}: nodata {given} cannot occur in {dtype} voxels; mend {typed('geotiff.nodata=[...]')}."
            )
        return tuple(values), ()
    kept = [None if value is None else representable(value, dtype) for value in said]
    lost = sorted({str(value) for value, one in zip(said, kept, strict=True) if value is not None and one is None})
    flags: tuple[Flag, ...] = ()
    if lost:
        text = f"The file's nodata value {', '.join(lost)} cannot occur in {dtype} voxels and is ignored."
        flags = (Flag("nodata_out_of_range", text),)
    return (tuple(kept) if any(value is not None for value in kept) else None), flags


def representable(value: float, dtype: np.dtype) -> float | None:
    """Give the value as a voxel of this type holds it; None if it cannot."""
    value = float(value)
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        if math.isfinite(value) and abs(value) > limit * (1 + 1e-6):
            return None
        return float(np.clip(value, -limit, limit).astype(dtype)) if math.isfinite(value) else value
    limits = np.iinfo(dtype)
    return value if value.is_integer() and limits.min <= value <= limits.max else None


def scalings(path: Path, scales: Sequence[float], offsets: Sequence[float]) -> tuple[tuple[float, float], ...] | None:
    """Pair scale and offset of each band; None where raw values are the values.

    Raises:
        DamagedError: one is not finite, or a scale is 0.
    """
    pairs = tuple((float(scale), float(offset)) for scale, offset in zip(scales, offsets, strict=True))
    if any(not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0 for scale, offset in pairs):
        raise DamagedError(
            f"{path}: expected finite scales and offsets, no scale 0, got {pairs}; mend the file's metadata."
        )
    return None if all(pair == (1.0, 0.0) for pair in pairs) else pairs
