"""A picture of a map over its scene, for people: the scene in the colours of its bands, the classes on it, and what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Input
from core.viz import clear_nodata, colours, save_png, stretch, to_rgb
from datasets import LazyImage, open_image
from datasets.readers import configured
from domains.satellite.products import Legend

_LONGEST = 1024  # pixels along an edge of what is drawn, from the middle of the scene
_STRENGTH = 0.45  # of the colours of classes over the scene
_LINE, _SWATCH, _SHARE = 18, 12, 42  # of the legend, in pixels


def overlay_of(path: Path) -> Path:
    """The name of the picture that belongs to a map."""
    return path.with_name(f"{path.stem}.overlay.png")


def write_overlay(image: LazyImage, entry: Input, made: Path, legend: Legend) -> Path:
    """Draw the middle of a scene, up to 1024 x 1024 pixels, without and with its classes, and the classes' names below.

    True or false colour by the bands' names; where nothing is measured a dotted wash, as in all pictures of the house.
    """
    classes = open_image(made, *configured(["geotiff.palette=index"]))
    starts = [max(0, (n - _LONGEST) // 2) for n in classes.size]
    rows, columns = (slice(a, min(a + _LONGEST, n)) for a, n in zip(starts, classes.size, strict=True))
    codes = classes.read((rows, columns))[0]
    known = codes != legend.nodata
    shown = colours(entry.bands, entry.sensor).bands
    names = tuple(entry.bands[band] for band in shown)
    voxels, valid = image.read_valid((rows, columns), names)
    pixels = torch.from_numpy(voxels.astype(np.float32))
    scene = to_rgb(pixels, names, stretch(pixels, torch.from_numpy(valid)))
    table = np.zeros((int(max(*legend.codes, legend.nodata)) + 1, 3), dtype=np.float32)
    for code, colour in zip(legend.codes, legend.colours, strict=True):
        table[code] = colour
    mixed = np.rint(scene * (1 - _STRENGTH) + table[codes] * _STRENGTH).astype(np.uint8)
    covered = np.where(known[..., None], mixed, scene)
    measured: NDArray[np.bool_] = np.logical_and.reduce(valid)
    both = [clear_nodata(scene, measured), clear_nodata(covered, known)]
    gap = np.zeros((len(codes), 8, 4), dtype=np.uint8)
    sheet = np.concatenate([both[0], gap, both[1]], axis=1)
    return save_png(overlay_of(made), np.concatenate([sheet, _legend(legend, codes[known], sheet.shape[1])]))


def _legend(legend: Legend, codes: NDArray[np.integer], width: int) -> NDArray[np.uint8]:
    """A line per class that occurs, the most frequent first, with its share of what is mapped; transparent around."""
    from PIL import Image, ImageDraw

    counts = [(int((codes == code).sum()), number) for number, code in enumerate(legend.codes)]
    present = sorted((entry for entry in counts if entry[0]), key=lambda entry: (-entry[0], entry[1]))
    sheet = Image.new("RGBA", (width, _LINE * (len(present) + 1)), (255, 255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for line, (count, number) in enumerate(present):
        top = _LINE * line + _LINE // 2
        draw.rectangle((4, top, 4 + _SWATCH, top + _SWATCH), fill=legend.colours[number])
        draw.text((10 + _SWATCH + _SHARE, top), f"{count / codes.size:.1%}", fill=(40, 40, 40), anchor="ra")
        draw.text((20 + _SWATCH + _SHARE, top), legend.names[number], fill=(40, 40, 40))
    return np.asarray(sheet)
