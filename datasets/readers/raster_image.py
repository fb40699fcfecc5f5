"""Photographs: PNG, JPEG and TIFF, 8 or 16 bit, gray or colour, upright by their EXIF orientation.

What cannot be read without a silent guess is refused with the cure: CMYK, transparency that is used, 1-bit annotations,
several pages. A palette is resolved to its colours, which is exact. Only the decoder that the content names is called.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from core.bands import RGB
from core.errors import BudgetError, DamagedError, DataError, UnsupportedError
from core.geometry import Spacing
from core.preprocess import Window
from datasets.image import LazyImage, Source
from datasets.readers._tiff import belongs_to
from datasets.readers._typed import typed
from datasets.readers.base import Reader

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Format = Literal["png", "jpeg", "tiff"]

_MAGIC: dict[bytes, Format] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}
_ORIENTATION = 0x0112  # EXIF and TIFF tag


@dataclass(frozen=True)
class RasterImage(Reader):
    """Reads photographs; bands are ("gray",) or ("red", "green", "blue"), spacing is in pixels.

    Attributes:
        max_pixels: refuse larger images by their header, before anything is decoded (a 109 kB file can hold 900 Mpx).
    """

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
    max_pixels: int = 200_000_000

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is PNG, JPEG, or a TIFF that is neither scene nor slide (see `_tiff.belongs_to`)."""
        kind = _format(head)
        if kind == "jpeg" and path.suffix.lower() == ".mrxs":
            return False  # the thumbnail that stands for a MIRAX slide
        return kind is not None and (kind != "tiff" or belongs_to(path) in ("photograph", "nobody"))

    def open(self, path: Path) -> LazyImage:
        """Read the header.

        Raises:
            DamagedError: it is truncated or altered.
            BudgetError: it declares more than `max_pixels`.
            UnsupportedError: printer's colours, transparency, several pages and other kinds that are not read.
        """
        with path.open("rb") as file:
            kind = _format(file.read(16))
        assert kind is not None, "open_image asks recognises first"
        facts = _tiff_facts(path) if kind == "tiff" else _pillow_facts(path, kind)
        height, width = facts.stored
        if height < 1 or width < 1:
            raise DamagedError(f"{path}: expected an image, the header says {height} x {width} pixels; copy it again.")
        if height * width > self.max_pixels:
            raise BudgetError(
                f"{path}: expected at most {self.max_pixels / 1e6:g} megapixels, the header says {height} x {width} "
                f"({height * width / 1e6:.0f}); remove it, or read it with "
                f"{typed(f'raster_image.max_pixels={height * width}')} if it is genuine."
            )
        size = (width, height) if facts.orientation >= 5 else (height, width)
        bands = RGB if facts.samples >= 3 else ("gray",)
        return LazyImage(
            path=path,
            shape=(len(bands), *size),
            dtype=np.dtype(np.uint8 if facts.bits == 8 else np.uint16),
            bands=bands,
            spacing=Spacing.pixels(2),
            affine=None,
            chunks=size,
            source=RasterSource(path, kind, facts),
        )


@dataclass(frozen=True)
class Facts:
    """What a photograph's header says.

    Attributes:
        stored: rows and columns as stored, before the orientation is applied.
        samples: 1, 2 (gray and alpha), 3, or 4 (colour and alpha).
        bits: 8 or 16.
        orientation: EXIF 1 to 8.
        pillow: decoded by Pillow; else by what knows 16-bit colour.
    """

    stored: tuple[int, int]
    samples: int
    bits: int
    orientation: int
    pillow: bool


