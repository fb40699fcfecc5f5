"""Scenes of one file per band, as Landsat, Sentinel-2 and HLS are delivered: a folder is one image.

The names of the bands come from the names of the files. All bands must lie on one grid; of a scene with several (a
panchromatic band of 15 m, Sentinel's 10, 20 and 60 m) one is read, and a flag says what was left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np

from core.bands import BandNames
from core.errors import DataError, GeometryError, UnsupportedError
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers import geotiff
from datasets.readers._scene_metadata import SceneMetadata, scene_metadata
from datasets.readers._typed import on_behalf_of, typed
from datasets.readers.base import Reader

_FILE = re.compile(
    r"(?P<scene>.+?)[_.](?P<band>(?:S[RT]_)?B(?P<number>\d{1,2})(?P<letter>A?)(?:_VCID_[12])?)(?:_\d\dm)?\.(?:tiff?|jp2)",
    re.IGNORECASE,
)
T = TypeVar("T")

_MOST = 4096  # names in a folder that are looked at; a scene has a few dozen files

_TM = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir_1", 6: "thermal", 7: "swir_2", 8: "pan"}
_OLI = {
    1: "coastal", 2: "blue", 3: "green", 4: "red", 5: "nir", 6: "swir_1", 7: "swir_2", 8: "pan", 9: "cirrus",
    10: "thermal_1", 11: "thermal_2",
}  # fmt: skip
_MSI = {
    1: "coastal", 2: "blue", 3: "green", 4: "red", 5: "red_edge_1", 6: "red_edge_2", 7: "red_edge_3", 8: "nir",
    9: "water_vapour", 10: "cirrus", 11: "swir_1", 12: "swir_2",
}  # fmt: skip
_SENSORS = {  # beginning of a product's name: the sensor whose numbers its bands have
    r"LT0?[45]": _TM,
    r"LE0?7": _TM,
    r"L[CO]0?[89]": _OLI,
    r"HLS\.L30": _OLI,
    r"HLS\.S30": _MSI,
    r"(?:L[12][AC]_)?T\d\d[A-Z]{3}_": _MSI,
}


class _BandFile(NamedTuple):
    path: Path
    scene: str
    band: str
    number: int
    letter: str


@dataclass(frozen=True)
class BandFiles(Reader):
    """Reads a folder of single-band GeoTIFFs of one scene as one image.

    Attributes:
        names: `number`: bands are called as in the file names (B4, B8A, SR_B4); `common`: red, nir, swir_1, ... by the
            sensor that the product's name tells.
        resolution_m: pixel size of the bands to read; 0 = that of most bands, of two equally many the finer.
        nodata: the value that means "not measured" in every band, where the files are silent or wrong.
        scale: `metadata`: where Landsat's `_MTL.txt` or Sentinel-2's `MTD_MSI*.xml` lies beside the bands, they are reflectance
            and kelvin as it says; `none`: counts, or what the files' own scales make of them.
        level: resolution to read within each file, as in GeoTiff.
        sparse: blocks that were never written, as in GeoTiff.
        jp2: also read JPEG 2000, as Sentinel-2 is delivered.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    names: Literal["number", "common"] = "number"
    resolution_m: float = 0.0
    nodata: tuple[float, ...] = ()
    scale: Literal["metadata", "none"] = "metadata"
    level: int = 0
    sparse: Literal["refuse", "invalid", "fill"] = "refuse"
    jp2: bool = False

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether it is a folder with two or more bands of one scene, by the names in it."""
        if head or not path.is_dir():
            return False
        files = _band_files(path)
        return len({file.scene for file in files}) == 1 and len({file.band for file in files}) > 1

    def open(self, path: Path) -> LazyImage:
        """Read the header of every band.

        Raises:
            GeometryError: bands of one resolution lie on different grids, or in different CRS.
            UnsupportedError: a file holds several bands or another type, or no band has the resolution asked for.
            DataError: a file cannot be opened (see GeoTiff), or states another scale than the scene's metadata, or that
                states none that can be; the message names it.
        """
        reader = geotiff.GeoTiff(nodata=self.nodata, level=self.level, sparse=self.sparse, jp2=self.jp2)
        files = _band_files(path)
        with on_behalf_of("band_files", [field.name for field in fields(self)]):
            images = [_single(reader.open(file.path)) for file in files]
        kept, left_out = self._one_resolution(path, images)
        first = images[kept[0]]
        for position in kept[1:]:
            _agree(first, images[position])
        chosen = [images[position] for position in kept]
        names = self._named(path, [files[position] for position in kept])
        bands = tuple(files[position].band for position in kept)
        said = scene_metadata(path, bands if self.scale == "metadata" else ())
        flags = [*_merged(chosen), *_counts(bands, said)]
        if left_out:
            text = ", ".join(f"{files[i].band} ({images[i].spacing.values[0]:g} m)" for i in left_out)
            flags.append(
                Flag(
                    "other_resolution",
                    f"Left out, because of their resolution: {text}; to read them: "
                    f"{typed(f'band_files.resolution_m={images[left_out[0]].spacing.values[0]:g}')}.",
                )
            )
        return LazyImage(
            path=path,
            shape=(len(chosen), *first.size),
            dtype=first.dtype,
            bands=names,
            spacing=first.spacing,
            georeference=first.georeference,
            chunks=tuple(max(sides) for sides in zip(*(image.chunks for image in chosen), strict=True)),
            source=BandsSource(tuple(image.source for image in chosen), first.dtype),
            nodata=_each(image.nodata[0] if image.nodata else said.nodata for image in chosen),
            scaling=_scaling(chosen, bands, said),
            units=_each(image.units[0] if image.units else None for image in chosen),
            levels=first.levels,
            level=self.level,
            flags=tuple(flags),
            time=said.time,
        )

    def _one_resolution(self, path: Path, images: list[LazyImage]) -> tuple[list[int], list[int]]:
        """Positions of the images that have the resolution to read, and of the others."""
        groups: dict[float, list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            groups[round(image.spacing.values[0], 3)].append(position)
        wanted = self.resolution_m or max(groups, key=lambda size: (len(groups[size]), -size))
        near = [size for size in groups if abs(size - wanted) <= 0.01 * wanted]
        if not near:
            sizes = ", ".join(f"{size:g}" for size in sorted(groups))
            raise UnsupportedError(
                f"{path}: expected bands of {wanted:g} m, got bands of {sizes} m; choose one with "
                f"{typed(f'band_files.resolution_m={min(groups):g}')}."
            )
        kept = [position for size in near for position in groups[size]]
        return kept, [position for position in range(len(images)) if position not in kept]

    def _named(self, path: Path, files: list[_BandFile]) -> BandNames:
        names = tuple(file.band for file in files)
        if self.names == "common":
            names = tuple(_common(path, file) for file in files)
        if len(set(names)) != len(names):
            raise UnsupportedError(
                f"{path}: expected one file per band, got {', '.join(file.path.name for file in files)}; keep one of each."
            )
        return names


@dataclass(frozen=True)
class BandsSource(Source):
    """Reads each band from its own file."""

    parts: tuple[Source, ...]
    dtype: np.dtype

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read the wanted files only."""
        voxels = np.empty((len(bands), *(part.stop - part.start for part in window)), dtype=self.dtype)
        for row, band in enumerate(bands):
            voxels[row] = self.parts[band].read(window, (0,))[0]
        return voxels

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Join the files' own masks; a file without one calls everything measured."""
        masks = [self.parts[band].measured(window, (0,)) for band in bands]
        if all(mask is None for mask in masks):
            return None
        size = tuple(part.stop - part.start for part in window)
        return np.stack([np.ones(size, dtype=bool) if mask is None else mask[0] for mask in masks])


