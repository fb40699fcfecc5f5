"""Rows of pictures of one image: what it was, what the encoder saw, what was predicted; slices of volumes; their index.

All columns of a row share the grey scale of their original, so they can be compared.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.bands import BandNames
from core.checkpoint import publish_text
from core.contract import Contract, Input, Normalisation
from core.errors import ShapeError
from core.pictures import Pictures
from core.viz.colour import Colours, Pixels, Window, colours, drawn, further_colours, stretch
from core.viz.layers import clear_nodata, has_nodata, hatch, mask_overlay, save_png, to_voxels

_LONGEST, _SHORTEST = 640, 192  # a picture's longer side: larger arrays are averaged down, smaller ones magnified


@dataclass(frozen=True)
class Column:
    """One picture of a panel row: `name` is fit for a file, `heading` for a reader."""

    name: str
    heading: str
    pixels: Pixels


@dataclass(frozen=True)
class Row:
    """One image's panel: original, seen, mask, reconstruction, then target and prediction of every further map.

    Attributes:
        input: name of the input.
        shown: the bands that are drawn, as red, green and blue where there are three.
        columns: the pictures.
        colours: what the picture is, such as `true colour`.
        again: whether the image of the row before is shown in other bands.
        volume: whether each picture is three slices.
        said: a sentence of this row.
    """

    input: str
    shown: BandNames
    columns: tuple[Column, ...]
    colours: str = ""
    again: bool = False
    volume: bool = False
    said: str = ""


def panels(pictures: Pictures, *, limit: int, reads: Input | None = None) -> list[Row]:
    """Draw the first `limit` images of a batch, one row each; `reads` adds true colours and true slice proportions.

    The first image of an input with band groups, or with bands in several regions of the spectrum, has further rows. What a
    row shows as hidden and predicted is so in the groups of its bands.
    """
    count = min(limit, pictures.original.shape[0])
    first = colours(pictures.bands, reads.sensor if reads else "")
    rows = [_row(pictures, index, reads, first) for index in range(count)]
    if count and reads is not None and (reads.ndim == 2 or reads.groups) and pictures.bands == reads.bands:
        rows[1:1] = [replace(_row(pictures, 0, reads, more), again=True) for more in further_colours(reads)]
    return rows


def _row(pictures: Pictures, index: int, reads: Input | None, shown: Colours) -> Row:
    bands = tuple(pictures.bands[band] for band in shown.bands)
    pictures = pictures.of_groups(bands)
    picked = [pictures.bands.index(band) for band in bands]
    data = pictures.valid[index][picked]
    original, seen = pictures.original[index], pictures.seen[index]
    hidden = to_voxels(pictures.mask[index], pictures.patch)
    blank = ~hidden & (seen == 0).all(0) & (original != 0).any(0)  # tokens of the rim: neither seen nor predicted
    hue = _hue_of(reads, shown)
    window = stretch(original[picked], data, normalisation=hue)
    valid = data.all(0)

    def draw(name: str, heading: str, image: Tensor, scale: Window) -> Column:
        tiles = []
        planes = zip(*(_planes(t, reads) for t in (image, hidden[None], valid[None], blank[None])), strict=True)
        for values, hide, keep, gap in planes:
            rgb, covered = drawn(values, scale, tuple(range(len(values)))), hide[0].numpy() > 0.5
            if name == "seen":
                rgb = hatch(rgb, covered)
            if name == "mask":
                rgb = mask_overlay(rgb, covered)
            there = keep[0].numpy() > 0.5
            tiles.append(clear_nodata(rgb, there & (gap[0].numpy() < 0.5) if name == "seen" else there))
        return Column(name, heading, _mosaic(tiles))

    columns = [
        draw("original", "Original", original[picked], window),
        draw("seen", "What the encoder saw", seen[picked], window),
        draw("mask", "Hidden patches", original[picked], window),
    ]
    for name, batch in pictures.reconstructions.items():
        if name == "image":
            columns.append(draw("image", "Reconstruction", batch[index][picked], window))
            continue
        label, guess = spoken(name)[:1].upper() + spoken(name)[1:], batch[index].mean(0, keepdim=True)
        truth = pictures.targets[name][index].mean(0, keepdim=True) if name in pictures.targets else None
        if pictures.groups and not bool(guess.any()) and (truth is None or not bool(truth.any())):
            continue  # these groups have no such target
        scale = stretch(guess if truth is None else truth, valid[None], percent=(1, 98))
        if truth is not None:
            columns.append(draw(f"{name}-target", f"{label}: target", truth, scale))
        columns.append(draw(name, f"{label}: prediction", guess, scale))
    kind = shown.kind if hue is not None or len(bands) == 1 else f"{shown.kind}: each band is stretched alone"
    return Row(pictures.input, bands, tuple(columns), kind, volume=pictures.original.ndim == 5)


def spoken(name: str) -> str:
    """Give the name of a term as words: `scale_0_5` is scale 0.5, and `hog` is HOG."""
    words = re.sub(r"(?<=\d)_(?=\d)", ".", name).split("_")
    return " ".join("HOG" if word == "hog" else word for word in words)


def _hue_of(reads: Input | None, shown: Colours) -> Normalisation | None:
    """The value space of the drawn bands where their hue is to be kept, that of a camera's picture; others are stretched alone.

    What a satellite measures is as blue as the air above the ground: with its hue kept, a forest looks like a lake.
    """
    if reads is None or shown.kind != "true colour":
        return None
    if reads.normalisation.method != "fixed" or not reads.normalisation.full_scale:
        return None
    mean, std = (
        tuple(each[band] for band in shown.bands) for each in (reads.normalisation.mean, reads.normalisation.std)
    )
    return Normalisation(method="fixed", mean=mean, std=std)


def central_slices(volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a volume (C Z Y X) through its middle voxel: (C Y X) across z, (C Z X) across y, (C Z Y) across x.

    Raises:
        ShapeError: it is not a volume.
    """
    if volume.ndim != 4:
        raise ShapeError(f"expected a volume (C Z Y X), got {tuple(volume.shape)}.")
    z, y, x = (n // 2 for n in volume.shape[1:])
    return volume[:, z], volume[:, :, y], volume[:, :, :, x]


def _planes(image: Tensor, reads: Input | None) -> list[Tensor]:
    """Give the planes to draw, float32 on the CPU, in true proportions and at a size that can be looked at."""
    image = image.detach().to(torch.float32).cpu()
    spacing = reads.spacing if reads is not None and reads.unit != "px" else (1.0,) * (image.ndim - 1)
    if image.ndim == 3:
        flat = [(image, spacing)]
    else:
        z, y, x = spacing
        flat = list(zip(central_slices(image), ((y, x), (z, x), (z, y)), strict=True))
    finest = min(spacing)
    extent = max(n * s / finest for n, s in zip(image.shape[1:], spacing, strict=True))
    zoom = _LONGEST / extent if extent > _LONGEST else float(max(1, math.ceil(_SHORTEST / extent)))
    sizes = [[round(n * s / finest * zoom) for n, s in zip(p.shape[1:], scale, strict=True)] for p, scale in flat]
    return [_resize(plane, size) for (plane, _), size in zip(flat, sizes, strict=True)]


def _resize(plane: Tensor, size: Sequence[int]) -> Tensor:
    size = [max(1, n) for n in size]
    smaller = any(new < old for new, old in zip(size, plane.shape[1:], strict=True))
    mode = "area" if smaller else "nearest-exact"
    return torch.nn.functional.interpolate(plane[None], size=size, mode=mode)[0]


def _mosaic(tiles: Sequence[Pixels], gap: int = 6) -> Pixels:
    """Lay out one plane as it is; three as (Y X) with (Z X) below it and (Z Y), turned, to its right: edges agree."""
    if len(tiles) == 1:
        return tiles[0]
    across_z, across_y, across_x = tiles[0], tiles[1], np.swapaxes(tiles[2], 0, 1)
    (rows, columns), depth = across_z.shape[:2], across_y.shape[0]
    sheet = np.zeros((rows + gap + depth, columns + gap + depth, 4), np.uint8)
    sheet[:rows, :columns] = across_z
    sheet[rows + gap :, :columns] = across_y
    sheet[:rows, columns + gap :] = across_x
    return sheet


def save_panels(
    folder: Path,
    pictures: Sequence[Pictures],
    *,
    limit: int = 4,
    contract: Contract | None = None,
    step: int | None = None,
) -> Path:
    """Draw up to `limit` images per input and save their rows; the contract tells each input's colours and proportions."""
    known = {entry.name: entry for entry in contract.inputs} if contract else {}
    images: Counter[str] = Counter()
    rows: list[Row] = []
    for batch in pictures:
        found = panels(batch, limit=limit - images[batch.input], reads=known.get(batch.input))
        images[batch.input] += sum(not row.again for row in found)
        rows += found
    return save_rows(folder, rows, step=step)


def save_rows(folder: Path, rows: Sequence[Row], **about: object) -> Path:
    """Write rows as PNG files and their index `panels.json`, which `core.report` reads, in place of those of before.

    `about` are further entries of the index: the `step` of the pictures, or the `legend` of their colours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: Counter[str] = Counter()
    index, named = [], set()
    for row in rows:
        columns = []
        for column in row.columns:
            stem = re.sub(r"[^\w-]+", "-", f"panel_{row.input}_{lines[row.input]:02d}_{column.name}")
            file = f"{stem}.png"
            save_png(folder / file, column.pixels)
            height, width = column.pixels.shape[:2]
            columns.append(
                {"name": column.name, "heading": column.heading, "file": file, "width": width, "height": height}
            )
            named.add(file)
        lines[row.input] += 1
        facts = {"shown": list(row.shown), "colours": row.colours, "volume": row.volume, "said": row.said}
        facts["nodata"] = any(has_nodata(column.pixels) for column in row.columns)
        index.append({"input": row.input, **facts, "columns": columns})
    path = folder / "panels.json"
    publish_text(path, json.dumps({**about, "rows": index}, indent=1, ensure_ascii=False))
    for stale in set(folder.glob("panel_*.png")):
        if stale.name not in named:
            stale.unlink()
    return path
