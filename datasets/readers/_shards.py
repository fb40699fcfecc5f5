"""Windows of Zarr v3 arrays read straight from their files: no event loop, no threads, no handle kept.

zarr-python spends 0.2 to 0.4 ms per inner chunk outside the codec (measured), which a training read cannot afford. Here a
window costs one open per file, one read of its index, one read per run of neighbouring chunks, and the codec. Nothing is
shared between calls, so any number of threads and forked processes may read at once; blosc's own threads stay off.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BudgetError, DamagedError, UnsafeError
from datasets.readers._typed import typed
from datasets.readers._zarr_codecs import BrokenError, Decode, crc, decoder
from datasets.readers._zarr_metadata import ArrayFacts

Pick = slice | tuple[int, ...]  # of one axis: a range, or positions in any order
Place = tuple[Any, ...]  # an index into an array

_EMPTY = (1 << 64) - 1  # offset and length of an inner chunk that was never written
_GAP = 16 << 10  # bytes between two chunks that cost less to read than a second call
_RUN = 8 << 20  # bytes read at once
_INDEX = 256 << 20  # bytes of an index: 16 million chunks in one file


@dataclass(frozen=True)
class StoredArray:
    """An array of a store: where it is, how it is laid out, and how strictly it is read.

    Attributes:
        store: the store's folder, which messages name and which no link may leave.
        folder: the array's own folder, in it.
        facts: its layout.
        complete: whether every chunk must be there (a prepared store); else the fill value stands for it.
        max_bytes: refuse windows and chunks of more.
    """

    store: Path
    folder: Path
    facts: ArrayFacts
    complete: bool
    max_bytes: int

    def read(self, picks: tuple[Pick, ...]) -> np.ndarray:
        """Read a window, one pick per axis, at most one of them positions; the result is fresh, native and C-contiguous.

        Raises:
            DamagedError: a chunk is missing from a complete store, truncated, altered or of another length; the message
                names the store, the file and the window.
            BudgetError: the window, or one chunk, is larger than the budget.
            UnsafeError: a chunk is a link that leads out of the store.
        """
        facts = self.facts
        shape = tuple(p.stop - p.start if isinstance(p, slice) else len(p) for p in picks)
        check_budget(self.store, shape, facts.inner, np.dtype(facts.dtype), self.max_bytes)
        out = np.empty(shape, dtype=facts.dtype)
        decode = decoder(facts)
        layout = zip(picks, facts.inner, facts.chunk, strict=True)
        axes = [_by_file(_parts(pick, inner), chunk // inner) for pick, inner, chunk in layout]
        for at in itertools.product(*axes):
            try:
                _read_file(self, facts.name(at), [axis[i] for axis, i in zip(axes, at, strict=True)], out, decode)
            except BrokenError as broken:
                window = ", ".join(f"{p.start}:{p.stop}" if isinstance(p, slice) else str(list(p)) for p in picks)
                file = (self.folder.relative_to(self.store) / facts.name(at)).as_posix()
                raise DamagedError(
                    f"{self.store}: {file} {broken} (reading [{window}]); copy the store again or make it anew."
                ) from None
        return out


@dataclass(frozen=True)
class _Part:
    """What one chunk along one axis gives to the window."""

    chunk: int
    into: slice | list[int]
    of: slice | list[int]


def check_budget(store: Path, window: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype, max_bytes: int) -> None:
    """Refuse a window, or a store whose chunks are such, before anything is allocated.

    Raises:
        BudgetError: it is beyond `max_bytes`.
    """
    for what, shape in (("a window", window), ("one chunk", chunk)):
        needed = math.prod(shape) * dtype.itemsize
        if needed > max_bytes:
            raise BudgetError(
                f"{store}: {what} {shape} of {dtype} takes {needed / 2**30:.1f} GiB, the budget is {max_bytes / 2**30:.1f} GiB; "
                f"read smaller windows, or raise the budget: {typed(f'zarr_array.max_bytes={needed}')}."
            )


def _parts(pick: Pick, inner: int) -> list[_Part]:
    """What each chunk along an axis gives."""
    if isinstance(pick, slice):
        start, stop = pick.start, pick.stop
        return [
            _Part(
                i,
                slice(max(start, i * inner) - start, min(stop, (i + 1) * inner) - start),
                slice(max(start - i * inner, 0), min(stop - i * inner, inner)),
            )
            for i in range(start // inner, (stop - 1) // inner + 1)
        ]
    found: dict[int, tuple[list[int], list[int]]] = {}
    for row, position in enumerate(pick):
        into, of = found.setdefault(position // inner, ([], []))
        into.append(row)
        of.append(position % inner)
    return [_Part(i, into, of) for i, (into, of) in found.items()]


def _by_file(parts: list[_Part], per_file: int) -> dict[int, list[_Part]]:
    """The parts along an axis by the file that holds them, chunks numbered within it."""
    files: dict[int, list[_Part]] = {}
    for part in parts:
        file, chunk = divmod(part.chunk, per_file)
        files.setdefault(file, []).append(_Part(chunk, part.into, part.of))
    return files


def _read_file(array: StoredArray, name: str, axes: list[list[_Part]], out: np.ndarray, decode: Decode) -> None:
    """Fill what one file gives to the window."""
    facts = array.facts
    places: list[tuple[int, Place, Place]] = []  # number of the chunk in the file, where in the result, where in it
    strides = _strides(tuple(c // i for c, i in zip(facts.chunk, facts.inner, strict=True)))
    for parts in itertools.product(*axes):
        number = sum(part.chunk * stride for part, stride in zip(parts, strides, strict=True))
        places.append((number, tuple(p.into for p in parts), tuple(p.of for p in parts)))
    handle = _open(array, name)
    if handle is None:
        for _, into, _ in places:
            out[into] = facts.fill
        return
    try:
        size = os.fstat(handle).st_size
        spans = _index(handle, facts, size, [number for number, _, _ in places]) if facts.sharded else [(0, size)]
        _fill(array, handle, size, list(zip(spans, places, strict=True)), out, decode)
    finally:
        os.close(handle)


def _strides(counts: tuple[int, ...]) -> list[int]:
    return [math.prod(counts[axis + 1 :]) for axis in range(len(counts))]


def _open(array: StoredArray, name: str) -> int | None:
    """Open a chunk's file; None where it is missing and may be. A pipe cannot block this, a link is followed inside."""
    path = f"{array.folder}/{name}"
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        try:
            handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            raise
        except OSError:
            _inside(str(array.store), path)
            handle = os.open(path, flags)
    except FileNotFoundError:
        if array.complete:
            raise BrokenError("is missing, but a prepared store has every chunk") from None
        return None
    except OSError as error:
        raise BrokenError(f"cannot be opened ({error.strerror})") from None
    try:
        _folder_inside(str(array.store), path.rpartition("/")[0])
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BrokenError("is no file")
    except BaseException:
        os.close(handle)
        raise
    return handle


