"""NIfTI-1 and -2 volumes (`.nii`, `.nii.gz`): checked headers, canonical RAS+ orientation, array order (Z, Y, X).

Whatever orientation a file is stored in, its voxels arrive as z to superior, y to anterior, x to right. Uncompressed
files are read by window; a `.nii.gz` is inflated to its very end, because only there its checksum is verified (readers
that stop at the last voxel returned wrong voxels for 82 of 100 single-bit flips).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from core.errors import BandError, DamagedError, UnsupportedError
from core.geometry import Spacing
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers import _gzip, _nifti_header
from datasets.readers._orientation import Orientation, canonical
from datasets.readers._typed import typed
from datasets.readers.base import Reader

_SLACK = 1 << 20  # bytes allowed after the last voxel
_HEAD = 4096  # bytes of content that are looked at: the header, and whether extensions follow it


@dataclass(frozen=True)
class Nifti(Reader):
    """Reads a NIfTI volume as one band, "intensity"; integers stay integers unless the header scales them.

    Attributes:
        max_bytes: refuse volumes whose header declares more, before anything is allocated.
        affine: `agree`: use sform or qform, and refuse the file when both are set and differ, or when none is;
            `sform` / `qform`: use that one whatever the other says; `spacing`: the header's orientation is unknown or
            wrong, take the axes as they are stored for (x, y, z) RAS+ and only their voxel sizes from the header.
        fourth_axis: what a file of several volumes is: `refuse`: nothing that is read; `bands`: one image whose bands
            they are; `first`: its first volume (the file is flagged).
        bands: names of the bands; () = "intensity", or band_1, band_2, ... where the fourth axis makes several.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")
    max_bytes: int = 4 << 30
    affine: Literal["agree", "sform", "qform", "spacing"] = "agree"
    fourth_axis: Literal["refuse", "bands", "first"] = "refuse"
    bands: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is NIfTI or a relative, plain or in gzip (looked into when it is opened)."""
        return head.startswith(_gzip.MAGIC) or _nifti_header.looks_like(head)

    def open(self, path: Path) -> LazyImage:
        """Read and check the header.

        Raises:
            DamagedError: it ends early, contradicts itself or the file's length.
            BudgetError: it declares more than `max_bytes`.
            GeometryError: its orientation or voxel sizes cannot be trusted.
            UnsupportedError: no volume of numbers, header and voxels in two files, or a fourth axis without a policy.
            BandError: `bands` are not as many as the image has.
        """
        head, gzip_texts = _read_head(path)
        header = _nifti_header.parse(path, head)
        dimensions, stored = _nifti_header.dimensions(path, header), _nifti_header.voxel_type(path, header)
        volumes, flags = self._volumes(path, dimensions)
        shape = (dimensions[0], dimensions[1], dimensions[2])
        offset = _nifti_header.offset(path, header)
        declared = math.prod(dimensions) * stored.itemsize + offset
        zipped = gzip_texts is not None
        _nifti_header.check_length(path, declared, zipped, self.max_bytes)
        slope, intercept = _nifti_header.scaling(path, header)
        affine, more = _nifti_header.world(path, header, shape, self.affine)
        orientation, placed = canonical(affine, shape, source=str(path))
        size = orientation.size(shape)
        spacing = Spacing(tuple(round(v, 6) for v in placed.spacing.values), "mm")
        flags += more + _nifti_header.anisotropic(spacing.values)
        flags += _nifti_header.texts(header, head, offset, gzip_texts or [])
        dtype = _scaled_type(stored, slope, intercept)
        # On disk x runs fastest: the planes of the slowest stored axis are contiguous.
        chunks = size if zipped else orientation.size((shape[0], shape[1], 1))
        return LazyImage(
            path=path,
            shape=(volumes, *size),
            dtype=dtype,
            bands=self._names(path, volumes),
            spacing=spacing,
            affine=placed,
            chunks=chunks,
            source=NiftiSource(
                path, zipped, offset, declared, stored.str, volumes, shape, orientation, slope, intercept, dtype.str
            ),
            flags=tuple(flags),
        )

    def _volumes(self, path: Path, dimensions: tuple[int, ...]) -> tuple[int, list[Flag]]:
        """How many of the file's volumes are read."""
        if len(dimensions) == 3:
            return 1, []
        count = dimensions[3]
        if self.fourth_axis == "refuse":
            raise UnsupportedError(
                f"{path}: expected a 3D volume, got 4D {dimensions}; split it into one file per volume, or say what the "
                f"fourth axis is: {typed('nifti.fourth_axis=bands')}, or first to read the first volume alone."
            )
        if self.fourth_axis == "first":
            return 1, [Flag("first_volume", f"it holds {count} volumes, of which only the first is read")]
        flag = Flag(
            "unnamed_bands", f"its {count} volumes are bands without names; name them: {typed('nifti.bands=[...]')}"
        )
        return count, [] if self.bands else [flag]

    def _names(self, path: Path, volumes: int) -> tuple[str, ...]:
        default = ("intensity",) if volumes == 1 else tuple(f"band_{n + 1}" for n in range(volumes))
        names = self.bands or default
        if len(names) != volumes or len(set(names)) != len(names):
            raise BandError(
                f"{path}: expected {volumes} different band names, got {len(names)} {tuple(names)}; mend "
                f"{typed('nifti.bands=[...]')}."
            )
        return tuple(names)


