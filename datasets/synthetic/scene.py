"""Procedural multispectral scenes: land cover with its spectra, seen through clouds by a sensor with a swath edge.

The spectra are smooth curves through a few points per kind of cover, sampled at the centre wavelengths of Sentinel-2's 13
bands or of 14 bands of MODIS (the six reflective and eight emissive ones of SatVision-TOA). The dominant cover is the
label; where a scene lies, its light, haze, clouds and swath are drawn independently of it. Places are real coordinate
systems, contents are not: a stand-in to run the software on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datasets.synthetic.noise import fractal, smooth, step

Sensor = Literal["sentinel2", "modis"]
SIZE = (512, 512)  # Y X
COVERS = ("water", "forest", "crop", "soil", "urban", "snow")

# Centres in nm; a band beyond 3,500 nm is emissive.
SENTINEL2 = {
    "B01": 443, "B02": 493, "B03": 560, "B04": 665, "B05": 704, "B06": 741, "B07": 783, "B08": 833, "B8A": 865,
    "B09": 945, "B10": 1374, "B11": 1614, "B12": 2202,
}  # fmt: skip
MODIS = {
    "M01": 645, "M02": 859, "M03": 469, "M06": 1640, "M07": 2130, "M21": 3959, "M26": 1375, "M27": 6715, "M28": 7325,
    "M29": 8550, "M30": 9730, "M31": 11030, "M32": 12020, "M33": 13335,
}  # fmt: skip
LANDSAT = {"SR_B1": 443, "SR_B2": 482, "SR_B3": 561, "SR_B4": 655, "SR_B5": 865, "SR_B6": 1609, "SR_B7": 2201}
_SENSORS: dict[str, tuple[dict[str, int], float]] = {"sentinel2": (SENTINEL2, 10.0), "modis": (MODIS, 1000.0)}
_EMISSIVE_NM = 3500

_POINTS_NM = (400, 480, 550, 600, 670, 710, 760, 860, 1000, 1240, 1640, 2200, 2500)
_SPECTRA = {  # reflectance at these points
    "water": (0.075, 0.070, 0.060, 0.040, 0.026, 0.022, 0.016, 0.012, 0.010, 0.008, 0.006, 0.004, 0.003),
    "forest": (0.018, 0.022, 0.048, 0.030, 0.020, 0.085, 0.255, 0.310, 0.305, 0.265, 0.135, 0.060, 0.035),
    "crop": (0.030, 0.042, 0.088, 0.062, 0.045, 0.155, 0.370, 0.440, 0.430, 0.380, 0.235, 0.115, 0.070),
    "soil": (0.070, 0.100, 0.145, 0.185, 0.215, 0.230, 0.250, 0.285, 0.310, 0.345, 0.375, 0.330, 0.290),
    "urban": (0.115, 0.130, 0.150, 0.160, 0.172, 0.180, 0.190, 0.205, 0.215, 0.225, 0.245, 0.230, 0.215),
    "snow": (0.880, 0.900, 0.890, 0.880, 0.870, 0.860, 0.840, 0.780, 0.640, 0.330, 0.060, 0.040, 0.030),
}
_CLOUD = (0.62, 0.64, 0.65, 0.65, 0.66, 0.66, 0.67, 0.68, 0.66, 0.58, 0.42, 0.30, 0.25)
_SURFACE_K = {"water": 287.0, "forest": 293.0, "crop": 298.0, "soil": 307.0, "urban": 304.0, "snow": 266.0}
# Share of the surface in what an emissive band sees, and the temperature of the air that hides the rest.
_WINDOW = {
    "M21": (0.93, 265), "M27": (0.04, 240), "M28": (0.16, 254), "M29": (0.90, 265), "M30": (0.55, 245), "M31": (0.95, 265),
    "M32": (0.92, 265), "M33": (0.30, 258),
}  # fmt: skip
_SCALE_REFLECTANCE, _SCALE_KELVIN = 1e-4, 1e-2


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene.

    Attributes:
        raw: (C, Y, X) uint16; physical value = raw * scale, except where raw is `nodata`.
        bands: name and centre in nm.
        scales: per band; offsets are 0.
        units: per band, "reflectance" or "K".
        label: (Y, X) uint8, 1 + position in `COVERS`, 0 where nothing was measured. Clouds do not change it.
        cloud: (Y, X) bool, mostly cloud.
        fractions: of the measured pixels, per cover.
        nodata: outside the swath.
        epsg: of the UTM zone.
        origin: east and north of the outer corner of the first pixel, m.
        resolution: of a pixel, m.
    """

    raw: np.ndarray
    bands: dict[str, int]
    scales: tuple[float, ...]
    units: tuple[str, ...]
    label: np.ndarray
    cloud: np.ndarray
    fractions: dict[str, float]
    nodata: int
    epsg: int
    origin: tuple[float, float]
    resolution: float


