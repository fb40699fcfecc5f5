"""Arrays of HDF4 files by pyhdf, one call at a time: its library knows neither threads nor forks.

The library shares an open file among all who open it in a process, a forked child included, so a handle that was kept
could be moved under its reader. None is kept: opening a file of 40 arrays takes 1 ms. The library also trusts what a file
says, so the file's own directory is checked before the library sees it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DamagedError, MissingDataError, UnsafeError, UnsupportedError
from datasets.readers._hdf_variable import Variable, described

_TYPES = {5: "f4", 6: "f8", 20: "i1", 21: "u1", 22: "i2", 23: "u2", 24: "i4", 25: "u4"}
_SPECIAL, _EXTERNAL, _FREE = 0x4000, 2, 1  # bit of a tag; code of values in another file; tag of an unused entry
_MOST = 1_000_000  # entries of a directory

_locks: dict[int, threading.Lock] = {}  # per process: one taken over by a fork would never be released


def variables(path: Path) -> list[Variable]:
    """Describe every array.

    Raises:
        DamagedError: the file is truncated or altered.
        UnsafeError: it refers to another file.
    """
    _check_directory(path)
    found = []
    with _opened(path, "its directory") as file:
        for name, (_, shape, kind, _) in sorted(file.datasets().items(), key=lambda item: item[1][3]):
            data = file.select(name)
            said = dict(data.attributes())
            data.endaccess()
            dtype = np.dtype(_TYPES[kind]) if kind in _TYPES else None
            sizes = tuple(int(n) for n in (shape if isinstance(shape, tuple | list) else (shape,)))
            found.append(described(name, sizes, dtype, said, chunks=_rows(sizes, dtype)))
    return found


def read(path: Path, variable: Variable, box: tuple[slice, ...]) -> np.ndarray:
    """Read a box of stored values, in native byte order.

    Raises:
        DamagedError: it cannot be decoded.
    """
    shown = ", ".join(f"{part.start}:{part.stop}" for part in box)
    with _opened(path, f"{variable.name}[{shown}]") as file:
        data = file.select(variable.name)
        start, count = [part.start for part in box], [part.stop - part.start for part in box]
        values = np.asarray(data.get(start=start, count=count, stride=[1] * len(box)))
        data.endaccess()
    return values.reshape(count).astype(variable.dtype, copy=False)


def structure(path: Path) -> str:
    """The text in which HDF-EOS describes its grids, in one or more attributes, or nothing."""
    with _opened(path, "StructMetadata") as file:
        said = file.attributes()
    parts = sorted((name for name in said if name.startswith("StructMetadata.")), key=lambda n: int(n.split(".")[1]))
    return "".join(str(said[name]) for name in parts).replace("\0", "")


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Any]:
    try:
        from pyhdf.error import HDF4Error
        from pyhdf.SD import SD, SDC
    except ImportError:
        raise MissingDataError(f"{path}: reading HDF4 needs pyhdf: pip install 'halfseen[hdf]'.") from None
    with _locks.setdefault(os.getpid(), threading.Lock()):
        file = None
        try:
            file = SD(str(path), SDC.READ)
            yield file
        except (HDF4Error, ValueError, TypeError) as error:
            raise DamagedError(
                f"{path}: expected a whole HDF4 file, but {what} cannot be read ({error}); copy it again or remove it."
            ) from None
        finally:
            if file is not None:
                file.end()


def _rows(shape: tuple[int, ...], dtype: np.dtype | None) -> tuple[int, ...]:
    """About 1 MB of whole rows: pyhdf does not say how an array is stored, and MODIS grids are stored by rows."""
    if dtype is None or len(shape) < 2:
        return shape
    rows = max(1, (1 << 20) // max(1, shape[-1] * dtype.itemsize))
    return (*[1] * (len(shape) - 2), min(shape[-2], rows), shape[-1])


def _check_directory(path: Path) -> None:
    """Walk over the blocks of data descriptors: everything inside the file, nothing in another one."""
    have = path.stat().st_size
    broken = DamagedError(f"{path}: expected a whole HDF4 file, but it is truncated or altered; copy it again.")
    position, seen, entries = 4, set(), 0
    with path.open("rb") as file:
        while position:
            file.seek(position)
            head = file.read(6)
            if len(head) < 6 or position in seen:
                raise broken
            seen.add(position)
            count, position = struct.unpack(">HI", head)
            entries += count
            block = file.read(12 * count)
            if len(block) < 12 * count:
                raise broken
            if entries > _MOST:
                raise UnsupportedError(f"{path}: its directory has more than {_MOST} entries; split it.")
            for tag, _, offset, length in struct.iter_unpack(">HHII", block):
                if tag == _FREE or 0xFFFFFFFF in (offset, length):
                    continue
                if offset + length > have:
                    raise broken
                if tag & _SPECIAL and not tag & 0x8000:
                    file.seek(offset)
                    if file.read(2) == struct.pack(">H", _EXTERNAL):
                        raise UnsafeError(f"{path}: keeps values in another file; copy them into one with hrepack.")
