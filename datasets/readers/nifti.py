"""NIfTI-1 and -2 volumes (`.nii`, `.nii.gz`): checked headers, canonical RAS+ orientation, array order (Z, Y, X).

Whatever orientation a file is stored in, its voxels arrive as z to superior, y to anterior, x to right. Uncompressed
files are read by window; a `.nii.gz` is inflated to its very end, because only there its checksum is verified (readers
that stop at the last voxel returned wrong voxels for 82 of 100 single-bit flips).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from core.errors import DataError
from core.geometry import Affine, Spacing
from core.preprocess import Window
from datasets.image import LazyImage, Source
from datasets.readers.base import Reader

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_KINDS = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units of space: unknown (mm by convention), m, mm, micron
_TOLERANCE_MM = 1e-3  # headers carry rounding of about 1e-6 mm; a wrong flip or axis moves corners by millimetres
_SLACK = 1 << 20  # bytes allowed after the last voxel


@dataclass(frozen=True)
class Nifti(Reader):
    """Reads 3D NIfTI volumes as one band, ("intensity",).

    Attributes:
        max_bytes: refuse volumes whose header declares more, before anything is allocated.
        affine: `agree`: use sform or qform, and refuse the file when both are set and differ, or when none is;
            `sform` / `qform`: use that one whatever the other says; `spacing`: the header's orientation is unknown or
            wrong, take the axes as they are stored for (x, y, z) RAS+ and only their voxel sizes from the header.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")
    max_bytes: int = 4 << 30
    affine: Literal["agree", "sform", "qform", "spacing"] = "agree"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is NIfTI, plain or in gzip (whose content is checked when it is opened)."""
        return head.startswith(b"\x1f\x8b") or _magic(head) is not None

    def open(self, path: Path) -> LazyImage:
        """Read and check the header.

        Raises:
            DataError: it is damaged, beyond the budget, not 3D, or its geometry cannot be trusted.
        """
        head, zipped = _head(path)
        header = _parse(path, head)
        shape = _shape(path, header)
        stored = header.get_data_dtype()
        if stored.str[1:] not in _KINDS:
            raise DataError(f"{path}: expected whole or real numbers, got voxels of type {stored}; convert the volume.")
        offset = _offset(path, header, len(head))
        _check_length(path, math.prod(shape) * stored.itemsize + offset, zipped, self.max_bytes)
        slope, intercept = _scaling(path, header)
        affine = _affine(path, header, shape, self.affine)
        axes, flips, canonical = _canonical(affine, shape)
        size = tuple(shape[axis] for axis in axes)
        scaled = (slope, intercept) != (1.0, 0.0)
        wide = stored.itemsize > 4 or (stored.itemsize == 4 and stored.kind != "f")
        dtype = np.dtype(np.float64 if wide else np.float32) if scaled else stored.newbyteorder("=")
        # On disk x runs fastest: the planes of the slowest stored axis are contiguous.
        chunks = size if zipped else tuple(1 if axis == 2 else n for axis, n in zip(axes, size, strict=True))
        return LazyImage(
            path=path,
            shape=(1, *size),
            dtype=dtype,
            bands=("intensity",),
            spacing=Spacing(tuple(round(v, 6) for v in canonical.spacing.values), "mm"),
            affine=canonical,
            chunks=chunks,
            source=NiftiSource(path, zipped, offset, stored.str, shape, axes, flips, slope, intercept, dtype.str),
        )


@dataclass(frozen=True)
class NiftiSource(Source):
    """Where the voxels are in the file, and how stored axes become (Z, Y, X).

    Attributes:
        path: the file.
        zipped: whether it is gzip.
        offset: bytes before the first voxel.
        stored: numpy type string of the voxels on disk.
        shape: voxels along the stored axes (i, j, k), i fastest.
        axes: which stored axis becomes Z, Y and X.
        flips: whether each of Z, Y, X runs against its stored axis.
        slope: value = slope * stored + intercept.
        intercept: see slope.
        dtype: numpy type string of what `read` returns.
    """

    path: Path
    zipped: bool
    offset: int
    stored: str
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    slope: float
    intercept: float
    dtype: str

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (1, *window); a plain file is mapped for this call only, so no handle crosses a fork."""
        voxels = self._voxels()  # (k, j, i)
        order = [2 - axis for axis in self.axes]
        parts = []
        for part, axis, flip in zip(window, self.axes, self.flips, strict=True):
            n = self.shape[axis]
            parts.append(slice(n - part.stop, n - part.start) if flip else part)
        cut = voxels.transpose(order)[tuple(parts)]
        cut = cut[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        if (self.slope, self.intercept) != (1.0, 0.0):
            cut = cut.astype(np.float64) * self.slope + self.intercept
        return np.array(cut, dtype=self.dtype, order="C")[None]

    def _voxels(self) -> np.ndarray:
        count = math.prod(self.shape)
        dtype = np.dtype(self.stored)
        shape = self.shape[::-1]
        if not self.zipped:
            try:
                return np.memmap(self.path, dtype=dtype, mode="r", offset=self.offset, shape=shape)
            except (OSError, ValueError) as error:
                raise DataError(f"{self.path}: expected a whole volume, but it cannot be read ({error}).") from None
        data = _inflate(self.path, self.offset + count * dtype.itemsize)
        return np.frombuffer(data, dtype=dtype, count=count, offset=self.offset).reshape(shape)


def _magic(head: bytes) -> int | None:
    """Size of the header of a single-file NIfTI-1 (348) or NIfTI-2 (540), or None."""
    if head[344:348] == b"n+1\0":
        return 348
    return 540 if head[4:8] == b"n+2\0" else None


def _head(path: Path) -> tuple[bytes, bool]:
    """The first 544 bytes of the content, and whether the file is gzip."""
    with path.open("rb") as file:
        raw = file.read(65_536)
    if not raw.startswith(b"\x1f\x8b"):
        return raw[:544], False
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, 544), True
    except zlib.error as error:
        raise DataError(f"{path}: expected a .nii.gz volume, but it cannot be inflated ({error}); copy it.") from None


