"""Whole slides by openslide: Aperio SVS, Hamamatsu NDPI, Leica SCN, Ventana BIF, Philips TIFF, MIRAX, plain tiled pyramids.

A slide is a 2D image in red, green and blue at one of its levels. openslide addresses every level by whole level-0
pixels: where a level's downsampling is no whole number it resamples by a fraction of a pixel, and another one for every
start. Such a level is therefore read in fixed blocks, so that a window always equals the slice of a full read.

Colours are those that the file holds: openslide gives them multiplied by alpha, openslide-python divides again. Where
alpha is 0 nothing was scanned: the pixel reads as 0 0 0 and is not measured. The label and the macro image show the
patient's name; nothing here can reach them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.bands import RGB
from core.errors import (
    BandError,
    BudgetError,
    ConfigError,
    DamagedError,
    MissingDataError,
    UnsafeError,
    UnsupportedError,
)
from core.geometry import Spacing
from core.preprocess import Window
from datasets.handles import borrow_file, discard
from datasets.image import Flag, LazyImage, Source
from datasets.readers._tiff import belongs_to, directories, is_tiff
from datasets.readers._typed import typed
from datasets.readers.base import Reader

_BLOCK = 256  # where a level has no tiles of its own
_REMEMBERED = 32 << 20  # bytes of the last window that are kept for `measured`
_JPEG = b"\xff\xd8\xff"
_MIRAX = ".mrxs"


@dataclass(frozen=True)
class Slide(Reader):
    """Reads one level of a slide; bands are ("red", "green", "blue"), uint8, spacing in mm.

    Attributes:
        level: 0 is the finest; the sizes of all are in `LazyImage.levels`.
        max_bytes: refuse to read more than this at once (a slide may hold 40 GB), before anything is allocated.
        bands: names of the bands, instead of red, green and blue.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".svs", ".ndpi", ".scn", ".bif", _MIRAX, ".tif", ".tiff")
    level: int = 0
    max_bytes: int = 4 << 30
    bands: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether a TIFF names a maker of scanners or is a pyramid of plain colours; MIRAX is a JPEG of that name."""
        if is_tiff(head):
            return belongs_to(path) == "slide"
        return head.startswith(_JPEG) and path.suffix.lower() == _MIRAX

    def open(self, path: Path) -> LazyImage:
        """Read the header.

        Raises:
            DataError: it is damaged or of a kind that openslide does not read.
            ConfigError: it has no such level.
            MissingDataError: openslide is not installed.
        """
        _check_mirax(path)
        _check_whole(path)
        facts = _facts(path)
        if not 0 <= self.level < len(facts.levels):
            raise ConfigError(
                f"{path}: expected a level from 0 to {len(facts.levels) - 1}, got {self.level}; the sizes are {facts.levels}."
            )
        if self.bands and len(self.bands) != len(RGB):
            raise BandError(
                f"{path}: expected {len(RGB)} band names, got {self.bands}; mend {typed('slide.bands=[...]')}."
            )
        downsample, size = facts.downsamples[self.level], facts.levels[self.level]
        whole = abs(downsample - round(downsample)) < 1e-9
        tile = facts.tiles[self.level]
        chunks = (min(tile[0], size[0]), min(tile[1], size[1]))
        flags = []
        if facts.mm is None:
            flags.append(Flag("no_spacing", "The slide does not say how large its pixels are; sizes are in pixels."))
        if not whole:
            text = f"Level {self.level} is {downsample:.6g} times smaller: its pixels are moved by up to {0.5 / downsample:.2g}."
            flags.append(Flag("level_resampled", text))
        spacing = Spacing.pixels(2) if facts.mm is None else _scaled(facts.mm, downsample)
        return LazyImage(
            path=path,
            shape=(len(RGB), *size),
            dtype=np.dtype(np.uint8),
            bands=self.bands or RGB,
            spacing=spacing,
            chunks=chunks,
            source=SlideSource(path, self.level, downsample, size, () if whole else chunks, self.max_bytes),
            levels=facts.levels,
            level=self.level,
            flags=tuple(flags),
        )


@dataclass(frozen=True)
class SlideSource(Source):
    """Reads regions through this thread's own handle.

    Attributes:
        path: the slide.
        level: which level.
        downsample: level-0 pixels per pixel of it.
        size: of the level.
        blocks: size of the fixed blocks that the level is read in; empty where any region can be read exactly.
        max_bytes: the most that one read may take.
    """

    path: Path
    level: int
    downsample: float
    size: tuple[int, ...]
    blocks: tuple[int, ...]
    max_bytes: int

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window) of colours."""
        return np.array(self._pixels(window)[..., list(bands)].transpose(2, 0, 1), order="C")

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Exclude what is transparent: never scanned, or outside the slide's own bounds."""
        return np.array(self._pixels(window)[..., 3] > 0)[None]

    def _pixels(self, window: Window) -> np.ndarray:
        """(Y, X, 4) of a window; the last one is kept with the handle, because `read_valid` asks for it twice."""
        handle: _Open = borrow_file("slide", self.path, lambda: _Open(_opened(self.path)))
        key = (self.level, *((part.start, part.stop) for part in window))
        if handle.key != key:
            height, width = (part.stop - part.start for part in window)
            if 8 * height * width > self.max_bytes:
                raise BudgetError(
                    f"{self.path}: expected at most {self.max_bytes / 2**30:.1f} GiB in one read, {height} x {width} pixels "
                    "take more; read it by windows, choose a coarser level or raise the budget: "
                    f"{typed(f'slide.max_bytes={8 * height * width}')}."
                )
            handle.key, handle.pixels = None, _EMPTY
            pixels = self._assembled(handle.slide, window)
            if pixels.nbytes > _REMEMBERED:
                return pixels
            handle.key, handle.pixels = key, pixels
        return handle.pixels

    def _assembled(self, slide: Any, window: Window) -> np.ndarray:
        if not self.blocks:
            return self._region(slide, window)
        pixels = np.zeros((*(part.stop - part.start for part in window), 4), dtype=np.uint8)
        for block in self._covering(window):
            region = self._region(slide, block)
            inside = [slice(max(w.start, b.start), min(w.stop, b.stop)) for w, b in zip(window, block, strict=True)]
            target = tuple(slice(i.start - w.start, i.stop - w.start) for i, w in zip(inside, window, strict=True))
            origin = tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(inside, block, strict=True))
            pixels[target] = region[origin]
        return pixels

    def _covering(self, window: Window) -> Iterator[tuple[slice, slice]]:
        (rows, columns), (high, wide) = window, self.blocks
        for y in range(rows.start // high * high, rows.stop, high):
            for x in range(columns.start // wide * wide, columns.stop, wide):
                yield slice(y, min(y + high, self.size[0])), slice(x, min(x + wide, self.size[1]))

    def _region(self, slide: Any, window: Window) -> np.ndarray:
        rows, columns = window
        corner = (round(columns.start * self.downsample), round(rows.start * self.downsample))
        extent = (columns.stop - columns.start, rows.stop - rows.start)
        try:
            return np.asarray(slide.read_region(corner, self.level, extent))
        except Exception as error:  # openslide's own error and, for odd sizes, ctypes' and Pillow's
            discard(("slide", self.path))  # after an error openslide refuses everything
            raise DamagedError(
                f"{self.path}: rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop} of level "
                f"{self.level} cannot be decoded ({type(error).__name__}); copy the slide again."
            ) from None


@dataclass
class _Open:
    """A handle of one thread, and the last pixels that came through it."""

    slide: Any
    key: tuple[Any, ...] | None = None
    pixels: np.ndarray = field(default_factory=lambda: _EMPTY)

    def close(self) -> None:
        self.slide.close()


_EMPTY: np.ndarray = np.empty((0, 0, 4), dtype=np.uint8)


@dataclass(frozen=True)
class _Facts:
    levels: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    tiles: tuple[tuple[int, int], ...]
    mm: tuple[float, float] | None


def _opened(path: Path) -> Any:
    try:
        import openslide
    except ImportError:
        raise MissingDataError(f"{path}: reading slides needs openslide: pip install 'halfseen[slide]'.") from None
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise UnsupportedError(
            f"{path}: expected a slide that openslide reads, got another kind or a damaged one; convert or copy it again."
        ) from None
    except openslide.OpenSlideError:  # its text may quote the header
        raise DamagedError(f"{path}: expected a whole slide, but its header is damaged; copy it again.") from None


def _facts(path: Path) -> _Facts:
    slide = _opened(path)
    try:
        levels = tuple((int(height), int(width)) for width, height in slide.level_dimensions)
        downsamples = tuple(float(value) for value in slide.level_downsamples)
        properties = slide.properties
        tiles = tuple(_tile(properties, level) for level in range(len(levels)))
        mm = _number(properties, "openslide.mpp-y") / 1000, _number(properties, "openslide.mpp-x") / 1000
    finally:
        slide.close()
    if not levels or min(min(size) for size in levels) < 1:
        raise DamagedError(f"{path}: expected a slide with pixels, its header says levels of {levels}; copy it again.")
    return _Facts(levels, downsamples, tiles, mm if min(mm) > 0 else None)


def _number(properties: Any, name: str) -> float:
    """A property as a positive number, or 0."""
    try:
        value = float(properties.get(name, "0"))
    except ValueError:
        return 0.0
    return value if 0 < value < 1e9 else 0.0


def _tile(properties: Any, level: int) -> tuple[int, int]:
    height, width = (int(_number(properties, f"openslide.level[{level}].tile-{name}")) for name in ("height", "width"))
    return (height, width) if height and width else (_BLOCK, _BLOCK)


def _scaled(mm: tuple[float, float], downsample: float) -> Spacing:
    return Spacing((mm[0] * downsample, mm[1] * downsample), "mm")


def _check_whole(path: Path) -> None:
    """Every block that a TIFF names is inside the file: openslide finds out only when it comes to the block.

    Hamamatsu's directories are no TIFF beyond 4 GB.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if is_tiff(head) and path.suffix.lower() != ".ndpi":
        directories(path)


def _check_mirax(path: Path) -> None:
    """A MIRAX slide lists the files of its folder; a list that climbs out of it is refused."""
    if path.suffix.lower() != _MIRAX:
        return
    listing = path.with_suffix("") / "Slidedat.ini"
    if not listing.is_file():
        raise DamagedError(f"{path}: expected the folder of a MIRAX slide beside it ({listing.name}); copy it as well.")
    for name in re.findall(r"(?im)^\s*(?:INDEXFILE|FILE_\d+)\s*=\s*(.+?)\s*$", listing.read_text(errors="replace")):
        if Path(name).name != name or "\\" in name:
            raise UnsafeError(f"{path}: its {listing.name} names a file outside its folder; remove it.")