def _band_files(folder: Path) -> list[_BandFile]:
    """Files that are called like bands, in the order of their numbers; of a `.SAFE` folder those in its IMG_DATA."""
    places = [folder, *folder.glob("GRANULE/*/IMG_DATA"), *folder.glob("GRANULE/*/IMG_DATA/R??m"), *folder.glob("R??m")]
    found = []
    for place in places:
        for number, path in enumerate(place.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match is not None and path.is_file():
                band = match["band"].upper()
                found.append(_BandFile(path, match["scene"], band, int(match["number"]), match["letter"].upper()))
            if number == _MOST:
                return []
    return sorted(found, key=lambda file: (file.number, file.letter, file.band, file.path))


def _single(image: LazyImage) -> LazyImage:
    if image.shape[0] != 1:
        raise UnsupportedError(
            f"{image.path}: expected a file of one band in a scene of one file per band, got {image.shape[0]}; move it "
            "out of the folder."
        )
    return image


def _agree(first: LazyImage, other: LazyImage) -> None:
    """Refuse two bands that are not on one grid or not of one type."""
    one, two = first.georeference, other.georeference
    pair = f"{first.path.name} and {other.path.name}"
    where = f"{first.path.parent}: expected all bands"
    if (one is None) != (two is None) or (one is not None and two is not None and one.crs != two.crs):
        texts = [image.crs if image else "none" for image in (one, two)]
        raise GeometryError(f"{where} in one CRS, but {pair} have {texts[0]} and {texts[1]}; warp one to the other's.")
    off = 0.0
    if one is not None and two is not None:
        off = max(abs(a - b) for a, b in zip(one.transform, two.transform, strict=True)) / min(one.steps)
    if first.size != other.size or off > 1e-3:
        raise GeometryError(
            f"{where} on one grid, but {pair} differ: {first.size} and {other.size} pixels, "
            f"{one.transform if one else None} and {two.transform if two else None}; resample one to the other's grid."
        )
    if first.dtype != other.dtype:
        raise UnsupportedError(
            f"{where} of one type, but {pair} hold {first.dtype} and {other.dtype}; convert one, or move it out."
        )


def _common(path: Path, file: _BandFile) -> str:
    """The spectral name of a band by the sensor's numbering."""
    sensor = next((bands for start, bands in _SENSORS.items() if re.match(start, file.scene)), None)
    if sensor is None or file.number not in sensor:
        raise UnsupportedError(
            f"{path}: expected a product of Landsat 4 to 9, Sentinel-2 or HLS to name its bands, got {file.path.name}; "
            f"number them with {typed('band_files.names=number')}."
        )
    if file.letter:
        return "nir_narrow"
    name = sensor[file.number]
    gain = re.search(r"_VCID_([12])$", file.band)
    return name if gain is None else f"{name}_{'low' if gain[1] == '1' else 'high'}_gain"


def _merged(images: list[LazyImage]) -> tuple[Flag, ...]:
    """Each flag once; the files' names say what their bands are."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in images:
        for flag in image.flags:
            if flag.code != "unnamed_bands":
                found[flag.code, flag.text].append(image.path.name)
    return tuple(
        Flag(code, text if len(names) == len(images) else f"{', '.join(names)}: {text}")
        for (code, text), names in found.items()
    )


def _each(values: Iterable[T | None]) -> tuple[T | None, ...] | None:
    listed = tuple(values)
    return listed if any(value is not None for value in listed) else None


def _scaling(
    images: list[LazyImage], bands: tuple[str, ...], said: SceneMetadata
) -> tuple[tuple[float, float], ...] | None:
    """What each file says, else the scene's metadata; both, and different, is an error, for one would be wrong in silence."""
    pairs = []
    for image, band in zip(images, bands, strict=True):
        own, told = image.scaling[0] if image.scaling else None, said.scaling.get(band)
        if own is not None and told is not None and not np.allclose(own, told, rtol=1e-6, atol=0):
            raise DataError(
                f"{image.path}: its own scale and offset are {own[0]:g} and {own[1]:g}, {said.path} says {told[0]:g} and "
                f"{told[1]:g}; mend one of them, or believe the file with {typed('band_files.scale=none')}."
            )
        pairs.append(own or told)
    return tuple(pair or (1.0, 0.0) for pair in pairs) if any(pairs) else None


def _counts(bands: tuple[str, ...], said: SceneMetadata) -> list[Flag]:
    """Say which bands stay counts beside others that do not."""
    rest = [band for band in bands if band not in said.scaling]
    if said.path is None or not said.scaling or not rest:
        return []
    text = f"{said.path.name} states no scale for {', '.join(rest)}: counts, beside reflectance or kelvin."
    return [Flag("unscaled_bands", text)]
