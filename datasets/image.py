"""LazyImage: what is known of an image without reading a pixel, and the one way to read windows of it.

A reader fills the facts in and supplies a `Source`; the checks on windows are here, once for every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.bands import BandNames
from core.errors import DataError
from core.geometry import Affine, Spacing
from core.preprocess import Window, full_scale

if TYPE_CHECKING:
    from dask.array import Array


class Source(ABC):
    """How the voxels of one opened file are read. Implementations are frozen, picklable and hold no open handle."""

    @abstractmethod
    def read(self, window: Window) -> np.ndarray:
        """Read (C, *window); the window is inside the image, start and stop given, step 1. The array is the caller's.

        Raises:
            DataError: the file cannot be decoded; the message names it.
        """


@dataclass(frozen=True, kw_only=True)
class LazyImage:
    """One image on disk; nothing of it is decoded until `read`. Cheap to pickle and safe in any process or thread.

    Attributes:
        path: the file.
        shape: (C, Y, X) or (C, Z, Y, X).
        dtype: of what `read` returns, native byte order.
        bands: the C channel names.
        spacing: distance between voxels, array order.
        affine: voxel-to-world matrix of a volume; None where no world is known.
        chunks: the spatial shape that costs as much as one voxel: the whole image, or less where windows are cheap.
        source: what reads it.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    bands: BandNames
    spacing: Spacing
    affine: Affine | None
    chunks: tuple[int, ...]
    source: Source

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
        """The raw value that means 1.0: 255, 65535, or 1 where the type has no scale of its own."""
        return full_scale(self.dtype)

    @property
    def windowed(self) -> bool:
        """True when reading a window costs less than reading everything."""
        return self.chunks != self.size

    def read(self, window: Window | None = None) -> np.ndarray:
        """Read a window of spatial slices, or everything: (C, *window), equal to that slice of a full read.

        Raises:
            DataError: the window is not inside the image (padding is the caller's decision: `core.preprocess.cut`), or
                the file cannot be decoded.
        """
        whole = tuple(slice(0, n) for n in self.size)
        return self.source.read(whole if window is None else self._inside(window))

    def _inside(self, window: Window) -> Window:
        ranges = []
        for part, n in zip(window, self.size, strict=False):
            start, stop = part.start or 0, n if part.stop is None else part.stop
            ranges.append(slice(start, stop))
            if part.step not in (None, 1) or not 0 <= start < stop <= n:
                break
        else:
            if len(window) == self.ndim:
                return tuple(ranges)
        raise DataError(
            f"{self.path}: expected a window of {self.ndim} slices with step 1 inside {self.size}, got {window}; "
            "read inside the image and pad the result."
        )

    def dask(self) -> Array:
        """Give the image as a lazy dask array (C, *S) in `chunks`; for people, notebooks and batch jobs."""
        import dask.array as da

        stat = self.path.stat()
        lazy: Array = da.from_array(
            _Sliceable(self),
            chunks=(self.shape[0], *self.chunks),
            name=f"halfseen-{self.path}-{stat.st_size}-{stat.st_mtime_ns}",
            asarray=False,
            meta=np.empty((0,) * len(self.shape), dtype=self.dtype),
        )
        return lazy


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
