"""From the bytes of a Zarr chunk to its voxels: checksums, decompression and byte order, everything checked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np

from datasets.readers._zarr_metadata import ArrayFacts

Decode = Callable[[np.ndarray, np.ndarray], None]  # bytes of a chunk, and the array that they fill


class BrokenError(Exception):
    """What is wrong with a chunk's file; whoever reads it adds which file and which window."""


def crc(data: bytes | np.ndarray) -> int:
    return int(_crc32c()(data))


@cache
def _crc32c() -> Callable[..., int]:
    import google_crc32c

    value: Callable[..., int] = google_crc32c.value
    return value


@lru_cache(maxsize=256)
def decoder(facts: ArrayFacts) -> Decode:
    """A function that fills an array of the inner chunk's shape from the chunk's bytes, everything checked."""
    names = [step.name for step in facts.codecs]
    first = names.index("bytes")
    packer = next((name for name in names if name in ("blosc", "zstd", "gzip")), None)
    place = names.index(packer) if packer else len(names)
    sums_inside = names[first:place].count("crc32c")
    sums_outside = names[place:].count("crc32c")
    order = list(range(len(facts.inner)))
    for step in facts.codecs[:first]:
        order = [order[axis] for axis in step.detail]  # type: ignore[index]
    foreign = str(facts.codecs[first].detail) == ">" and np.dtype(facts.dtype).itemsize > 1
    stored = np.dtype(facts.dtype).newbyteorder(">" if foreign else "<")
    plain = order == sorted(order) and stored.isnative and not sums_inside
    unpack = _unpacker(packer)

    def decode(packed: np.ndarray, target: np.ndarray) -> None:
        packed = _verified(packed, sums_outside)
        if plain:
            unpack(packed, target.reshape(-1).view(np.uint8))
            return
        raw = np.empty(target.nbytes + 4 * sums_inside, dtype=np.uint8)
        unpack(packed, raw)
        values = _verified(raw, sums_inside).view(stored).reshape([target.shape[axis] for axis in order])
        target[...] = values.transpose(np.argsort(order))

    return decode


def _verified(data: np.ndarray, sums: int) -> np.ndarray:
    """The data without its trailing checksums, which must match."""
    for _ in range(sums):
        if len(data) < 4:
            raise BrokenError("is damaged: a chunk is shorter than its checksum")
        if int.from_bytes(data[-4:].tobytes(), "little") != crc(data[:-4]):
            raise BrokenError("is damaged: the checksum of a chunk does not match")
        data = data[:-4]
    return data


def _unpacker(name: str | None) -> Callable[[np.ndarray, np.ndarray], None]:
    """A function that fills bytes with what a compressed chunk holds, refusing any other length."""
    return {None: _copy, "blosc": _from_blosc, "zstd": _from_zstd, "gzip": _from_gzip}[name]


def _copy(packed: np.ndarray, raw: np.ndarray) -> None:
    _expect(len(packed), len(raw))
    raw[...] = packed


def _from_blosc(packed: np.ndarray, raw: np.ndarray) -> None:
    if len(packed) < 16:
        raise BrokenError(f"is damaged: {len(packed)} bytes cannot be a blosc chunk")
    length, _, whole = struct.unpack("<III", packed[4:16].tobytes())
    _expect(length, len(raw))
    if whole != len(packed):
        raise BrokenError(f"is damaged or truncated: a chunk declares {whole} bytes and has {len(packed)}")
    try:
        _blosc()(packed, raw)
    except (RuntimeError, ValueError) as error:
        raise BrokenError(f"is damaged: blosc cannot decode a chunk ({error})") from None


@cache
def _blosc() -> Callable[[np.ndarray, np.ndarray], object]:
    from numcodecs import blosc

    blosc.use_threads = False  # its threads do not survive a fork, and the loader has its own
    decompress: Callable[[np.ndarray, np.ndarray], object] = blosc.decompress
    return decompress


def _from_zstd(packed: np.ndarray, raw: np.ndarray) -> None:
    from numcodecs import zstd

    declared = _zstd_length(packed[:18].tobytes())
    if declared is not None:  # zstd refuses another length itself only where the frame does not declare one
        _expect(declared, len(raw))
    try:
        zstd.decompress(packed, raw)
    except (RuntimeError, ValueError) as error:
        raise BrokenError(f"is damaged: zstd cannot decode a chunk ({error})") from None


def _zstd_length(head: bytes) -> int | None:
    """Bytes of content that a zstd frame declares, if it does (RFC 8878, section 3.1.1.1)."""
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        raise BrokenError("is damaged: a chunk is no zstd frame")
    flags = head[4]
    single = flags >> 5 & 1
    size = (single, 2, 4, 8)[flags >> 6]
    begin = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    if size == 0:
        return None
    return int.from_bytes(head[begin : begin + size], "little") + (256 if size == 2 else 0)


def _from_gzip(packed: np.ndarray, raw: np.ndarray) -> None:
    inflate = zlib.decompressobj(wbits=31)
    try:
        data = inflate.decompress(packed.tobytes(), len(raw) + 1)
    except zlib.error as error:
        raise BrokenError(f"is damaged: gzip cannot decode a chunk ({error})") from None
    _expect(len(data), len(raw))
    if not inflate.eof:
        raise BrokenError("is damaged or truncated: a gzip chunk does not end")
    raw[...] = np.frombuffer(data, dtype=np.uint8)


def _expect(have: int, want: int) -> None:
    if have != want:
        raise BrokenError(f"is damaged: a chunk holds {have} bytes of voxels instead of {want}")