def _parse(path: Path, head: bytes) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    size = _magic(head)
    if size is None or len(head) < size:
        raise DataError(
            f"{path}: expected a NIfTI volume (.nii or .nii.gz, header and voxels in one file), but its content is "
            "another or ends within the header; copy it again or convert it."
        )
    kind = Nifti1Header if size == 348 else Nifti2Header
    try:
        header = kind(head[:size], check=False)  # type: ignore[no-untyped-call]
        header.get_data_dtype()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: expected a NIfTI header, but it is damaged ({error}); copy or convert it again."
        ) from None
    return header


def _shape(path: Path, header: Nifti1Header) -> tuple[int, int, int]:
    dim = [int(n) for n in header["dim"]]
    rank = dim[0]
    if not 1 <= rank <= 7 or any(n < 1 for n in dim[1 : rank + 1]):
        raise DataError(
            f"{path}: expected 1 to 7 positive dimensions, its header says {dim}; copy or convert it again."
        )
    sizes = dim[1 : rank + 1]
    if any(n > 1 for n in sizes[3:]):
        raise DataError(
            f"{path}: expected a 3D volume, got {len(sizes)}D {tuple(sizes)}; split it into one file per "
            "volume, or keep the volume that you mean."
        )
    sizes = [*sizes, 1, 1][:3]
    return sizes[0], sizes[1], sizes[2]


def _offset(path: Path, header: Nifti1Header, available: int) -> int:
    offset, least = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if not math.isfinite(offset) or offset != int(offset) or not least <= offset <= 1 << 30:
        raise DataError(
            f"{path}: expected voxels to begin at byte {least} or later, its header says {offset}; convert it again."
        )
    return int(offset)


def _check_length(path: Path, needed: int, zipped: bool, max_bytes: int) -> None:
    have = path.stat().st_size
    if needed > max_bytes:
        raise DataError(
            f"{path}: its header declares {needed / 2**30:.1f} GiB, the budget is {max_bytes / 2**30:.1f} GiB; "
            "remove it, or raise Nifti(max_bytes=...) if it is genuine."
        )
    # Deflate cannot pack more than 1032 bytes into one, so a header that promises more is a lie or the file is cut.
    if have * (1032 if zipped else 1) < needed:
        raise DataError(
            f"{path}: its header declares {needed} bytes, but the file holds {have}: it is truncated or its header is "
            "damaged; copy it again."
        )