def scene(
    rng: np.random.Generator,
    cover: str,
    sensor: Sensor = "sentinel2",
    size: tuple[int, int] = SIZE,
    *,
    bands: dict[str, int] | None = None,
) -> Scene:
    """Draw a scene in which `cover` holds the most ground; `bands` (name: nm) replaces the sensor's own."""
    own, resolution = _SENSORS[sensor]
    bands = bands or own
    places = _covers(rng, size, COVERS.index(cover))
    shade = _texture(rng, size, places)
    cloud = step(fractal(rng, size, 4, 6, 0.6) - rng.uniform(1.0, 2.8), 1.1)
    shadow = 1 - 0.45 * np.roll(cloud, (size[0] // 24, size[1] // 32), (0, 1))
    haze, light = float(rng.uniform(0, 0.05)), float(rng.uniform(0.85, 1.1))
    warm, noise = float(rng.uniform(-8, 8)), float(rng.uniform(0.002, 0.006))
    own_shift = 1 + 0.07 * rng.standard_normal((len(COVERS), len(_POINTS_NM)))  # no two fields are of one green
    raw = np.empty((len(bands), *size), np.uint16)
    valid = _swath(rng, size)
    nodata = 0 if sensor == "sentinel2" or rng.random() < 0.5 else 65535
    for number, (name, nm) in enumerate(bands.items()):
        if nm > _EMISSIVE_NM:
            values = _kelvin(name, places, shade, cloud, warm) + 20 * noise * rng.standard_normal(size, np.float32)
            counts = values / _SCALE_KELVIN
        else:
            through = 0.06 if 1340 < nm < 1420 else 1.0  # water vapour hides the ground at 1.38 um
            table = np.array([np.interp(nm, _POINTS_NM, _SPECTRA[c] * own_shift[i]) for i, c in enumerate(COVERS)])
            ground = table.astype(np.float32)[places] * (1 + shade) * shadow * light * through
            values = ground + haze * (480 / nm) ** 2
            values += cloud * (
                np.float32(np.interp(nm, _POINTS_NM, _CLOUD) * light) * (0.55 if through < 1 else 1) - values
            )
            counts = (values + noise * rng.standard_normal(size, np.float32)) / _SCALE_REFLECTANCE
        raw[number] = np.where(valid, np.clip(np.rint(counts), 1, 65534), nodata)
    label = np.where(valid, places + 1, 0).astype(np.uint8)
    shares = np.bincount(label.ravel(), minlength=len(COVERS) + 1)[1:] / valid.sum()
    emissive = [nm > _EMISSIVE_NM for nm in bands.values()]
    return Scene(
        raw=raw,
        bands=bands,
        scales=tuple(_SCALE_KELVIN if hot else _SCALE_REFLECTANCE for hot in emissive),
        units=tuple("K" if hot else "reflectance" for hot in emissive),
        label=label,
        cloud=(cloud > 0.5) & valid,
        fractions={name: float(share) for name, share in zip(COVERS, shares, strict=True)},
        nodata=nodata,
        epsg=int(rng.integers(32601, 32661) if rng.random() < 0.7 else rng.integers(32701, 32761)),
        origin=tuple(float(v) for v in np.round(rng.uniform((3e5, 1e6), (6e5, 8e6)) / resolution) * resolution),  # type: ignore[arg-type]
        resolution=resolution,
    )


def _covers(rng: np.random.Generator, size: tuple[int, int], dominant: int) -> np.ndarray:
    """Which cover lies where, (Y, X) positions in `COVERS`; the dominant one holds 45 to 80 percent."""
    parcels = _parcels(rng, size, max(size) / 22)
    scores = np.stack([fractal(rng, size, 4, 6, 0.55) for _ in COVERS])
    for kind in (2, 3):  # crops and bare soil lie in fields
        scores[kind] = scores[kind] * 0.6 + rng.standard_normal(parcels.max() + 1).astype(np.float32)[parcels]
    scores[4] += 0.5 * (parcels % 2) - 0.2  # towns by blocks
    weights = -0.4 - rng.uniform(0, 1.0, len(COVERS))
    weights[5] -= 1.0  # snow is rare beside fields
    scores += weights[:, None, None].astype(np.float32)
    others = np.delete(scores, dominant, axis=0).max(axis=0)
    ahead = scores[dominant] - others
    wins = ahead >= np.quantile(ahead, 1 - rng.uniform(0.45, 0.80))
    scores[dominant] = -np.inf
    places = np.where(wins, dominant, scores.argmax(axis=0))
    y = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :]
    turn = float(rng.uniform(0, np.pi))
    river = np.abs(x * np.cos(turn) + y * np.sin(turn) + 0.14 * fractal(rng, size, 3, 4) + rng.uniform(-0.5, 0.5))
    return np.where(river < rng.uniform(0.006, 0.018), 0, places)


def _parcels(rng: np.random.Generator, size: tuple[int, int], pitch: float) -> np.ndarray:
    """Number the fields of a countryside: the nearest of shaken grid points, in turned and stretched coordinates."""
    turn, long = float(rng.uniform(0, np.pi)), float(rng.uniform(1.0, 2.2))
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    u = (x * np.cos(turn) + y * np.sin(turn)) / (pitch * long)
    v = (y * np.cos(turn) - x * np.sin(turn)) / pitch
    u, v = u - u.min() + 2, v - v.min() + 2
    rows, columns = int(v.max()) + 4, int(u.max()) + 4
    shake = rng.uniform(0.15, 0.85, (2, rows, columns)).astype(np.float32)
    best, owner = np.full(size, np.inf, np.float32), np.zeros(size, np.int64)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            i, j = v.astype(int) + dv, u.astype(int) + du
            # The larger of both distances makes corners square, as fields are.
            distance = np.maximum(np.abs(v - i - shake[0, i, j]), np.abs(u - j - shake[1, i, j]))
            nearer = distance < best
            best, owner = np.where(nearer, distance, best), np.where(nearer, i * columns + j, owner)
    return owner


def _texture(rng: np.random.Generator, size: tuple[int, int], places: np.ndarray) -> np.ndarray:
    """Relative brightness: relief at large scale, and for each cover its own grain."""
    relief = 0.05 * fractal(rng, size, 5, 5)
    fine = rng.standard_normal(size, dtype=np.float32)
    middle = smooth(rng, size, max(size) / 6)
    y, x = np.mgrid[: size[0], : size[1]]
    blocks = np.where((y // 5 + x // 5) % 2 == 0, 0.22, -0.12).astype(np.float32) + 0.22 * fine
    rows = 0.06 * np.sin((x + 0.6 * y) * 1.3).astype(np.float32)
    grains = {
        0: 0.02 * fine,
        1: 0.13 * middle + 0.07 * fine,
        2: rows + 0.03 * fine,
        3: 0.05 * middle,
        4: blocks,
        5: 0.03 * middle,
    }
    shade = relief * np.where(places == 0, np.float32(0.2), np.float32(1))
    for kind, grain in grains.items():
        shade += np.where(places == kind, grain, np.float32(0))
    return shade


def _kelvin(name: str, places: np.ndarray, shade: np.ndarray, cloud: np.ndarray, warm: float) -> np.ndarray:
    seen, air = _WINDOW[name]
    surface = np.array([_SURFACE_K[c] for c in COVERS], np.float32)[places] + warm - 12 * shade
    surface += cloud * (232 - surface)
    return np.asarray(seen * surface + (1 - seen) * (air - 6 * cloud), np.float32)


def _swath(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Where the sensor looked: everything, or up to a slanted edge that takes at most a quarter."""
    if rng.random() < 0.4:
        return np.ones(size, bool)
    turn = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, size[0])[:, None]
    x = np.linspace(-1, 1, size[1])[None, :]
    return np.asarray(x * np.cos(turn) + y * np.sin(turn) < rng.uniform(0.5, 1.0))


def cut(scene: Scene, rows: slice, columns: slice) -> Scene:
    """Take a window of a scene, with its place, its fractions and copies of its pixels."""
    label = scene.label[rows, columns]
    counts = np.bincount(label.ravel(), minlength=len(COVERS) + 1)[1:]
    east, north = scene.origin
    return replace(
        scene,
        raw=scene.raw[:, rows, columns].copy(),
        label=label.copy(),
        cloud=scene.cloud[rows, columns].copy(),
        fractions={name: float(count) / max(1, int(counts.sum())) for name, count in zip(COVERS, counts, strict=True)},
        origin=(east + columns.start * scene.resolution, north - rows.start * scene.resolution),
    )


def write_geotiff(path: Path, scene: Scene, *, georeferenced: bool = True) -> None:
    """Save as tiled, compressed GeoTIFF with band names, scales, units and nodata; without CRS and transform on request."""
    _write(path, scene.raw, scene, scene.nodata, tuple(scene.bands), georeferenced=georeferenced, scaled=True)


def write_label(path: Path, scene: Scene) -> None:
    """Save the land cover as GeoTIFF, uint8, nodata 0."""
    _write(path, scene.label[None], scene, 0, ("cover",))


def _write(
    path: Path,
    array: np.ndarray,
    scene: Scene,
    nodata: int,
    names: tuple[str, ...],
    *,
    georeferenced: bool = True,
    scaled: bool = False,
) -> None:
    import warnings

    import rasterio
    from rasterio import Affine
    from rasterio.errors import NotGeoreferencedWarning

    options: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
    options |= {"compress": "deflate", "predictor": 2, "zlevel": 4, "nodata": nodata}
    if georeferenced:
        options["crs"] = f"EPSG:{scene.epsg}"
        (east, north), metres = scene.origin, scene.resolution
        options["transform"] = Affine(metres, 0.0, east, 0.0, -metres, north)
    count, height, width = array.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=count, dtype=array.dtype, **options
        ) as out:
            out.write(array)
            out.descriptions = names
            if scaled:
                out.scales, out.offsets, out.units = scene.scales, (0.0,) * count, scene.units


def write_landsat(folder: Path, scene: Scene) -> None:
    """Save as Landsat's Collection 2 delivers: a folder with one GeoTIFF per band, raw = (reflectance + 0.2) / 2.75e-5.

    Draw the scene with `bands=LANDSAT`. As in the real product the scaling is not in the files.
    """
    folder.mkdir(parents=True)
    measured = scene.raw != scene.nodata
    for number, name in enumerate(scene.bands):
        physical = scene.raw[number].astype(np.float64) * scene.scales[number]
        raw = np.where(measured[number], np.clip(np.rint((physical + 0.2) / 2.75e-5), 1, 65535), 0).astype(np.uint16)
        _write(folder / f"{folder.name}_{name}.TIF", raw[None], scene, 0, (name,))


def write_zarr(path: Path, scene: Scene) -> None:
    """Save as a plain Zarr v3 array (band, y, x), place and nodata in its attributes: not a prepared store.

    Scale and unit are stated where all bands share them, as CF's attributes allow.
    """
    import zarr

    attributes: dict[str, Any] = {
        "bands": list(scene.bands),
        "_FillValue": scene.nodata,
        "proj:code": f"EPSG:{scene.epsg}",
        "spatial:transform": [scene.resolution, 0.0, scene.origin[0], 0.0, -scene.resolution, scene.origin[1]],
    }
    if len(set(scene.units)) == 1:
        attributes |= {"scale_factor": scene.scales[0], "units": scene.units[0]}
    array = zarr.create_array(
        store=str(path),
        shape=scene.raw.shape,
        chunks=(len(scene.raw), 256, 256),
        dtype=scene.raw.dtype,
        fill_value=scene.nodata,
        dimension_names=("band", "y", "x"),
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    array[...] = scene.raw
