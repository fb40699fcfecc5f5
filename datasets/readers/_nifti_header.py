"""What a NIfTI header says and whether it can be trusted: type, dimensions, scaling, orientation, and texts in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import BudgetError, DamagedError, GeometryError, UnsupportedError
from core.geometry import Affine
from datasets.image import Flag
from datasets.readers._gzip import MOST_PACKED
from datasets.readers._typed import typed

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_KINDS = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}
_OTHER_TYPES = {
    1: ("one bit per voxel", "write it as uint8"),
    32: ("complex numbers", "write magnitude and phase as two volumes"),
    128: ("RGB colours", "write red, green and blue as three volumes"),
    1536: ("128-bit floats", "write it as float32"),
    1792: ("complex numbers", "write magnitude and phase as two volumes"),
    2048: ("complex numbers", "write magnitude and phase as two volumes"),
    2304: ("RGBA colours", "write red, green and blue as three volumes"),
}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units of space: unknown (mm by convention), m, mm, micron
_TOLERANCE_MM = 1e-3  # headers carry rounding of about 1e-6 mm; a wrong flip or axis moves corners by millimetres
_TEXTS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_ANISOTROPIC = 20.0
_SIZES = (348, 540)  # of the headers of NIfTI-1, its pairs and ANALYZE, and of NIfTI-2


def magic(head: bytes) -> int | None:
    """Size of the header of a single-file NIfTI-1 (348) or NIfTI-2 (540), or None."""
    if head[344:348] == b"n+1\0":
        return 348
    return 540 if head[4:8] == b"n+2\0" else None


def looks_like(head: bytes) -> bool:
    """Say whether a file begins as NIfTI or its relatives do, whatever its magic says: by the size that comes first."""
    return magic(head) is not None or (len(head) >= 348 and (_little(head) in _SIZES or _little(head[3::-1]) in _SIZES))


def _little(four: bytes) -> int:
    return int.from_bytes(four[:4], "little")


def parse(path: Path, head: bytes) -> Nifti1Header:
    """Give nibabel's header of the first bytes of the content; only its type code is checked.

    Raises:
        DamagedError: it is none, ends early or names a type that does not exist.
        UnsupportedError: header and voxels are in two files, or it is ANALYZE.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    size = magic(head)
    if size is None and looks_like(head):
        _refuse_relative(path, head)
    if size is None or len(head) < size:
        raise DamagedError(
            f"{path}: expected a NIfTI volume (.nii or .nii.gz, header and voxels in one file), but its content is "
            "another or ends within the header; copy it again or convert it."
        )
    kind = Nifti1Header if size == 348 else Nifti2Header
    try:
        header = kind(head[:size], check=False)  # type: ignore[no-untyped-call]
        header.get_data_dtype()
    except (HeaderDataError, KeyError, ValueError) as error:
        raise DamagedError(
            f"{path}: expected a NIfTI header, but it is damaged ({error}); copy or convert it again."
        ) from None
    return header


def _refuse_relative(path: Path, head: bytes) -> None:
    mark = head[4:8] if 540 in (_little(head), _little(head[3::-1])) else head[344:348]
    if mark in (b"ni1\0", b"ni2\0"):
        raise UnsupportedError(
            f"{path}: expected header and voxels in one file, got the header of a .hdr/.img pair; convert the pair to "
            "one .nii or .nii.gz."
        )
    if not mark.strip(b"\0"):
        raise UnsupportedError(
            f"{path}: expected NIfTI, got an ANALYZE header, which does not say what is left and right; convert it to "
            "one .nii whose orientation somebody has verified."
        )
    raise DamagedError(
        f"{path}: expected a NIfTI volume in one file, but its magic is {mark!r}: it is damaged or another format; copy "
        "it again or convert it."
    )


def voxel_type(path: Path, header: Nifti1Header) -> np.dtype:
    """Give the type on disk, byte order included.

    Raises:
        UnsupportedError: it is no whole or real number.
        DamagedError: the number of bits that the header states is another.
    """
    stored: np.dtype = np.dtype(header.get_data_dtype())
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if stored.str[1:] not in _KINDS:
        what, cure = _OTHER_TYPES.get(code, (f"type {stored}", "convert the volume"))
        raise UnsupportedError(f"{path}: expected whole or real numbers, got {what} (datatype {code}); {cure}.")
    if bits not in (0, 8 * stored.itemsize):
        raise DamagedError(
            f"{path}: its header contradicts itself: datatype {code} ({stored}) has {8 * stored.itemsize} bits, it says "
            f"{bits}; copy or convert it again."
        )
    return stored


def dimensions(path: Path, header: Nifti1Header) -> tuple[int, ...]:
    """Give (i, j, k) of a volume, or (i, j, k, n) of n > 1 volumes.

    Raises:
        DamagedError: a size is not positive or their number impossible.
        UnsupportedError: there is a fifth axis.
    """
    dim = [int(n) for n in header["dim"]]
    rank = dim[0]
    if not 1 <= rank <= 7 or any(n < 1 for n in dim[1 : rank + 1]):
        raise DamagedError(
            f"{path}: expected 1 to 7 positive dimensions, its header says {dim}; copy or convert it again."
        )
    sizes = dim[1 : rank + 1]
    if any(n > 1 for n in sizes[4:]):
        raise UnsupportedError(
            f"{path}: expected a 3D volume, got {len(sizes)}D {tuple(sizes)}; split it into one file per volume."
        )
    volume = tuple([*sizes, 1, 1][:3])
    return volume if len(sizes) < 4 or sizes[3] == 1 else (*volume, sizes[3])


