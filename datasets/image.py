"""LazyImage: what is known of an image without reading a pixel, and the one way to read windows of it.

A reader fills the facts in and supplies a `Source`; the checks on windows are here, once for every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.bands import BandNames, align
from core.errors import BandError, DataError, HalfseenError, MissingDataError
from core.geometry import Affine, Georeference, Spacing
from core.preprocess import Window, full_scale
from datasets.content import stamp_of
from datasets.handles import let_dask_fork
from datasets.tiling import within

if TYPE_CHECKING:
    from dask.array import Array
    from xarray import DataArray


class Source(ABC):
    """How the voxels of one opened file are read. Implementations are frozen, picklable and hold no open handle."""

    @abstractmethod
    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window); the window is inside the image, start and stop given, step 1.

        `bands` are positions, not empty, in the order wanted. The array is fresh, C-contiguous and the caller's.

        Raises:
            DataError: the file cannot be decoded; the message names it and the window.
        """

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Say which voxels the file's own mask calls data, (len(bands), *window) or (1, *window) bool; None = no mask.

        Only what nodata values and NaN do not say already: a mask band, an alpha band, blocks that were never written.
        """
        return None


@dataclass(frozen=True)
class Flag:
    """Something unusual that a reader accepted and that whoever owns the file should know.

    Attributes:
        code: a short word for machines, such as `unnamed_bands`.
        text: one sentence for people.
    """

    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class LazyImage:
    """One image on disk; nothing of it is decoded until `read`. Cheap to pickle and safe in any process or thread.

    Attributes:
        path: the file, or the folder of a store or of a scene in several files.
        shape: (C, Y, X) or (C, Z, Y, X).
        dtype: of what `read` returns, native byte order.
        bands: the C channel names; `band_1`, `band_2`, ... where the file names none.
        spacing: distance between voxels, array order.
        affine: voxel-to-world matrix of a volume; None where no world is known.
        georeference: CRS and geotransform of a scene; None where there is none.
        chunks: the spatial shape that costs as much as one voxel: the whole image, or less where windows are cheap.
        source: what reads it.
        nodata: per band, the raw value that means "not measured"; None = none. NaN and infinity never are data.
        scaling: per band (scale, offset) with physical value = raw * scale + offset; None = raw values are the values.
        units: per band, the unit of the physical value; None = the file does not say.
        levels: spatial sizes of the resolutions that the file holds, finest first; a reader's `level` picks one.
        level: which of them this image is.
        flags: what the reader accepted although it is unusual.
        time: when it was taken, as `times.as_time` writes it; None = the file does not say.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    bands: BandNames
    spacing: Spacing
    affine: Affine | None = None
    georeference: Georeference | None = None
    chunks: tuple[int, ...]
    source: Source
    nodata: tuple[float | None, ...] | None = None
    scaling: tuple[tuple[float, float], ...] | None = None
    units: tuple[str | None, ...] | None = None
    levels: tuple[tuple[int, ...], ...] = ()
    level: int = 0
    flags: tuple[Flag, ...] = ()
    time: str | None = None

    @property
    def ndim(self) -> int:
        """Spatial axes: 2 or 3."""
        return len(self.shape) - 1

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.shape[1:]

    @property
    def full_scale(self) -> float:
        """The raw value that means 1.0: 255, 65535, or 1 where the type or a scaling says what values mean."""
        return full_scale(self.dtype) if self.scaling is None else 1.0

    @property
    def windowed(self) -> bool:
        """True when reading a window costs less than reading everything."""
        return self.chunks != self.size

    def read(self, window: Window | None = None, bands: Sequence[str] | None = None) -> np.ndarray:
        """Read a window of spatial slices, or everything: (C, *window) raw values, equal to that slice of a full read.

        `bands` picks by name, in the order given; None = all.

        Raises:
            DataError: the window is not inside the image (padding is the caller's decision: `core.preprocess.cut`), or
                the file cannot be decoded.
            MissingDataError: the file is gone.
            BandError: a band that the image does not have.
        """
        box, positions = self._inside(window), self._positions(bands)
        with self._explained():
            return self.source.read(box, positions)

    def read_valid(
        self, window: Window | None = None, bands: Sequence[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read as `read` does, and say what of it is measured data: two arrays (C, *window), the second bool.

        Not data are: NaN and infinity, the band's nodata value, and what the file's own mask excludes.
        """
        box, positions = self._inside(window), self._positions(bands)
        with self._explained():
            voxels, mask = self.source.read(box, positions), self.source.measured(box, positions)
        valid = np.isfinite(voxels) if voxels.dtype.kind == "f" else np.ones(voxels.shape, dtype=bool)
        for row, position in enumerate(positions if self.nodata is not None else ()):
            value = self.nodata[position] if self.nodata is not None else None
            if value is not None and value == value:  # NaN as nodata is covered by isfinite
                valid[row] &= voxels[row] != value
        if mask is not None:
            valid &= mask
        return voxels, valid

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the system refuses, such as a file that is gone, becomes a sentence; readers name what is wrong in a file."""
        try:
            yield
        except HalfseenError:
            raise
        except FileNotFoundError:
            raise MissingDataError(f"expected an image, but {self.path} does not exist any more.") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}); check the storage.") from None

    def _positions(self, bands: Sequence[str] | None) -> tuple[int, ...]:
        if bands is None:
            return tuple(range(self.shape[0]))
        try:
            order = align(self.bands, tuple(bands))
        except BandError as error:
            raise BandError(f"{self.path}: {error}") from None
        return tuple(range(self.shape[0])) if order is None else tuple(order)

    def _inside(self, window: Window | None) -> Window:
        if window is None:
            return tuple(slice(0, n) for n in self.size)
        inside = within(window, self.size)
        if inside is not None:
            return inside
        raise DataError(
            f"{self.path}: expected a window of {self.ndim} slices with step 1 inside {self.size}, got {window}; "
            "read inside the image and pad the result."
        )

    def dask(self) -> Array:
        """Give the image as a lazy dask array (C, *S) in `chunks`; for people, notebooks and batch jobs."""
        import dask.array as da
        from dask.base import tokenize

        let_dask_fork()
        lazy: Array = da.from_array(
            _Sliceable(self),
            chunks=(self.shape[0], *self.chunks),
            # Dask takes arrays of one name for one array: all that decides the voxels is in it.
            name=f"halfseen-{tokenize(self, stamp_of(self.path))}",
            asarray=False,
            meta=np.empty((0,) * len(self.shape), dtype=self.dtype),
        )
        return lazy

    def xarray(self) -> DataArray:
        """Give the image as a lazy, labelled xarray: `band` by name, and y, x (and z) in world units where known.

        A scene's coordinates are pixel centres in its CRS, whose text is in `attrs["crs"]`; a volume's are mm along the
        array axes from its first voxel, and `attrs["affine"]` places them. Rotated scenes have no coordinates.

        Raises:
            MissingDataError: xarray is not installed.
        """
        return _labelled(self)


