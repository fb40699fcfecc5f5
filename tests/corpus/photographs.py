"""Photographs, PNG and JPEG: damaged, hostile, unusual."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import BudgetError, DamagedError, UnsupportedError
from datasets.image import LazyImage
from tests.corpus.kind import Accept, Kind, Refuse

Rng = np.random.Generator


def kinds() -> list[Kind]:
    """The 8 of the programme; the two ways of a wrong name and of 16 bits are thrown by the generator."""
    return [
        Kind("bomb", _bomb, Refuse(BudgetError, ("megapixels", "max_pixels"))),
        Kind("truncated", _truncated, Refuse(DamagedError, ("expected a whole", "copy it again"))),
        Kind("cmyk", _cmyk, Refuse(UnsupportedError, ("CMYK", "convert it to RGB"))),
        Kind("exif_rotated", _rotated, Accept(check=_is_upright)),
        Kind("sixteen_bits", _deep, Accept(check=_is_deep)),
        Kind("zero_bytes", _nothing, Refuse(DamagedError, "empty file (0 bytes)")),
        Kind("wrong_ending", _misnamed, Accept(check=_is_rgb)),
        Kind("blank", _blank, Accept(check=_is_blank)),
    ]


def _pixels(rng: Rng, *more: int) -> np.ndarray:
    height, width = (int(n) for n in rng.integers(40, 90, 2))
    return rng.integers(0, 256, (height, width, *more)).astype(np.uint8)


def _coin(rng: Rng, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _bomb(folder: Path, rng: Rng) -> Path:
    """A PNG of some 100 kB that declares and inflates to 30,000 x 30,000 pixels, or a JPEG whose header does."""
    if _coin(rng, "png", "jpg") == "png":
        path, edge = folder / "bomb.png", 30_000
        row = zlib.compress(bytes(1 + edge), 9)
        parts = [(b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)), (b"IDAT", row), (b"IEND", b"")]
        chunks = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        return path
    path = folder / "bomb.jpg"
    Image.fromarray(_pixels(rng, 3)).save(path, quality=80)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, 60_000, 60_000)
    path.write_bytes(data)
    return path


def _truncated(folder: Path, rng: Rng) -> Path:
    path = folder / f"cut.{_coin(rng, 'png', 'jpg')}"
    Image.fromarray(_pixels(rng, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * rng.uniform(0.4, 0.9))])
    return path


def _cmyk(folder: Path, rng: Rng) -> Path:
    Image.fromarray(_pixels(rng, 4), "CMYK").save(folder / "print.jpg")
    return folder / "print.jpg"


def _rotated(folder: Path, rng: Rng) -> Path:
    """A bright corner, top left when upright, stored turned by one of the eight orientations."""
    upright = np.full((40, 64, 3), 20, np.uint8)
    upright[:16, :16] = 220
    orientation = int(rng.integers(1, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"turned.{_coin(rng, 'png', 'jpg')}"
    Image.fromarray(_stored(upright, orientation)).save(path, exif=exif)
    return path


def _stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what EXIF says a viewer must do: 1 nothing, 2 mirror, 3 half turn, 4 flip, 5 transpose, 6 and 8 turns, 7 both."""
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # to be shown turned clockwise, hence stored turned the other way
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(undo[orientation](upright))


def _deep(folder: Path, rng: Rng) -> Path:
    path = folder / "deep.png"
    values = rng.integers(0, 65536, (50, 60)).astype(np.uint16)
    values[0, 0] = 65535
    Image.fromarray(values).save(path)
    return path


def _nothing(folder: Path, rng: Rng) -> Path:
    path = folder / f"empty.{_coin(rng, 'png', 'jpg')}"
    path.touch()
    return path


def _misnamed(folder: Path, rng: Rng) -> Path:
    kind, ending = (("PNG", "jpg"), ("JPEG", "png"), ("PNG", "nii.gz"))[int(rng.integers(3))]
    stream = io.BytesIO()
    Image.fromarray(_pixels(rng, 3)).save(stream, kind)
    path = folder / f"other.{ending}"
    path.write_bytes(stream.getvalue())
    return path


def _blank(folder: Path, rng: Rng) -> Path:
    path = folder / f"blank.{_coin(rng, 'png', 'jpg')}"
    Image.fromarray(np.full((50, 60, 3), int(rng.integers(256)), np.uint8)).save(path)
    return path


def _is_upright(image: LazyImage) -> None:
    assert image.shape == (3, 40, 64)
    pixels = image.read()
    assert pixels[:, 2:12, 2:12].min() > 180 and pixels[:, 24:, 24:].max() < 60


def _is_deep(image: LazyImage) -> None:
    assert (image.dtype, image.bands) == (np.uint16, ("gray",))
    assert np.array_equal(image.read()[0], np.asarray(Image.open(image.path)))


def _is_rgb(image: LazyImage) -> None:
    assert image.bands == ("red", "green", "blue")
    with Image.open(image.path) as shown:
        assert np.array_equal(image.read().transpose(1, 2, 0), np.asarray(shown))


def _is_blank(image: LazyImage) -> None:
    pixels, valid = image.read_valid()
    assert np.ptp(pixels) == 0 and valid.all()
