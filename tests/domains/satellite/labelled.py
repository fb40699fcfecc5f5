"""Rasters of class numbers, and scenes below them, on grids of one's choice."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning

PLACE = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def write(
    path: Path, values: np.ndarray, place: Affine | None = PLACE, crs: str | None = "EPSG:32633", **more: Any
) -> Path:
    """Write (Y, X) or (C, Y, X) as a GeoTIFF; its bands are b0, b1, ...; without a place where that is None."""
    array = values if values.ndim == 3 else values[None]
    where = {} if place is None else {"transform": place, "crs": crs}
    count, height, width = array.shape
    options = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": array.dtype,
        **where,
        **more,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # that is meant
        with rasterio.open(path, "w", **options) as file:
            file.write(array)
            file.descriptions = [f"b{n}" for n in range(count)]
    return path
