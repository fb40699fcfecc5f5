"""Scenes whose bands are spread over named files, as a STAC item describes them: one or more GeoTIFFs are one image.

Which files, and what their bands are called, is said by options alone, which `datasets.stac` writes and a manifest keeps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from core.errors import BandError, ConfigError, DataError, GeometryError, UnsupportedError
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers.base import Reader
from datasets.readers.geotiff import GeoTiff
from datasets.safety import inside

T = TypeVar("T")


@dataclass(frozen=True)
class AssetFiles(Reader):
    """Reads named GeoTIFFs of one grid as one image; without `files` it recognises nothing.

    Of several resolutions that of most bands is read, and a flag says what was left out.

    Attributes:
        files: of each band the file that holds it, relative to the folder, or the name of the file itself where the image
            is one file; a file of several bands is named once for each, in its own order.
        bands: the names of the bands.
        nodata: per band the value that means "not measured"; "" = what the file says. () = every file says it.
        scaling: per band "SCALE OFFSET"; "" = what the file says. () = every file says it.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    files: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    nodata: tuple[str, ...] = ()
    scaling: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("bands", "nodata", "scaling"):
            values = getattr(self, name)
            if len(values) != len(self.files) and (values or name == "bands"):
                raise ConfigError(f"expected `{name}` for each of {len(self.files)} `files`, got {len(values)}.")
        twice = [name for name, count in Counter(self.bands).items() if count > 1]
        if twice:
            raise ConfigError(f"expected each band once, but '{twice[0]}' occurs twice; rename one.")
        _numbers(self.nodata, 1)
        _numbers(self.scaling, 2)

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the files that were named are there."""
        if not self.files:
            return False
        if path.is_dir():
            return all((path / name).is_file() for name in self.files)
        return set(self.files) == {path.name}

    def open(self, path: Path) -> LazyImage:
        """Read the header of every file.

        Raises:
            UnsafeError: a file is not inside the folder, links followed.
            BandError: a file holds more or fewer bands than are named.
            GeometryError: files of one resolution lie on different grids, or in different CRS.
            UnsupportedError: files hold different types.
            DataError: a file cannot be opened (see GeoTiff), or states another nodata value or scaling.
        """
        folder = path if path.is_dir() else path.parent
        opened = {name: self._opened(folder, name) for name in dict.fromkeys(self.files)}
        kept, left_out = self._one_resolution(opened)
        images = list(kept.values())
        for image in images[1:]:
            _agree(images[0], image)
        first, names = images[0], list(kept)
        rows = [row for row, file in enumerate(self.files) if file in kept]
        places = tuple((names.index(self.files[row]), self.files[:row].count(self.files[row])) for row in rows)
        nodata = tuple(self._nodata(row, images[file], place) for row, (file, place) in zip(rows, places, strict=True))
        scaling = tuple(
            self._scaling(row, images[file], place) for row, (file, place) in zip(rows, places, strict=True)
        )
        units = tuple(_at(images[file].units, place) for file, place in places)
        return LazyImage(
            path=path,
            shape=(len(rows), *first.size),
            dtype=first.dtype,
            bands=tuple(self.bands[row] for row in rows),
            spacing=first.spacing,
            georeference=first.georeference,
            chunks=tuple(max(sides) for sides in zip(*(image.chunks for image in images), strict=True)),
            source=AssetsSource(tuple(image.source for image in images), places, first.dtype),
            nodata=nodata if any(value is not None for value in nodata) else None,
            scaling=scaling if any(pair != (1.0, 0.0) for pair in scaling) else None,
            units=units if any(units) else None,
            levels=first.levels[:1],
            flags=(*_flags(images), *self._left_out(left_out)),
        )

    def _one_resolution(self, opened: dict[str, LazyImage]) -> tuple[dict[str, LazyImage], dict[str, LazyImage]]:
        """The files of the pixel size that most bands have, of two equally many the finer; and the others."""
        sizes = {name: round(image.spacing.values[0], 3) for name, image in opened.items()}
        times = Counter(sizes[name] for name in self.files)
        wanted = max(times, key=lambda size: (times[size], -size))
        kept = {name: image for name, image in opened.items() if sizes[name] == wanted}
        return kept, {name: image for name, image in opened.items() if name not in kept}

    def _left_out(self, images: dict[str, LazyImage]) -> tuple[Flag, ...]:
        bands = [(band, images[file]) for band, file in zip(self.bands, self.files, strict=True) if file in images]
        if not bands:
            return ()
        text = ", ".join(f"{band} ({image.spacing.values[0]:g} {image.spacing.unit})" for band, image in bands)
        return (
            Flag(
                "other_resolution",
                f"Left out, because of their resolution: {text}; resample them, or take the role `data` from the other bands.",
            ),
        )

    def _nodata(self, row: int, image: LazyImage, place: int) -> float | None:
        """What the item says, as a value that a voxel can have, else the file; both, and different, is an error."""
        own = _at(image.nodata, place)
        said = self.nodata[row] if self.nodata else ""
        if not said:
            return own
        if own is not None and own == own and not np.isclose(own, float(said), rtol=1e-6, atol=0):
            raise DataError(
                f"{image.path}: it calls {own:g} not measured, the STAC item says {said}; mend one of them."
            )
        if image.dtype.kind in "iu" and not _fits(float(said), image.dtype):
            raise DataError(
                f"{image.path}: the STAC item calls {said} not measured, which cannot occur in {image.dtype} voxels; mend "
                "the item."
            )
        return float(said)

    def _scaling(self, row: int, image: LazyImage, place: int) -> tuple[float, float]:
        """What the item says, else the file; both, and different, is an error, for one would be wrong in silence."""
        own = image.scaling[place] if image.scaling is not None else (1.0, 0.0)
        said = self.scaling[row] if self.scaling else ""
        if not said:
            return own
        scale, offset = map(float, said.split())
        if own != (1.0, 0.0) and not np.allclose(own, (scale, offset), rtol=1e-6, atol=0):
            raise DataError(
                f"{image.path}: its own scale and offset are {own[0]:g} and {own[1]:g}, the STAC item says {scale:g} and "
                f"{offset:g}; mend one of them."
            )
        return scale, offset

    def _opened(self, folder: Path, name: str) -> LazyImage:
        image = GeoTiff().open(inside(folder, folder / name))
        named = [band for band, file in zip(self.bands, self.files, strict=True) if file == name]
        if image.shape[0] != len(named):
            raise BandError(
                f"{image.path}: expected {len(named)} bands ({', '.join(named)}), got {image.shape[0]}; name each in the "
                "STAC item (`bands`, or `eo:bands`), in the file's order."
            )
        return image


@dataclass(frozen=True)
class AssetsSource(Source):
    """Reads each band from the file that holds it; `places` are (file, band in it)."""

    parts: tuple[Source, ...]
    places: tuple[tuple[int, int], ...]
    dtype: np.dtype

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read the wanted files only, each once."""
        voxels = np.empty((len(bands), *(part.stop - part.start for part in window)), dtype=self.dtype)
        for part, rows in self._by_file(bands).items():
            voxels[rows] = self.parts[part].read(window, tuple(self.places[bands[row]][1] for row in rows))
        return voxels

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Join the files' own masks; a file without one calls everything measured."""
        valid = np.ones((len(bands), *(part.stop - part.start for part in window)), dtype=bool)
        masked = False
        for part, rows in self._by_file(bands).items():
            mask = self.parts[part].measured(window, tuple(self.places[bands[row]][1] for row in rows))
            if mask is not None:
                valid[rows], masked = mask, True
        return valid if masked else None

    def _by_file(self, bands: tuple[int, ...]) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for row, band in enumerate(bands):
            rows.setdefault(self.places[band][0], []).append(row)
        return rows