@lru_cache(maxsize=4096)
def _folder_inside(store: str, folder: str) -> None:
    _inside(store, folder)


def _inside(store: str, path: str) -> None:
    real = os.path.realpath(path)
    if os.path.commonpath([os.path.realpath(store), real]) != os.path.realpath(store):
        raise UnsafeError(
            f"{store}: expected a store that lies in one folder, but {path} is a link that leads out of it, to {real}; "
            "copy what it points to."
        )


def _index(handle: int, facts: ArrayFacts, size: int, numbers: list[int]) -> list[tuple[int, int]]:
    """Offset and length of each wanted chunk, checked against the file; `_EMPTY` twice = never written."""
    count = math.prod(facts.chunk) // math.prod(facts.inner)
    length = 16 * count + 4 * facts.index_checked
    if size < length:
        raise BrokenError(f"is truncated: {size} bytes cannot hold its index of {length}")
    if length > _INDEX:
        raise BrokenError(f"has an index of {length} bytes, more than any is; it cannot be read")
    begin = size - length if facts.index_at_end else 0
    data = _pread(handle, length, begin)
    if facts.index_checked and struct.unpack_from("<I", data, length - 4)[0] != crc(data[:-4]):
        raise BrokenError("is damaged or truncated: the checksum of its index does not match")
    table = np.frombuffer(data, dtype=facts.index_order + "u8", count=2 * count).reshape(count, 2)
    spans = [(int(offset), int(span)) for offset, span in table[numbers].tolist()]
    for offset, span in spans:
        if (offset, span) != (_EMPTY, _EMPTY) and offset + span > size:
            raise BrokenError(f"is damaged: its index points at bytes {offset} to {offset + span} of {size}")
    return spans


def _fill(
    array: StoredArray,
    handle: int,
    size: int,
    wanted: list[tuple[tuple[int, int], tuple[int, Place, Place]]],
    out: np.ndarray,
    decode: Decode,
) -> None:
    """Decode the wanted chunks of an open file, read in runs in the order in which they lie."""
    facts = array.facts
    scratch = np.empty(facts.inner, dtype=out.dtype)
    most = 2 * scratch.nbytes + (1 << 20)  # no codec makes more of a chunk than this
    wanted.sort(key=lambda entry: entry[0])
    data, begin, end = np.empty(0, np.uint8), 0, 0
    for position, ((offset, span), (_, into, of)) in enumerate(wanted):
        if offset == span == _EMPTY:
            if array.complete:
                raise BrokenError("lacks a chunk, but a prepared store has every chunk")
            out[into] = facts.fill
            continue
        if span > most:
            raise BrokenError(f"is damaged: {span} bytes for a chunk of {scratch.nbytes}")
        if not begin <= offset <= offset + span <= end:
            begin, end = offset, _run_end(position, wanted)
            data = np.frombuffer(_pread(handle, end - begin, begin), dtype=np.uint8)
        packed = data[offset - begin : offset - begin + span]
        target = out[into]
        if target.base is out and target.shape == scratch.shape and target.flags.c_contiguous:
            decode(packed, target)
        else:
            decode(packed, scratch)
            out[into] = scratch[of]


def _run_end(position: int, wanted: list[tuple[tuple[int, int], tuple[int, Place, Place]]]) -> int:
    """Where to stop reading: after the last of the chunks that follow one another closely enough."""
    begin, span = wanted[position][0]
    end = begin + span
    for (offset, length), _ in wanted[position + 1 :]:
        if offset == _EMPTY or offset - end > _GAP or offset + length - begin > _RUN:
            break
        end = max(end, offset + length)
    return end


def _pread(handle: int, length: int, offset: int) -> bytes:
    pieces = []
    while length > 0:
        try:
            piece = os.pread(handle, length, offset)
        except OSError as error:
            raise BrokenError(f"cannot be read ({error.strerror})") from None
        if not piece:
            raise BrokenError(f"is truncated: {length} bytes are missing at byte {offset}")
        pieces.append(piece)
        length, offset = length - len(piece), offset + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
