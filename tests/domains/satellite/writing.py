"""Small real-looking scenes in the formats that people have; all on one UTM grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

SMALL = (  # a run of two steps of the preset tiny
    "--recipe.encoder.width=24",
    "--recipe.encoder.depths=1,1",
    "--recipe.encoder.heads=2,4",
    "--steps=2",
    "--optim.warmup_steps=1",
    "--data.streams.0.batch_size=2",
    "--how.validate_every=2",
)


def geotiff(path: Path, pixels: np.ndarray, bands: tuple[str, ...] = (), **options: Any) -> Path:
    """Write (C, Y, X) as a tiled GeoTIFF whose bands are described, where they have names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    step, scales = options.pop("step", 30.0), options.pop("scales", None)
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:32615",
        "transform": rasterio.Affine(step, 0, 5e5, 0, -step, 4e6),
        "tiled": True,
        "blockxsize": 32,
        "blockysize": 32,
        **options,
    }
    count, height, width = pixels.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile) as file:
        file.write(pixels)
        for number, name in enumerate(bands, start=1):
            file.set_band_description(number, name)
        if scales is not None:
            file.scales = scales
    return path


def landsat(folder: Path, pixels: np.ndarray, bands: tuple[str, ...], **options: Any) -> Path:
    """Write (C, Y, X) as a folder of one file per band, as Landsat products are delivered."""
    scene = "LE07_L1TP_022049_19991118_20170128_01_T1"
    for band, image in zip(bands, pixels, strict=True):
        geotiff(folder / f"{scene}_{band}.TIF", image[None], **options)
    return folder


def noise(bands: int, height: int, width: int, *, low: float = 1.0, high: float = 250.0, seed: int = 0) -> np.ndarray:
    """Draw (C, Y, X) float64 of values that differ from band to band."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    level = np.linspace(low, high, bands + 2)[1:-1, None, None]
    return np.clip(level + (high - low) / 10 * rng.standard_normal((bands, height, width)), low, high)
