"""The directories of a TIFF or BigTIFF, without a library: what is in the file, which blocks it holds, where it ends.

GDAL and tifffile find a missing end or a block that was never written only when they come to read it, if at all. The
few bytes of a directory say both when a file is opened, and say which reader a TIFF belongs to.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from core.errors import DamagedError, UnsupportedError

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4"}
_BIG_TYPES = {16: "u8", 17: "i8", 18: "u8"}
_MOST = 256  # directories: a file has its image, a mask and their overviews; more are pages

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _SOFTWARE, _NDPI = 270, 305, 65420
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_SCALE, _TIEPOINTS, _MATRIX, _GEO_KEYS, _RPC, _GDAL_METADATA, _GDAL_NODATA = (
    33550, 33922, 34264, 34735, 50844, 42112, 42113,
)  # fmt: skip
_OF_A_SCENE = frozenset((_SCALE, _TIEPOINTS, _MATRIX, _GEO_KEYS, _RPC, _GDAL_METADATA, _GDAL_NODATA))


class _Entry(NamedTuple):
    kind: int
    number: int  # of values
    where: int  # position of the first in the file


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One image file directory.

    Attributes:
        size: rows and columns.
        samples: per pixel.
        bits: of one sample.
        sample_format: 1 unsigned, 2 signed, 3 float, 5 and 6 complex.
        photometric: 1 gray, 2 RGB, 3 palette, ...
        extra: what samples beyond the colours are: 0 not said, 1 and 2 alpha.
        separate: True when each sample has blocks of its own.
        block: rows and columns of a block: of a tile, or of a strip.
        subfile: bit 1 = overview, bit 4 = mask.
        tags: the numbers of all its tags.
        nodata: the text of GDAL's nodata tag.
        points: values in the tiepoint tag: six each.
        tiled: whether its blocks are tiles.
        maker: the beginning of its description, and the software that wrote it.
    """

    size: tuple[int, int]
    samples: int
    bits: int
    sample_format: int
    photometric: int
    extra: tuple[int, ...]
    separate: bool
    block: tuple[int, int]
    subfile: int
    tags: frozenset[int]
    nodata: str | None
    points: int
    tiled: bool
    maker: tuple[str, str]
    _order: str
    _offsets: _Entry
    _counts: _Entry

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks: of each sample (1 if a block holds all), down, across."""
        down, across = (math.ceil(n / block) for n, block in zip(self.size, self.block, strict=True))
        return (self.samples if self.separate else 1), down, across

    @property
    def has_transform(self) -> bool:
        """Whether positions are given by a matrix or a scale, not by control points or not at all."""
        return _MATRIX in self.tags or {_SCALE, _TIEPOINTS} <= self.tags

    @property
    def has_control_points(self) -> bool:
        """Whether positions are given by ground control points or rational polynomials only."""
        return not self.has_transform and (_RPC in self.tags or self.points > 0)

    @property
    def is_overview(self) -> bool:
        """Whether it is the image at a lower resolution."""
        return bool(self.subfile & 1) and not self.subfile & 4

    @property
    def is_mask(self) -> bool:
        """Whether it is a mask, of any resolution."""
        return bool(self.subfile & 4)


def is_tiff(head: bytes) -> bool:
    """Say whether a file that begins so is a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


def belongs_to(path: Path) -> Literal["photograph", "scene", "slide", "nobody"]:
    """Say whose TIFF it is by its first directory; `nobody`: that directory is damaged.

    A photograph has one, three or four samples, gray or colour, of at most 16 bits, and no tag of geography or of GDAL.
    A slide names the maker of a scanner, or is a tiled pyramid of 8-bit colours without any such tag.
    """
    try:
        with path.open("rb") as file:
            walk = _Walk(path, file)
            first, walk.next = walk.directory()
            if _is_slide(first) or (_is_level(first) and walk.next and _is_smaller(walk.directory()[0], first)):
                return "slide"
    except (DamagedError, UnsupportedError):
        return "nobody"
    if first.tags & _OF_A_SCENE or first.samples > 4 or first.sample_format != 1 or first.bits > 16:
        return "scene"
    if first.samples > 2 and (first.photometric in (0, 1) or first.extra[:1] == (0,)):
        return "scene"  # a third sample that is no colour, or a fourth that is not alpha
    return "photograph"