def _numbers(texts: tuple[str, ...], count: int) -> None:
    for text in texts:
        try:
            good = not text or (
                len(text.split()) == count and np.isfinite([float(part) for part in text.split()]).all()
            )
        except ValueError:
            good = False
        if not good:
            raise ConfigError(f"expected {count} finite number{'s' * (count > 1)} or nothing for a band, got '{text}'.")


def _at(values: tuple[T | None, ...] | None, place: int) -> T | None:
    return None if values is None else values[place]


def _fits(value: float, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return value.is_integer() and int(limits.min) <= int(value) <= int(limits.max)


def _agree(first: LazyImage, other: LazyImage) -> None:
    """Refuse two files that are not on one grid or not of one type."""
    one, two = first.georeference, other.georeference
    pair = f"{first.path} and {other.path.name}"
    if (one.crs if one else None) != (two.crs if two else None):
        raise GeometryError(
            f"{pair}: expected one CRS, got {one.crs if one else 'none'} and {two.crs if two else 'none'}; warp one to "
            "the other's."
        )
    off = 0.0
    if one is not None and two is not None:
        off = max(abs(a - b) for a, b in zip(one.transform, two.transform, strict=True)) / min(one.steps)
    if first.size != other.size or off > 1e-3:
        raise GeometryError(
            f"{pair}: expected one grid, got {first.size} and {other.size} pixels of {first.spacing.values[0]:g} and "
            f"{other.spacing.values[0]:g} {first.spacing.unit}; resample one to the other's grid."
        )
    if first.dtype != other.dtype:
        raise UnsupportedError(f"{pair}: expected one type, got {first.dtype} and {other.dtype}; convert one.")


def _flags(images: list[LazyImage]) -> tuple[Flag, ...]:
    """Each flag once; the item says what the bands are."""
    found = {(flag.code, flag.text): flag for image in images for flag in image.flags if flag.code != "unnamed_bands"}
    return tuple(found.values())