@dataclass(frozen=True)
class RasterSource(Source):
    """Decodes the whole file at each read: none of these formats has cheap windows."""

    path: Path
    kind: Format
    facts: Facts

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Decode, drop an opaque alpha, turn upright, cut the window."""
        try:
            pixels = self._decode()
        except DataError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            raise DamagedError(
                f"{self.path}: expected a whole {self.kind.upper()} image, but it cannot be decoded ({error}); copy it "
                "again or remove it."
            ) from None
        expected = (*self.facts.stored, self.facts.samples)
        if pixels.shape != expected:
            raise DamagedError(
                f"{self.path}: expected {expected} pixels by its header, decoded {pixels.shape}; copy it again."
            )
        if self.facts.samples in (2, 4):
            opaque = 255 if pixels.dtype == np.uint8 else 65535
            if int(pixels[..., -1].min()) < opaque:
                raise UnsupportedError(
                    f"{self.path}: expected an opaque photograph, got transparent pixels (alpha below {opaque}); "
                    "flatten it onto the background that you mean, then save it without alpha."
                )
            pixels = pixels[..., :-1]
        upright = _turn(pixels, self.facts.orientation)[window]
        return np.array(upright.transpose(2, 0, 1)[list(bands)], order="C")

    def _decode(self) -> np.ndarray:
        if self.kind == "tiff" and not self.facts.pillow:
            return _tiff_pixels(self.path, self.facts)
        if not self.facts.pillow:
            from datasets.readers._png16 import decode

            return decode(self.path.read_bytes())
        with self.path.open("rb") as file:
            image = _pillow(file, self.path, self.kind)
            image.load()
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        pixels = pixels.astype(np.uint8 if self.facts.bits == 8 else np.uint16, copy=False)
        return pixels if pixels.ndim == 3 else pixels[..., None]


def _format(head: bytes) -> Format | None:
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _pillow(file: Any, path: Path, kind: Format) -> ImageFile:
    """Open by the decoder of this one format, past Pillow's own guessing and its process-wide pixel limit."""
    if kind == "png":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(file, str(path))
    if kind == "jpeg":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(file, str(path))
    from PIL.TiffImagePlugin import TiffImageFile

    return TiffImageFile(file, str(path))


_MODES = {"L": (1, 8), "LA": (2, 8), "RGB": (3, 8), "RGBA": (4, 8), "P": (3, 8), "I;16": (1, 16), "I;16B": (1, 16)}


def _pillow_facts(path: Path, kind: Format) -> Facts:
    deep = _png_facts(path) if kind == "png" else None
    if deep is not None and deep.bits == 16 and deep.samples > 1:
        return deep
    try:
        with path.open("rb") as file:
            image = _pillow(file, path, kind)
            mode, (width, height) = image.mode, image.size
            palette_alpha = mode == "P" and "transparency" in image.info
            orientation = deep.orientation if deep else int(image.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # a damaged header: Pillow raises SyntaxError, OSError, ValueError, struct.error, ...
        raise DamagedError(
            f"{path}: expected a {kind.upper()} image, but its header is damaged ({error}); copy it again or remove it."
        ) from None
    if mode not in _MODES or palette_alpha:
        raise UnsupportedError(f"{path}: {_refusal(mode, palette_alpha)}")
    samples, bits = _MODES[mode]
    return Facts((height, width), samples, bits, orientation if 1 <= orientation <= 8 else 1, True)


def _refusal(mode: str, palette_alpha: bool) -> str:
    if mode in ("CMYK", "YCCK"):
        return "expected gray or RGB, got printer's colours (CMYK); convert it to RGB with its colour profile."
    if mode == "1":
        return "expected a photograph, got a 1-bit image; annotations are not images, keep them in another folder."
    if palette_alpha:
        return "expected an opaque photograph, got a palette with transparency; flatten it and save it as RGB."
    return f"expected 8 or 16 bit, gray or RGB, got Pillow mode '{mode}'; convert it to RGB."


def _png_facts(path: Path) -> Facts:
    """Walk over the chunks without decoding: size, depth, a complete end, and the orientation wherever its chunk is."""
    orientation, header = 1, b""
    length = path.stat().st_size
    with path.open("rb") as file:
        position = 8
        while True:
            file.seek(position)
            head = file.read(8)
            count = struct.unpack(">I", head[:4])[0] if len(head) == 8 else 0
            if len(head) < 8 or position + 12 + count > length:
                raise DamagedError(
                    f"{path}: expected a whole PNG image, but the file is truncated; copy it again or remove it."
                )
            if head[4:] == b"IHDR":
                header = file.read(13)
            elif head[4:] == b"eXIf":
                orientation = _exif_orientation(file.read(count))
            elif head[4:] == b"IEND":
                break
            position += 12 + count
    if len(header) < 13:
        raise DamagedError(f"{path}: expected a PNG image, but its header is damaged; copy it again or remove it.")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    samples = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0)
    if samples > 1 and bits == 16 and header[12]:
        raise UnsupportedError(f"{path}: expected 16-bit colour PNG without interlacing; save it without, or as TIFF.")
    return Facts((height, width), samples, bits, orientation, False)


