"""NumPy arrays (`.npy`), mapped into memory: a window costs what it holds. Nothing is ever unpickled."""

from __future__ import annotations

import ast
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from core.errors import BandError, BudgetError, DamagedError, UnsupportedError
from core.geometry import Spacing
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers._typed import typed
from datasets.readers.base import Reader

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 64 << 10  # bytes; that of a plain array has 128
_KEYS = {"descr", "fortran_order", "shape"}


@dataclass(frozen=True)
class NumpyArray(Reader):
    """Reads `.npy` files of two or more axes; they hold no geometry and no band names.

    Attributes:
        axes: which axis is which, in the array's order, out of c z y x, such as `cyx`, `yxc` or `zyx`; two axes are yx, of
            more nobody can tell.
        bands: names of the bands.
        max_bytes: refuse windows of more voxel bytes, before anything is allocated.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    axes: str = ""
    bands: tuple[str, ...] = ()
    max_bytes: int = 4 << 30

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is an array, or a zip of arrays (which opening then refuses, with the cure)."""
        return head.startswith(_MAGIC) or _is_npz(head)

    def open(self, path: Path) -> LazyImage:
        """Read and check the header.

        Raises:
            DamagedError: it is damaged, or the file shorter or longer than it says.
            UnsupportedError: it is an .npz, holds other than numbers, or its axes are not told.
            BandError: `bands` has another number of names than the image has bands.
        """
        stored = _header(path)
        letters = self._letters(path, len(stored.shape))
        sizes = dict(zip(letters, stored.shape, strict=True))
        spatial = "zyx" if "z" in sizes else "yx"
        size, count = tuple(sizes[axis] for axis in spatial), sizes.get("c", 1)
        if self.bands and len(self.bands) != count:
            raise BandError(
                f"{path}: has {count} bands, got {len(self.bands)} names {self.bands}; mend {typed('numpy_array.bands=[...]')}."
            )
        flags = [
            Flag("no_geometry", f"{path}: an .npy file states no voxel size and no place; distances are in voxels.")
        ]
        if not self.bands:
            flags.append(
                Flag("unnamed_bands", f"{path}: it names no bands; name them with {typed('numpy_array.bands=[...]')}.")
            )
        slowest = next(axis for axis in (letters[::-1] if stored.fortran else letters) if axis != "c")
        dtype = np.dtype(stored.dtype)
        return LazyImage(
            path=path,
            shape=(count, *size),
            dtype=np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("="),
            bands=self.bands or tuple(f"band_{number + 1}" for number in range(count)),
            spacing=Spacing.pixels(len(size)),
            chunks=tuple(1 if axis == slowest else n for axis, n in zip(spatial, size, strict=True)),
            source=NumpySource(path, stored, letters, spatial, self.max_bytes),
            flags=tuple(flags),
        )

    def _letters(self, path: Path, ndim: int) -> str:
        letters = self.axes.lower() or ("yx" if ndim == 2 else "")
        if len(letters) == len(set(letters)) == ndim and {"y", "x"} <= set(letters) <= set("czyx"):
            return letters
        said = f"axes '{self.axes}' were given" if self.axes else "an .npy file does not name them"
        raise UnsupportedError(
            f"{path}: expected {ndim} axes out of c z y x with y and x among them, {said}; say which is which with "
            f"{typed('numpy_array.axes=...')} (zyx for a volume, cyx or yxc for bands, czyx)."
        )


@dataclass(frozen=True)
class StoredNumpy:
    """What the header of a file says.

    Attributes:
        shape: of the array.
        dtype: numpy type string, byte order included.
        fortran: whether the first axis runs fastest.
        offset: bytes before the first voxel.
    """

    shape: tuple[int, ...]
    dtype: str
    fortran: bool
    offset: int