def offset(path: Path, header: Nifti1Header) -> int:
    """Give the byte at which the voxels begin.

    Raises:
        DamagedError: it is within the header, no whole number or absurd.
    """
    value, least = float(header["vox_offset"]), int(header["sizeof_hdr"]) + 4
    if not math.isfinite(value) or value != int(value) or not least <= value <= 1 << 30:
        raise DamagedError(
            f"{path}: expected voxels to begin at byte {least} or later, its header says {value}; convert it again."
        )
    return int(value)


def check_length(path: Path, needed: int, zipped: bool, max_bytes: int) -> None:
    """Compare what the header declares with the budget and with the file.

    Raises:
        BudgetError: it declares more than the budget.
        DamagedError: the file cannot hold that much.
    """
    have = path.stat().st_size
    if needed > max_bytes:
        raise BudgetError(
            f"{path}: its header declares {needed / 2**30:.1f} GiB, the budget is {max_bytes / 2**30:.1f} GiB; "
            f"remove it, or read it with {typed(f'nifti.max_bytes={needed}')} if it is genuine."
        )
    if have * (MOST_PACKED if zipped else 1) < needed:
        raise DamagedError(
            f"{path}: its header declares {needed} bytes, but the file holds {have}: it is truncated or its header is "
            "damaged; copy it again."
        )


def scaling(path: Path, header: Nifti1Header) -> tuple[float, float]:
    """Give (slope, intercept) of value = slope * stored + intercept; (1, 0) where the file is unscaled.

    Raises:
        DamagedError: one of them is not finite.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DamagedError(
            f"{path}: expected finite scl_slope and scl_inter, its header says {slope} and {intercept}: the values are "
            "unknown; write it again with slope 1 and intercept 0 if it is unscaled."
        )
    return (slope, intercept) if slope != 0 else (1.0, 0.0)  # the standard: slope 0 means unscaled


def world(path: Path, header: Nifti1Header, shape: tuple[int, ...], policy: str) -> tuple[np.ndarray, list[Flag]]:
    """Voxel (i, j, k, 1) to world (x, y, z, 1) in mm by the policy of `Nifti.affine`.

    Raises:
        GeometryError: it is missing, not finite, singular or contradictory.
    """
    unit = _TO_MM.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise GeometryError(
            f"{path}: expected units of m, mm or micron, got xyzt_units {int(header['xyzt_units'])}; mend it."
        )
    name = _chosen(path, header, policy)
    matrix = _form(path, header, name)
    if policy == "agree" and name == "sform" and int(header["qform_code"]) > 0:
        apart = _apart(matrix, _form(path, header, "qform"), shape) * unit
        if apart > _TOLERANCE_MM:
            raise GeometryError(
                f"{path}: its sform and qform disagree by up to {apart:.3g} mm, left and right may be exchanged; "
                f"mend the header, or choose: {typed('nifti.affine=sform')}, or qform."
            )
    flags = _other_sizes(header, matrix) if name == "sform" else []
    matrix[:3] *= unit
    Affine.of(matrix, source=str(path))  # finite and invertible, or a sentence
    return matrix, flags


def _chosen(path: Path, header: Nifti1Header, policy: str) -> str:
    known = [name for name in ("sform", "qform") if int(header[f"{name}_code"]) > 0]
    if policy == "agree":
        if not known:
            raise GeometryError(
                f"{path}: its orientation is unknown (qform and sform are both unset): set one, or read it with "
                f"{typed('nifti.affine=spacing')} to take the stored axes for RAS+."
            )
        return known[0]
    if policy != "spacing" and policy not in known:
        raise GeometryError(
            f"{path}: nifti.affine={policy} was asked for, but the file's {policy} is not set; choose another."
        )
    return policy


def _form(path: Path, header: Nifti1Header, name: str) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    if name == "spacing":
        sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            raise GeometryError(f"{path}: expected positive voxel sizes, its pixdim says {sizes.tolist()}; mend it.")
        return np.diag([*sizes, 1.0])
    try:
        matrix = header.get_sform() if name == "sform" else header.get_qform()
    except (HeaderDataError, ValueError) as error:
        raise GeometryError(f"{path}: its {name} is damaged ({error}); mend the header.") from None
    Affine.of(matrix, source=f"{path} ({name})")
    return np.array(matrix, dtype=np.float64)


def _other_sizes(header: Nifti1Header, matrix: np.ndarray) -> list[Flag]:
    """Where the sform places the voxels, voxel sizes stand twice: say so if they differ by more than rounding."""
    stated = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    used = np.linalg.norm(matrix[:3, :3], axis=0)
    if np.allclose(stated, used, rtol=1e-3, atol=0):
        return []
    numbers = f"{[round(float(v), 4) for v in stated]}, the sform {[round(float(v), 4) for v in used]}"
    return [Flag("voxel_sizes", f"its pixdim says {numbers}: the sform's voxel sizes are used")]


def _apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance between where two affines put a corner of the volume."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def anisotropic(spacing: tuple[float, ...]) -> list[Flag]:
    """Flag voxels that are more than 20 times as long as wide."""
    ratio = max(spacing) / min(spacing)
    if ratio <= _ANISOTROPIC:
        return []
    return [Flag("anisotropic", f"its voxels are {ratio:.1f} times as long as wide {tuple(spacing)} mm")]


def texts(header: Nifti1Header, head: bytes, begin: int, also: list[str]) -> list[Flag]:
    """Flag text in the header, which may name a patient; it is never quoted."""
    names = [name for name in _TEXTS if name in header.keys() and bytes(header[name].item()).strip(b"\0 ")]
    size = int(header["sizeof_hdr"])
    if head[size : size + 1].strip(b"\0") or head[size + 4 : begin].strip(b"\0"):
        names.append("extensions")
    names += also
    if not names:
        return []
    sentence = f"text stands in its {', '.join(names)}, which may name a patient; nothing that is written carries it on"
    return [Flag("header_text", sentence)]
