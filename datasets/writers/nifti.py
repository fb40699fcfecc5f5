"""NIfTI volumes (`.nii`, `.nii.gz`): voxels as they are, affine as sform and qform, and nothing else in the header.

NIfTI-1, or NIfTI-2 where an axis is longer than 32,767. Plain files are mapped; `.nii.gz` is written in file order, and
slabs that come too early wait. The gzip header has neither name nor time, so the same voxels are the same bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from core.errors import DataError
from core.preprocess import Window
from datasets.writers._blocks import Blocks, Coverage, reserve, within
from datasets.writers.base import Draft, Facts, Writer, refuse_dtype

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_KNOWN = frozenset("int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64".split())
_LONGEST = 32_767  # of an axis in NIfTI-1
_SLAB_BYTES = 16 << 20
_TOLERANCE_MM = 5e-4  # at the corners; beyond it a quaternion cannot say what the affine says: it is sheared


@dataclass(frozen=True)
class Nifti(Writer):
    """Writes volumes, x to right, y to anterior, z to superior or as the affine says. Several bands become a fourth axis.

    Kept: affine, spacing, one scaling for all bands. NIfTI has no place for names of bands.

    Attributes:
        world: what the affine leads to: `scanner`, or `aligned` to another image.
        level: of gzip, 1 (fast) to 9 (small).
    """

    suffixes: ClassVar[tuple[str, ...]] = (".nii", ".nii.gz")
    world: Literal["scanner", "aligned"] = "scanner"
    level: int = 6

    def check(self, path: Path, facts: Facts) -> None:
        """Refuse scenes, masks, nodata values, several scalings and dtypes."""
        if len(facts.size) != 3 or facts.georeference is not None:
            raise DataError(f"{path}: NIfTI holds volumes (C, Z, Y, X), got {facts.shape}; write .tif or .zarr.")
        refuse_dtype(path, facts, _KNOWN, "give uint8 for a mask, float32 for float16, or write .zarr")
        values = [value for value in facts.nodata or () if value is not None and not np.isnan(value)]
        if facts.valid or values:
            raise DataError(
                f"{path}: NIfTI has no place for a {'mask' if facts.valid else f'nodata value ({values[0]:g})'}; "
                "write NaN into real voxels, or write .zarr."
            )
        if len(set(facts.scaling or ())) > 1:
            raise DataError(f"{path}: NIfTI holds one scaling for all bands, got {facts.scaling}; write .zarr.")

    def block(self, facts: Facts) -> tuple[int, ...]:
        """Whole planes."""
        _, z, y, x = facts.shape
        return (min(z, max(1, _SLAB_BYTES // (y * x * facts.dtype.itemsize))), y, x)

    def begin(self, path: Path, draft: Path, spool: Path, facts: Facts) -> Draft:
        """Write the header."""
        head = header(facts, self.world)
        block = (1, *self.block(facts))
        if not path.name.lower().endswith(".gz"):
            return _Mapped(draft, facts, head, block)
        return _Zipped(draft, facts, head, Blocks(facts.shape, block, facts.dtype, spool=spool), self.level)


class _Mapped(Draft):
    def __init__(self, draft: Path, facts: Facts, head: bytes, block: tuple[int, ...]) -> None:
        self._draft, self._facts, self._offset = draft, facts, len(head)
        self._coverage = Coverage(facts.shape, block)
        reserve(draft, len(head) + int(np.prod(facts.shape, dtype=np.int64)) * facts.dtype.itemsize)
        with draft.open("r+b") as file:
            file.write(head)

    def put(self, window: Window, voxels: np.ndarray, valid: np.ndarray | None) -> None:
        box = (slice(0, len(voxels)), *window)
        stored = self._facts.dtype.newbyteorder("<")
        target = np.memmap(self._draft, dtype=stored, mode="r+", offset=self._offset, shape=self._facts.shape)
        for _, new, _ in self._coverage.add(box):
            for piece in new:
                target[piece] = voxels[within(piece, box)]

    def missing(self) -> Window | None:
        hole = self._coverage.missing()
        return None if hole is None else hole[1:]

    def finish(self) -> None:
        pass  # every window is in the file

    def abandon(self) -> None:
        pass  # nothing is open


class _Zipped(Draft):
    def __init__(self, draft: Path, facts: Facts, head: bytes, blocks: Blocks, level: int) -> None:
        self._facts, self._blocks = facts, blocks
        self._early: set[tuple[int, ...]] = set()
        self._order = np.ndindex(*blocks.coverage.grid)
        self._next: tuple[int, ...] | None = next(self._order)
        self._file = draft.open("xb")
        self._pack = zlib.compressobj(level, wbits=31)  # 31: gzip, without name and with time 0
        self._file.write(self._pack.compress(head))

    def put(self, window: Window, voxels: np.ndarray, valid: np.ndarray | None) -> None:
        for index in self._blocks.put((slice(0, len(voxels)), *window), voxels):
            self._early.add(index)
        while self._next in self._early:
            self._early.remove(self._next)
            slab = self._blocks.take(self._next).astype(self._facts.dtype.newbyteorder("<"), copy=False)
            self._file.write(self._pack.compress(slab.tobytes()))
            self._next = next(self._order, None)

    def missing(self) -> Window | None:
        hole = self._blocks.coverage.missing()
        return None if hole is None else hole[1:]

    def finish(self) -> None:
        self._file.write(self._pack.flush())
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def header(facts: Facts, world: Literal["scanner", "aligned"] = "scanner") -> bytes:
    """Everything before the first voxel: sizes, dtype, affine, spacing, scaling, units; no other field is set."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    sizes = facts.shape[::-1] if facts.shape[0] > 1 else facts.shape[:0:-1]  # x, y, z and bands
    kind: type[Nifti1Header] = Nifti2Header if max(sizes) > _LONGEST else Nifti1Header
    head = kind(endianness="<")
    head.set_data_dtype(facts.dtype.newbyteorder("<"))
    head.set_data_shape(sizes)
    steps = facts.spacing.values[::-1]
    head.set_zooms((*steps, 1.0) if len(sizes) == 4 else steps)
    head.set_xyzt_units("mm" if facts.spacing.unit == "mm" else "unknown")
    slope, offset = (facts.scaling or ((1.0, 0.0),))[0]
    head.set_slope_inter(slope, offset)
    if facts.affine is not None:
        _place(head, facts.affine.matrix[:, [2, 1, 0, 3]], sizes[:3], world)
    start: int = head.single_vox_offset
    head["vox_offset"] = start
    return bytes(head.binaryblock).ljust(start, b"\0")  # four zero bytes: no extension follows


def _place(head: Nifti1Header, matrix: np.ndarray, size: tuple[int, ...], world: str) -> None:
    """Set sform, and qform where a quaternion can say the same."""
    head.set_sform(matrix, code=world)
    head.set_qform(matrix, code=world, strip_shears=True)
    corners = np.array([[x, y, z, 1] for x in (0, size[0]) for y in (0, size[1]) for z in (0, size[2])])
    apart = np.abs(corners @ (head.get_qform() - head.get_sform()).T).max()
    if apart > _TOLERANCE_MM:
        head["qform_code"] = 0
