"""How windows of a Zarr image are read once it is opened: its axes put in order, its mask, and zarr-python as the last resort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DamagedError, DataError
from core.preprocess import Window
from datasets.image import LazyImage, Source
from datasets.readers._shards import Pick, StoredArray, check_budget
from datasets.readers._zarr_nodes import missing_files


@dataclass(frozen=True)
class LibraryArray:
    """An array whose codecs only zarr-python knows; it is opened anew for each window, so nothing crosses a fork."""

    store: Path
    folder: Path
    shape: tuple[int, ...]
    max_bytes: int

    def read(self, picks: tuple[Pick, ...]) -> np.ndarray:
        """Read a window, one pick per axis.

        Raises:
            DamagedError: zarr-python cannot; the message says why.
        """
        import zarr

        shape = tuple(p.stop - p.start if isinstance(p, slice) else len(p) for p in picks)
        try:
            array = zarr.open_array(self.folder, mode="r")
            check_budget(self.store, shape, array.chunks, np.dtype(array.dtype), self.max_bytes)
            voxels = array.oindex[tuple(p if isinstance(p, slice) else np.array(p) for p in picks)]
        except DataError:
            raise
        except Exception as error:  # a codec may raise anything over damaged bytes
            raise DamagedError(
                f"{self.store}: {self.folder.name} cannot be decoded ({type(error).__name__}: {error}) reading {picks}; copy "
                "the store again."
            ) from None
        return np.asarray(voxels)


@dataclass(frozen=True)
class ZarrSource(Source):
    """Reads windows of one array, and of its mask where there is one.

    Attributes:
        array: the voxels.
        dtype: numpy type string of what is returned.
        letters: the array's axes in their order, of `tczyx`.
        spatial: the axes of the image, `yx` or `zyx`.
        time: position on the axis t.
        mask: the array `valid` of a prepared store.
    """

    array: StoredArray | LibraryArray
    dtype: str
    letters: str
    spatial: str
    time: int
    mask: StoredArray | None

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window); of other bands only what shares a chunk with them."""
        picks: dict[str, Pick] = {"t": slice(self.time, self.time + 1), "z": slice(0, 1), "c": _run(bands)}
        picks |= dict(zip(self.spatial, window, strict=True))
        wanted = tuple(picks[letter] for letter in self.letters)
        voxels = self.array.read(wanted)
        shape = (len(bands), *(part.stop - part.start for part in window))
        order = [self.letters.index(axis) for axis in ("c" + self.spatial) if axis in self.letters]
        rest = [axis for axis in range(len(self.letters)) if axis not in order]  # of length 1
        if [*rest, *order] != list(range(len(self.letters))):
            voxels = voxels.transpose([*rest, *order])
        voxels = np.ascontiguousarray(voxels.reshape(shape))
        wanted_type = np.dtype(self.dtype)
        return voxels.view(np.uint8) if voxels.dtype.kind == "b" else voxels.astype(wanted_type, copy=False)

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Read what the array `valid` says, one for all bands or one per band."""
        if self.mask is None:
            return None
        one = self.mask.facts.shape[0] == 1
        return self.mask.read((slice(0, 1) if one else _run(bands), *window))


def _run(bands: tuple[int, ...]) -> Pick:
    """A slice where the positions follow one another, which decodes straight into the result."""
    first = bands[0]
    return slice(first, first + len(bands)) if bands == tuple(range(first, first + len(bands))) else bands


def missing_chunks(image: LazyImage) -> tuple[int, int] | None:
    """Count the chunk files that an opened foreign store lacks, of how many; None where nobody can tell.

    Their voxels read as the store's fill value, by the Zarr specification: an all-background chunk is often not written.
    """
    source = image.source
    if not isinstance(source, ZarrSource) or not isinstance(source.array, StoredArray):
        return None
    return missing_files(source.array.folder, source.array.facts)
