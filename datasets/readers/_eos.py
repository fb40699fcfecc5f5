"""Grids of HDF-EOS (MODIS, VIIRS): where their pixels are, from the text StructMetadata."""

from __future__ import annotations

import re
from functools import lru_cache

_EARTH = 6371007.181  # radius of the sphere of MODIS's sinusoidal grid, m

Transform = tuple[float, float, float, float, float, float]


def grid(text: str, size: tuple[int, int], field: str) -> tuple[str, Transform] | None:
    """Give CRS text and geotransform of the grid that holds `field` and is of this size (Y X), if they are known."""
    blocks = re.findall(r"GROUP=(GRID_\d+)\s(.*?)END_GROUP=\1", text, flags=re.DOTALL)
    fitting = [block for _, block in blocks if (_number(block, "YDim"), _number(block, "XDim")) == size]
    fitting = [block for block in fitting if f'DataFieldName="{field}"' in block] or fitting
    if len(fitting) != 1:
        return None
    block = fitting[0]
    corners = [_numbers(block, name) for name in ("UpperLeftPointMtrs", "LowerRightMtrs")]
    origin = re.search(r"GridOrigin=(\w+)", block)
    if [len(corner) for corner in corners] != [2, 2] or (origin and origin[1] != "HDFE_GD_UL"):
        return None
    projection = re.search(r"Projection=(?:HE5_)?(\w+)", block)
    crs = _crs(projection[1] if projection else "", tuple(_numbers(block, "ProjParams")))
    if crs is None:
        return None
    if crs == "EPSG:4326":
        corners = [[_degrees(value) for value in corner] for corner in corners]
    (left, top), (right, bottom) = corners
    height, width = size
    return crs, ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)


def _crs(projection: str, parameters: tuple[float, ...]) -> str | None:
    """A sinusoidal grid about Greenwich, or degrees; other projections are not known."""
    if projection == "GCTP_GEO":
        return "EPSG:4326"
    if projection != "GCTP_SNSOID" or any(parameters[1:]):
        return None
    radius = parameters[0] if parameters and parameters[0] else _EARTH
    return _sinusoidal(radius) if 1 <= radius < 1e9 else None


@lru_cache(maxsize=8)
def _sinusoidal(radius: float) -> str:
    from rasterio.crs import CRS

    return str(CRS.from_string(f"+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R={radius} +units=m +no_defs").to_wkt())


def _degrees(packed: float) -> float:
    """Degrees from DDDMMMSSS.SS."""
    size = abs(packed)
    degrees, minutes, seconds = size // 1e6, size % 1e6 // 1e3, size % 1e3
    return (degrees + minutes / 60 + seconds / 3600) * (-1 if packed < 0 else 1)


def _number(block: str, name: str) -> int | None:
    found = re.search(rf"(?m)^\s*{name}=(\d+)\s*$", block)
    return int(found[1]) if found else None


def _numbers(block: str, name: str) -> list[float]:
    found = re.search(rf"{name}=\(([^)]*)\)", block)
    try:
        return [float(part) for part in found[1].split(",")] if found else []
    except ValueError:
        return []
