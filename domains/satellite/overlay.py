"""A picture of a map over its scene, for people: the scene in the colours of its bands, the classes on it, and what they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Input
from core.evaluate.table import class_name
from core.viz import classes_over, clear_nodata, colours, natural, save_png
from datasets import LazyImage
from domains.satellite.looking import STRENGTH, numbers_of, open_map
from domains.satellite.products import Legend

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_LONGEST = 1024  # pixels along an edge of what is drawn, from the middle of the scene
_LINE, _SWATCH, _NAMES, _LETTERS = 22, 14, 90, 13  # of the legend, in pixels
_INK = (40, 40, 40)


def overlay_of(path: Path) -> Path:
    """The name of the picture that belongs to a map."""
    return path.with_name(f"{path.stem}.overlay.png")


def write_overlay(image: LazyImage, entry: Input, made: Path, legend: Legend) -> Path:
    """Draw the middle of a scene, up to 1024 x 1024 pixels, without and with its classes, and the classes' names below.

    True or false colour by the bands' names, as `core.viz.natural` draws; where nothing is measured a dotted wash.
    """
    classes = open_map(made)
    starts = [max(0, (n - _LONGEST) // 2) for n in classes.size]
    rows, columns = (slice(a, min(a + _LONGEST, n)) for a, n in zip(starts, classes.size, strict=True))
    codes = numbers_of(legend)[classes.read((rows, columns))[0]]
    names = tuple(entry.bands[band] for band in colours(entry.bands, entry.sensor).bands)
    voxels, valid = image.read_valid((rows, columns), names)
    scene = natural(torch.from_numpy(voxels.astype(np.float32)), torch.from_numpy(valid), names, entry.sensor)
    measured: NDArray[np.bool_] = np.logical_and.reduce(valid)
    covered = classes_over(scene, codes, legend.colours, strength=STRENGTH)
    gap = np.zeros((len(codes), 8, 4), dtype=np.uint8)
    both = np.concatenate([clear_nodata(scene, measured), gap, clear_nodata(covered, codes >= 0)], axis=1)
    below = _legend(legend, codes[codes >= 0], both.shape[1])
    beside = np.zeros((len(both), below.shape[1] - both.shape[1], 4), dtype=np.uint8)
    return save_png(overlay_of(made), np.concatenate([np.concatenate([both, beside], axis=1), below]))


def _legend(legend: Legend, codes: NDArray[np.integer], width: int) -> NDArray[np.uint8]:
    """A line per class that occurs, the most frequent first: its share of what is mapped, its number in the map, its name.

    At least `width` pixels wide, and as wide as the longest name.
    """
    from PIL import Image, ImageDraw

    counts = [(int((codes == number).sum()), number) for number in range(len(legend.codes))]
    present = sorted((entry for entry in counts if entry[0]), key=lambda entry: (-entry[0], entry[1]))
    named = [_named(legend.codes[number], " ".join(legend.names[number].split())) for _, number in present]
    width = max([width, *(_NAMES + 4 + int(font.getlength(said) + 1) for said, font in named)])
    sheet = Image.new("RGBA", (width, _LINE * len(present) + _LINE // 2), (255, 255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for line, ((count, number), (said, font)) in enumerate(zip(present, named, strict=True)):
        top = _LINE * line + _LINE // 2
        middle = top + _SWATCH // 2
        draw.rectangle((4, top, 4 + _SWATCH, top + _SWATCH), fill=legend.colours[number])
        draw.text((_NAMES - 12, middle), f"{count / codes.size:.1%}", fill=_INK, anchor="rm", font=_fonts()[0])
        draw.text((_NAMES, middle), said, fill=_INK, anchor="lm", font=font)
    return np.asarray(sheet)


def _named(code: int, name: str) -> tuple[str, FreeTypeFont]:
    """Say which class it is, in letters that a font has; where none has them by its number, which the map explains."""
    for font in _fonts():
        if _has_letters(font, name):
            return (class_name(name) if name == str(code) else f"{code}: {name}"), font
    return f"{code}: its name is in the map's own legend", _fonts()[0]


@cache
def _fonts() -> tuple[FreeTypeFont, ...]:
    """Pillow's own font, of few letters but everywhere the same; and DejaVu Sans, where the system has it."""
    from PIL import ImageFont

    own = cast("FreeTypeFont", ImageFont.load_default(_LETTERS))  # by its size it is one, and no bitmap
    try:
        return own, ImageFont.truetype("DejaVuSans.ttf", _LETTERS)
    except OSError:
        return (own,)


def _has_letters(font: FreeTypeFont, name: str) -> bool:
    """Tell whether a font has every letter; one that it lacks is drawn as its box."""
    box = bytes(font.getmask("\uffff"))
    return all(not letter.strip() or bytes(font.getmask(letter)) != box for letter in name)