def _scaling(path: Path, header: Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DataError(
            f"{path}: expected finite scl_slope and scl_inter, its header says {slope} and {intercept}: the values are "
            "unknown; write it again with slope 1 and intercept 0 if it is unscaled."
        )
    return (slope, intercept) if slope != 0 else (1.0, 0.0)  # the standard: slope 0 means unscaled


def _affine(path: Path, header: Nifti1Header, shape: tuple[int, ...], policy: str) -> np.ndarray:
    """Voxel (i, j, k, 1) to world (x, y, z, 1) in mm by the policy of `Nifti.affine`."""
    unit = _TO_MM.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise DataError(
            f"{path}: expected units of m, mm or micron, got xyzt_units {int(header['xyzt_units'])}; mend it."
        )
    codes = {"qform": int(header["qform_code"]), "sform": int(header["sform_code"])}
    if policy == "spacing":
        matrix = np.diag([*np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)), 1.0])
    elif policy != "agree":
        if codes[policy] <= 0:
            raise DataError(f"{path}: Nifti(affine='{policy}') was asked for, but the file's {policy} is not set.")
        matrix = _form(path, header, policy)
    elif codes["qform"] <= 0 and codes["sform"] <= 0:
        raise DataError(
            f"{path}: its orientation is unknown (qform and sform are both unset): set one, or read it with "
            "Nifti(affine='spacing') to take the stored axes for RAS+."
        )
    else:
        forms = [_form(path, header, name) for name in ("sform", "qform") if codes[name] > 0]
        matrix = forms[0]
        if len(forms) == 2:
            apart = _apart(forms[0], forms[1], shape) * unit
            if apart > _TOLERANCE_MM:
                raise DataError(
                    f"{path}: its sform and qform disagree by up to {apart:.3g} mm, left and right may be exchanged; "
                    "mend the header, or choose with Nifti(affine='sform') or Nifti(affine='qform')."
                )
    matrix = np.array(matrix, dtype=np.float64)
    matrix[:3] *= unit
    Affine.of(matrix, source=str(path))  # finite and invertible, or a sentence
    return matrix


def _form(path: Path, header: Nifti1Header, name: str) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    try:
        matrix = header.get_sform() if name == "sform" else header.get_qform()
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"{path}: its {name} is damaged ({error}); mend the header.") from None
    Affine.of(matrix, source=f"{path} ({name})")
    return np.asarray(matrix, dtype=np.float64)


def _apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance between where two affines put a corner of the volume."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _canonical(
    affine: np.ndarray, shape: tuple[int, int, int]
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool], Affine]:
    """Stored axis and flip of each of Z, Y, X, and the affine of (z, y, x, 1) after both."""
    from nibabel.orientations import io_orientation

    towards = io_orientation(affine)  # per stored axis: world axis, and +1 or -1
    axes, flips = [], []
    matrix = np.eye(4)
    matrix[:3, 3] = affine[:3, 3]
    for column, world in enumerate((2, 1, 0)):
        axis = int(np.flatnonzero(towards[:, 0] == world)[0])
        flip = bool(towards[axis, 1] < 0)
        step = affine[:3, axis]
        matrix[:3, column] = -step if flip else step
        if flip:
            matrix[:3, 3] += step * (shape[axis] - 1)
        axes.append(axis)
        flips.append(flip)
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]), Affine.of(matrix, source="canonical")


def _inflate(path: Path, needed: int) -> bytes:
    """Inflate a gzip file to its end, every checksum verified; at least `needed` bytes, at most a little more."""
    broken = f"{path}: expected a whole .nii.gz volume, but"
    limit, have = needed + _SLACK, 0
    out: list[bytes] = []
    member, pending = None, b""
    with path.open("rb") as file:
        while pending := pending or file.read(1 << 20):
            if member is None:  # members follow one another (bgzip), zero padding may follow the last
                pending = pending.lstrip(b"\0") if out else pending
                member = zlib.decompressobj(wbits=31) if pending else None
                continue
            try:
                piece = member.decompress(pending, limit - have)
            except zlib.error as error:
                raise DataError(f"{broken} it is damaged ({error}); copy it again or remove it.") from None
            out.append(piece)
            have += len(piece)
            if have >= limit:
                raise DataError(f"{broken} it holds more than the {needed} bytes that its header declares; convert it.")
            pending = member.unused_data
            member = None if member.eof else member
    if member is not None or have < needed:
        raise DataError(f"{broken} it is truncated after {have} of {needed} bytes; copy it again or remove it.")
    return b"".join(out)
