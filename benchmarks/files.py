"""The files that benchmarks/read.py reads: one multispectral scene and one volume, written in every layout compared."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BANDS, SIDE, CUBE = 14, 2048, 160


@dataclass(frozen=True)
class Files:
    """Where everything was written.

    Attributes:
        tiled128: scene (14, 2048, 2048) uint16, GeoTIFF of 128-pixel tiles, deflate, bands interleaved by pixel.
        tiled256: the same with 256-pixel tiles.
        scene_store: the same as a prepared store.
        packed: volume 160^3 int16 as `.nii.gz`, four of different content.
        plain: the first of them as `.nii`.
        store: the first of them as a prepared store.
    """

    tiled128: Path
    tiled256: Path
    scene_store: Path
    packed: tuple[Path, ...]
    plain: Path
    store: Path


def scene(seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Draw (14, side, side) uint16 reflectance x 10,000: structure at several scales and sensor noise."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    field = np.zeros((side, side), np.float32)
    for scale in (4, 16, 64, 256):
        coarse = rng.standard_normal((side // scale, side // scale)).astype(np.float32)
        field += np.kron(coarse, np.ones((scale, scale), np.float32)) * scale**0.25
    slopes = rng.uniform(100, 400, BANDS).astype(np.float32)
    image = np.stack([2500 + slope * field + rng.normal(0, 12, field.shape).astype(np.float32) for slope in slopes])
    return image.clip(1, 10_000).astype(np.uint16)


def volume(seed: int = 0, side: int = CUBE) -> np.ndarray:
    """Draw (side, side, side) int16 in Hounsfield-like units: a body in air, organs, noise of 12 HU."""
    rng = np.random.Generator(np.random.Philox(key=100 + seed))
    z, y, x = np.ogrid[:side, :side, :side]
    body = ((y - side / 2) / (0.36 * side)) ** 2 + ((x - side / 2) / (0.46 * side)) ** 2 < 1
    hu = np.where(body, 40.0, -1000.0).astype(np.float32) * np.ones((side, 1, 1), np.float32)
    for _ in range(40):
        centre, radius = rng.uniform(0.2, 0.8, 3) * side, rng.uniform(0.03, 0.16) * side
        inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        hu[inside & body] = rng.uniform(-900, 400)
    noise = rng.normal(0, 12, hu.shape).astype(np.float32)
    return np.where(hu > -950, hu + noise, hu).round().astype(np.int16)


def write_files(folder: Path) -> Files:
    """Write all of them; about 20 s and 500 MB."""
    from datasets import open_image
    from datasets.writers import write_image

    image = scene()
    tiffs = {side: _tiff(folder / f"tiled{side}.tif", image, side) for side in (128, 256)}
    packed = tuple(_nifti(folder / f"volume{seed}.nii.gz", volume(seed)) for seed in range(4))
    plain = _nifti(folder / "volume0.nii", volume(0))
    stores = [folder / "scene.zarr", folder / "volume0.zarr"]
    for source, store in zip((tiffs[128], packed[0]), stores, strict=True):
        lazy = open_image(source)
        write_image(store, lazy, [(tuple(slice(0, n) for n in lazy.size), lazy.read())])
    return Files(tiffs[128], tiffs[256], stores[0], packed, plain, stores[1])


def _tiff(path: Path, image: np.ndarray, side: int) -> Path:
    import rasterio
    from rasterio.transform import from_origin

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(image),
        height=image.shape[1],
        width=image.shape[2],
        dtype=image.dtype,
        crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 10, 10),
        tiled=True,
        blockxsize=side,
        blockysize=side,
        compress="deflate",
        interleave="pixel",
        nodata=0,
    ) as file:
        file.write(image)
        file.descriptions = tuple(f"B{number:02d}" for number in range(1, len(image) + 1))
    return path


def _nifti(path: Path, voxels: np.ndarray) -> Path:
    """Write (Z, Y, X) voxels; level 6, what nibabel and most scanners' converters use."""
    import nibabel as nib

    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([0.8, 0.8, 1.5, 1.0]))
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)
    return path