@dataclass(frozen=True)
class NumpySource(Source):
    """Maps the file for each window, so that no handle is shared between threads or crosses a fork.

    Attributes:
        path: the file.
        stored: its header.
        letters: the axes of the array in their order.
        spatial: the axes of the image, `yx` or `zyx`.
        max_bytes: budget of one window.
    """

    path: Path
    stored: StoredNumpy
    letters: str
    spatial: str
    max_bytes: int

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window)."""
        dtype = np.dtype(self.stored.dtype)
        shape = (len(bands), *(part.stop - part.start for part in window))
        needed = math.prod(shape) * dtype.itemsize
        if needed > self.max_bytes:
            raise BudgetError(
                f"{self.path}: a window {shape} takes {needed / 2**30:.1f} GiB, the budget is {self.max_bytes / 2**30:.1f} "
                f"GiB; read smaller windows, or raise the budget: {typed(f'numpy_array.max_bytes={needed}')}."
            )
        _check_length(self.path, self.stored)  # a mapped file that was cut since would end the process
        order: Literal["C", "F"] = "F" if self.stored.fortran else "C"
        try:
            mapped = np.memmap(
                self.path, dtype=dtype, mode="r", offset=self.stored.offset, shape=self.stored.shape, order=order
            )
        except (OSError, ValueError) as error:
            raise DamagedError(f"{self.path}: cannot be read ({error}) for {window}; copy it again.") from None
        axes = [self.letters.index(axis) for axis in ("c" + self.spatial) if axis in self.letters]
        turned = mapped.transpose(axes)
        cut = turned[(slice(None), *window)] if "c" in self.letters else turned[window][None]
        first = bands[0]
        in_order = bands == tuple(range(first, first + len(bands)))
        cut = cut[first : first + len(bands)] if in_order else cut[list(bands)]
        voxels: np.ndarray = np.array(cut, dtype=dtype.newbyteorder("="), order="C", subok=False)
        return voxels.view(np.uint8) if dtype.kind == "b" else voxels


def _is_npz(head: bytes) -> bool:
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")] if head.startswith(b"PK\x03\x04") else b""
    return name.endswith(b".npy")


def _header(path: Path) -> StoredNumpy:
    """Read the header by its specification, without numpy's own reader, which has no budget."""
    with path.open("rb") as file:
        head = file.read(12)
        if not head.startswith(_MAGIC):
            raise UnsupportedError(
                f"{path}: expected one array (.npy), got several in a zip (.npz); save each as a single .npy with numpy.save."
            )
        wide = head[6:7] != b"\x01"
        length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
        begin = 12 if wide else 10
        if head[6:7] not in (b"\x01", b"\x02", b"\x03") or len(head) < 12:
            raise DamagedError(
                f"{path}: expected an .npy header of version 1 to 3, it is damaged; copy the file again."
            )
        if length > _MAX_HEADER:
            raise BudgetError(f"{path}: its header declares {length} bytes, more than any array needs; save it again.")
        file.seek(begin)
        text = file.read(length)
    stored = _parsed(path, text, begin + length)
    _check_length(path, stored)
    return stored


def _parsed(path: Path, text: bytes, offset: int) -> StoredNumpy:
    try:
        found = ast.literal_eval(text.decode("utf-8").strip())
        if set(found) != _KEYS or type(found["fortran_order"]) is not bool:
            raise ValueError(f"it holds {sorted(map(str, found))}")
        shape = found["shape"]
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"its shape is {shape!r}")
        descr = found["descr"]
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, KeyError) as error:
        raise DamagedError(f"{path}: its .npy header is damaged ({error}); copy the file again.") from None
    if dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedError(
            f"{path}: expected whole, real or boolean numbers, got {descr!r} (objects are never unpickled); convert it."
        )
    if len(shape) < 2 or min(shape) < 1:
        raise UnsupportedError(f"{path}: expected an image of at least two axes, its shape is {shape}; remove it.")
    return StoredNumpy(shape, dtype.str, found["fortran_order"], offset)


def _check_length(path: Path, stored: StoredNumpy) -> None:
    needed = stored.offset + math.prod(stored.shape) * np.dtype(stored.dtype).itemsize
    have = os.stat(path).st_size  # noqa: PTH116  (this is on the path of every window)
    if have != needed:
        raise DamagedError(
            f"{path}: its header declares {stored.shape} of {np.dtype(stored.dtype)}, {needed} bytes with the header, but the "
            f"file has {have}: it is truncated or altered; copy it again."
        )