def _exif_orientation(block: bytes) -> int:
    from PIL.Image import Exif

    exif = Exif()
    try:
        exif.load(block)
        value = int(exif.get(_ORIENTATION, 1))
    except Exception:  # an unreadable EXIF block says nothing about the pixels: the image is taken as stored
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_facts(path: Path) -> Facts:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages, page = len(file.pages), file.pages.first
            shape, dtype, axes = page.shape, page.dtype, page.axes
            colour, compression = _name(page.photometric), _name(page.compression)
            tag = page.tags.get(_ORIENTATION)
            orientation = int(tag.value) if tag is not None else 1
            end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    except Exception as error:
        raise DamagedError(
            f"{path}: expected a TIFF image, but its header is damaged ({error}); copy it again."
        ) from None
    if pages != 1:
        raise UnsupportedError(
            f"{path}: expected one image, got a TIFF of {pages} pages; split it into one file per image."
        )
    if end > path.stat().st_size:
        raise DamagedError(
            f"{path}: expected a whole TIFF image, but the file is truncated; copy it again or remove it."
        )
    samples = {"YX": 1, "YXS": shape[-1], "SYX": shape[0]}.get(axes, 0)
    plain = colour in ("MINISBLACK", "RGB", "YCBCR", "PALETTE") and dtype in (np.uint8, np.uint16)
    if not plain or not 1 <= samples <= 4:
        raise UnsupportedError(
            f"{path}: expected a photograph of 8 or 16 bit, gray or RGB, got TIFF {colour} {dtype} with axes {axes} "
            f"{shape}; convert it to RGB, or save bands as separate files."
        )
    stored = (shape[1], shape[2]) if axes == "SYX" else (shape[0], shape[1])
    bits = 8 if dtype == np.uint8 else 16
    if colour == "PALETTE":
        samples, bits = 3, 8
    # tifffile alone decodes these; Pillow has the other codecs, for 8 bit.
    pillow = bits == 8 and (colour in ("YCBCR", "PALETTE") or compression not in ("NONE", "ADOBE_DEFLATE", "DEFLATE"))
    return Facts(stored, samples, bits, orientation if 1 <= orientation <= 8 else 1, pillow)


def _name(value: Any) -> str:
    """Name of an enumerated TIFF value; tifffile leaves unknown ones as plain numbers."""
    return str(getattr(value, "name", value))


def _tiff_pixels(path: Path, facts: Facts) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            pixels: np.ndarray = page.asarray()
            axes = page.axes
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UnsupportedError(
                f"{path}: this TIFF compression needs `pip install imagecodecs`, or save it with deflate."
            ) from None
        raise
    pixels = pixels.astype(np.uint8 if facts.bits == 8 else np.uint16, copy=False)  # big-endian files become native
    if axes == "SYX":
        return pixels.transpose(1, 2, 0)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (Y, X, C) upright by its EXIF orientation: where the stored row 0 and column 0 are to be shown."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