@dataclass(frozen=True)
class _Sliceable:
    """What dask wants of an array: shape, dtype, ndim and basic slicing."""

    image: LazyImage

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    @property
    def dtype(self) -> np.dtype:
        return self.image.dtype

    @property
    def ndim(self) -> int:
        return len(self.image.shape)

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        bands, *window = index
        ranges = [part.indices(n) for part, n in zip(window, self.image.size, strict=True)]
        box = tuple(slice(start, stop) for start, stop, _ in ranges)
        steps = tuple(slice(None, None, step) for _, _, step in ranges)
        if any(part.start >= part.stop for part in box):
            shape = (self.image.shape[0], *(max(0, part.stop - part.start) for part in box))
            empty: np.ndarray = np.empty(shape, dtype=self.image.dtype)[bands]
            return empty
        cut: np.ndarray = self.image.read(box)[(bands, *steps)]
        return cut


def _labelled(image: LazyImage) -> DataArray:
    try:
        import xarray
    except ImportError:
        raise MissingDataError("LazyImage.xarray needs xarray: pip install 'halfseen[xarray]'.") from None
    attributes: dict[str, Any] = {"unit": image.spacing.unit}
    if image.affine is not None:
        attributes["affine"] = image.affine.matrix.tolist()
    if image.georeference is not None:
        attributes |= {"crs": image.georeference.crs, "transform": image.georeference.transform}
    for name in ("nodata", "scaling", "units"):
        if getattr(image, name) is not None:
            attributes[name] = getattr(image, name)
    axes = "zyx"[-image.ndim :]
    coordinates: dict[str, Any] = {"band": list(image.bands), **_coordinates(image, axes)}
    return xarray.DataArray(
        image.dask(), dims=("band", *axes), coords=coordinates, name=image.path.stem, attrs=attributes
    )


def _coordinates(image: LazyImage, axes: str) -> dict[str, np.ndarray]:
    if image.georeference is None:
        steps = zip(axes, image.size, image.spacing.values, strict=True)
        return {axis: np.arange(n) * step for axis, n, step in steps}
    a, b, c, d, e, f = image.georeference.transform
    if b or d:
        return {}
    height, width = image.size
    return {"y": f + e * (np.arange(height) + 0.5), "x": c + a * (np.arange(width) + 0.5)}