def _is_slide(first: Directory) -> bool:
    """Whether a maker of scanners says so: Aperio, Hamamatsu, Leica, Ventana, Philips or Trestle."""
    description, software = first.maker
    return (
        description.startswith(("Aperio", "Label Image", "Label_Image"))
        or "leica-microsystems.com/scn" in description
        or software.startswith(("Philips DP", "MedScan"))
        or _NDPI in first.tags
    )


def _is_level(one: Directory) -> bool:
    colours = one.samples == 3 and one.bits == 8 and one.photometric in (2, 6) and one.sample_format == 1
    return colours and one.tiled and not one.subfile and not one.tags & _OF_A_SCENE


def _is_smaller(other: Directory, first: Directory) -> bool:
    ratio = [n / max(1, m) for n, m in zip(first.size, other.size, strict=True)]
    reduced = other.tiled and other.is_overview and other.samples == first.samples
    return reduced and min(ratio) > 1.5 and abs(ratio[0] - ratio[1]) < 0.05 * ratio[0]


def directories(path: Path) -> tuple[Directory, ...]:
    """Read all directories; whether the blocks they name are inside the file is checked, not what they hold.

    Raises:
        DamagedError: a directory is outside the file, names a block that is, or comes twice.
        UnsupportedError: there are more than 256.
    """
    found: list[Directory] = []
    with path.open("rb") as file:
        walk = _Walk(path, file)
        seen: set[int] = set()
        while walk.next:
            if walk.next in seen:
                raise walk.damaged(f"its directories run in a circle, at byte {walk.next}")
            if len(found) == _MOST:
                raise UnsupportedError(
                    f"{path}: expected one image, got a TIFF of more than {_MOST} pages; split it into one file each."
                )
            seen.add(walk.next)
            directory, walk.next = walk.directory()
            walk.blocks(directory)
            found.append(directory)
    return tuple(found)


def never_written(path: Path, directory: Directory) -> np.ndarray:
    """Say which blocks of a directory have no bytes, as bool of the shape `directory.grid`."""
    with path.open("rb") as file:
        counts = _Walk(path, file).blocks(directory)[1]
    missing: np.ndarray = (counts == 0).reshape(directory.grid)
    return missing


