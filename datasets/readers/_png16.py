"""16-bit colour PNG, which Pillow silently reduces to 8 bit: chunks, inflate, filters undone along diagonals.

A pixel depends on its left, upper and upper-left neighbours, so all pixels of one anti-diagonal can be restored at
once: rows + columns numpy steps instead of rows x columns. Every checksum, of chunks and of the stream, is verified.
W3C Portable Network Graphics specification, second edition, sections 5, 9 and 10.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}


def decode(data: bytes) -> np.ndarray:
    """Decode a 16-bit PNG without interlacing: (Y, X, samples) uint16.

    Raises:
        ValueError: a checksum, the length or the header is wrong.
        zlib.error: the compressed stream is damaged.
    """
    header, stream = b"", []
    position = 8
    while position + 12 <= len(data):
        (count,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + count]
        if struct.pack(">I", zlib.crc32(body)) != data[position + 8 + count : position + 12 + count]:
            raise ValueError(f"checksum of chunk {body[:4]!r} does not match")
        if body[:4] == b"IHDR":
            header = body[4:]
        elif body[:4] == b"IDAT":
            stream.append(body[4:])
        position += 12 + count
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if bits != 16 or interlace or colour not in _SAMPLES:
        raise ValueError(
            f"expected 16 bit, not interlaced; got {bits} bit, colour type {colour}, interlace {interlace}"
        )
    lanes = 2 * _SAMPLES[colour]
    size = height * (1 + width * lanes)
    inflate = zlib.decompressobj()
    raw = inflate.decompress(b"".join(stream), size)
    inflate.decompress(inflate.unconsumed_tail, 64)  # reach the end, where the checksum of the stream is verified
    if len(raw) != size or not inflate.eof:
        raise ValueError(f"expected {size} bytes of pixels and the end of the stream, got {len(raw)}")
    lines = np.frombuffer(raw, dtype=np.uint8).reshape(height, 1 + width * lanes)
    restored = _unfilter(lines[:, 0], lines[:, 1:].reshape(height, width, lanes))
    return restored.reshape(height, width, lanes).view(">u2").astype(np.uint16)


def _unfilter(filters: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """Undo the filter of each line: (Y,) filter types and (Y, X, bytes per pixel) to the plain bytes."""
    height, width, lanes = coded.shape
    if filters.max(initial=0) > 4:
        raise ValueError(f"unknown filter type {filters.max()}")
    plain = np.zeros((height + 1, width + 1, lanes), dtype=np.int16)  # a zero row above and a zero column to the left
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, up, corner = plain[y + 1, x], plain[y, x + 1], plain[y, x]
        kind = filters[y][:, None]
        guess = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4], [left, up, (left + up) >> 1, _paeth(left, up, corner)], 0
        )
        plain[y + 1, x + 1] = (coded[y, x] + guess) & 0xFF
    return np.ascontiguousarray(plain[1:, 1:].astype(np.uint8))


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    guess = left + up - corner
    to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