@dataclass(frozen=True)
class NiftiSource(Source):
    """Where the voxels are in the file, and how stored axes become (Z, Y, X).

    Attributes:
        path: the file.
        zipped: whether it is gzip.
        offset: bytes before the first voxel.
        declared: bytes of content that the header promises.
        stored: numpy type string of the voxels on disk.
        count: volumes that are read.
        shape: voxels along the stored axes (i, j, k), i fastest.
        orientation: how these become Z, Y and X.
        slope: value = slope * stored + intercept.
        intercept: see slope.
        dtype: numpy type string of what `read` returns.
    """

    path: Path
    zipped: bool
    offset: int
    declared: int
    stored: str
    count: int
    shape: tuple[int, int, int]
    orientation: Orientation
    slope: float
    intercept: float
    dtype: str

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window); a plain file is mapped for this call only, so no handle crosses a fork."""
        parts = self.orientation.stored(window, self.shape)
        cuts = [self.orientation.turn(volume.transpose()[parts]) for volume in self._volumes()]
        if self.zipped and len(cuts) == 1 and self._is_whole(cuts[0]):
            return cuts[0][None]
        out = np.empty((len(bands), *cuts[0].shape), dtype=self.dtype)
        for row, band in zip(out, bands, strict=True):
            row[...] = cuts[band] if (self.slope, self.intercept) == (1.0, 0.0) else self._scaled(cuts[band])
        return out

    def _volumes(self) -> np.ndarray:
        """All of it as it is stored, (n, k, j, i)."""
        dtype, shape = np.dtype(self.stored), (self.count, *self.shape[::-1])
        if not self.zipped:
            try:
                return np.memmap(self.path, dtype=dtype, mode="r", offset=self.offset, shape=shape)
            except (OSError, ValueError) as error:
                raise DamagedError(
                    f"{self.path}: expected a whole volume, but it cannot be read ({error}); copy it again."
                ) from None
        keep = self.offset + math.prod(shape) * dtype.itemsize
        content = _gzip.inflate(self.path, keep, self.declared, _SLACK)
        return content[self.offset :].view(dtype).reshape(shape)

    def _is_whole(self, cut: np.ndarray) -> bool:
        """Say whether the inflated buffer already is the answer, so that no copy is needed."""
        unscaled = (self.slope, self.intercept) == (1.0, 0.0) and cut.dtype.str == self.dtype
        return unscaled and cut.size == math.prod(self.shape) and bool(cut.flags.c_contiguous and cut.flags.aligned)

    def _scaled(self, voxels: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves the type is infinite, which never is data
            scaled: np.ndarray = (voxels.astype(np.float64) * self.slope + self.intercept).astype(self.dtype)
        return scaled


def _scaled_type(stored: np.dtype, slope: float, intercept: float) -> np.dtype:
    """The type of the values: as stored where unscaled, else float32 if that holds them, else float64."""
    if (slope, intercept) == (1.0, 0.0):
        return stored.newbyteorder("=")
    largest = 0.0 if stored.kind == "f" else float(np.iinfo(stored).max) + 1
    wide = stored.itemsize > 4 or (stored.itemsize == 4 and stored.kind != "f")
    wide = wide or largest * abs(slope) + abs(intercept) > float(np.finfo(np.float32).max)
    return np.dtype(np.float64 if wide else np.float32)


def _read_head(path: Path) -> tuple[bytes, list[str] | None]:
    """The first bytes of the content, and the text fields of a gzip header; None = plain."""
    with path.open("rb") as file:
        raw = file.read(65_536)
    if not raw.startswith(_gzip.MAGIC):
        return raw[:_HEAD], None
    return _gzip.head(path, raw, _HEAD), _gzip.texts(raw, path)