class _Walk:
    """Reads directories of one open file, by the byte order and offset size that its first bytes say."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.length = os.fstat(file.fileno()).st_size
        head = file.read(16)
        self.big = head[2:4] in (b"+\x00", b"\x00+")
        self.order = "<" if head[:2] == b"II" else ">"
        if not is_tiff(head) or len(head) < (16 if self.big else 8):
            raise self.damaged("it ends in its first bytes")
        self.next: int = struct.unpack(self.order + ("Q" if self.big else "I"), head[8:16] if self.big else head[4:8])[
            0
        ]
        if not self.next:
            raise self.damaged("it has no directory")

    def damaged(self, what: str) -> DamagedError:
        return DamagedError(f"{self.path}: expected a whole TIFF, but {what}; copy it again or remove it.")

    def _inside(self, where: int, count: int) -> None:
        if where + count > self.length:
            raise self.damaged(
                f"the file is truncated or altered: {self.length} bytes, and a directory names {where + count}"
            )

    def bytes_at(self, where: int, count: int) -> bytes:
        self._inside(where, count)
        self.file.seek(where)
        return self.file.read(count)

    def directory(self) -> tuple[Directory, int]:
        """Read the directory at `next`, and give it with the position of the one after it (0 = none)."""
        step, room = ("Q", 8) if self.big else ("I", 4)
        lead, width = (8, 20) if self.big else (2, 12)
        number = int.from_bytes(self.bytes_at(self.next, lead), "little" if self.order == "<" else "big")
        body = self.bytes_at(self.next + lead, number * width + room)
        after: int = struct.unpack(self.order + step, body[number * width :])[0]
        entries: dict[int, _Entry] = {}
        layout = struct.Struct(f"{self.order}HH{step}")
        for position in range(0, number * width, width):
            tag, kind, count = layout.unpack_from(body, position)
            where = self.next + lead + position + width - room
            size = np.dtype(self._type(kind)).itemsize * count
            if size > room:
                where = struct.unpack_from(self.order + step, body, position + width - room)[0]
                self._inside(where, size)  # of every tag: GDAL reads some that are not read here
            entries.setdefault(tag, _Entry(kind, count, where))
        return self._facts(entries), after

    def _facts(self, entries: dict[int, _Entry]) -> Directory:
        height, width = self._number(entries, _HEIGHT, 0), self._number(entries, _WIDTH, 0)
        samples = self._number(entries, _SAMPLES, 1)
        if height < 1 or width < 1 or samples < 1:
            raise self.damaged(f"its header says {height} x {width} pixels of {samples} samples")
        tiled = _TILES in entries
        places = (_TILES, _TILE_COUNTS) if tiled else (_STRIPS, _STRIP_COUNTS)
        if tiled:
            block = (self._number(entries, _TILE_HEIGHT, 0), self._number(entries, _TILE_WIDTH, 0))
        else:
            block = (min(height, self._number(entries, _ROWS_PER_STRIP, height)), width)
        if min(block) < 1 or not all(place in entries for place in places):
            raise self.damaged("its directory does not say where the pixels are")
        if _GDAL_METADATA in entries:
            self._text(entries[_GDAL_METADATA], "utf-8")
        return Directory(
            size=(height, width),
            samples=samples,
            bits=self._number(entries, _BITS, 1),
            sample_format=self._number(entries, _FORMAT, 1),
            photometric=self._number(entries, _PHOTOMETRIC, 1),
            extra=tuple(int(v) for v in self._whole(entries[_EXTRA])) if _EXTRA in entries else (),
            separate=self._number(entries, _PLANAR, 1) == 2 and samples > 1,
            block=block,
            subfile=self._number(entries, _SUBFILE, 0),
            tags=frozenset(entries),
            nodata=self._text(entries[_GDAL_NODATA], "latin-1").strip() if _GDAL_NODATA in entries else None,
            points=entries[_TIEPOINTS].number if _TIEPOINTS in entries else 0,
            tiled=tiled,
            maker=(self._label(entries, _DESCRIPTION), self._label(entries, _SOFTWARE)),
            _order=self.order,
            _offsets=entries[places[0]],
            _counts=entries[places[1]],
        )

    def blocks(self, directory: Directory) -> tuple[np.ndarray, np.ndarray]:
        """Read where the blocks begin and how many bytes each has; all that were written must be inside the file."""
        expected = math.prod(directory.grid)
        if min(directory._offsets.number, directory._counts.number) < expected:
            raise self.damaged(
                f"{directory.size[0]} x {directory.size[1]} pixels take {expected} blocks and its directory names "
                f"{min(directory._offsets.number, directory._counts.number)}"
            )
        offsets, counts = self._whole(directory._offsets)[:expected], self._whole(directory._counts)[:expected]
        if offsets.dtype.kind not in "iu" or counts.dtype.kind not in "iu":
            raise self.damaged("its directory names its blocks by other than whole numbers")
        ends = offsets.astype(np.float64) + counts  # float64: a damaged offset must not wrap around
        last = float(np.max(ends, where=counts > 0, initial=0.0))
        if last > self.length:
            raise self.damaged(
                f"the file is truncated: it has {self.length} bytes, its pixels reach to byte {last:.0f}"
            )
        return offsets, counts

    def _type(self, kind: int) -> str:
        if kind in (5, 10):
            return "V8"
        return _TYPES.get(kind) or _BIG_TYPES.get(kind) or "u1"

    def _values(self, entry: _Entry) -> np.ndarray:
        dtype = np.dtype(self._type(entry.kind)).newbyteorder(self.order)  # type: ignore[arg-type]
        return np.frombuffer(self.bytes_at(entry.where, entry.number * dtype.itemsize), dtype=dtype)

    def _label(self, entries: dict[int, _Entry], tag: int) -> str:
        if tag not in entries or entries[tag].kind != 2:
            return ""
        entry = entries[tag]
        return self.bytes_at(entry.where, min(entry.number, 1000)).split(b"\0")[0].decode("latin-1")

    def _text(self, entry: _Entry, encoding: str) -> str:
        try:
            return self._values(entry).tobytes().split(b"\0")[0].decode(encoding)
        except UnicodeDecodeError:
            raise self.damaged("its metadata is no text (UTF-8)") from None

    def _whole(self, entry: _Entry) -> np.ndarray:
        values = self._values(entry)
        if values.dtype.kind not in "iu":
            raise self.damaged(f"a directory gives sizes and places as numbers of TIFF type {entry.kind}")
        return values

    def _number(self, entries: dict[int, _Entry], tag: int, default: int) -> int:
        if tag not in entries or not entries[tag].number:
            return default
        values = self._values(entries[tag]._replace(number=1))
        return int(values[0]) if values.dtype.kind in "iu" else 0
