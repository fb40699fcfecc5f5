"""Arrays to pictures: colour from bands, hidden and missing areas, slices of volumes, token maps, panels.

Arrays come in the house's order, (C Y X) or (C Z Y X), in any value space; pictures go out as uint8 (Y X 3) or, with
transparency, (Y X 4). All columns of a panel row share the grey scale of their original, so they can be compared.
No chart lives here, and nothing that knows of a run beyond the folder its pictures are written to.
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
from numpy.typing import NDArray
from torch import Tensor

from core.bands import RGB, BandNames, display_choice
from core.checkpoint import publish_text
from core.contract import Contract, Input, Normalisation
from core.errors import ShapeError
from core.pictures import Pictures
from core.sensors import get_sensor, sensor_names

Pixels = NDArray[np.uint8]

HIDDEN_TINT = (86, 180, 233)  # sky blue: apart from retina orange and tissue grey in every colour vision
_HATCH = np.array([(142, 142, 148), (112, 112, 120)], np.uint8)  # base and line of a hidden patch, opaque
_NODATA = np.array([(128, 128, 128, 40), (128, 128, 128, 120)], np.uint8)  # wash and dot; translucent: suits any page
_REGIONS = (
    ("visible", 700.0),
    ("near infrared", 1100.0),
    ("short-wave infrared", 3000.0),
    ("thermal", 1e5),
)  # end in nm
_LONGEST, _SHORTEST = 640, 192  # a picture's longer side: larger arrays are averaged down, smaller ones magnified


@dataclass(frozen=True)
class Window:
    """The values, per band, that are drawn black and white."""

    low: tuple[float, ...]
    high: tuple[float, ...]


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
    """

    input: str
    shown: BandNames
    columns: tuple[Column, ...]
    colours: str = ""
    again: bool = False


@dataclass(frozen=True)
class Colours:
    """Bands to draw as red, green and blue, or one in grey: their places, and what the picture is."""

    bands: tuple[int, ...]
    kind: str


def shown_bands(bands: BandNames, sensor: str = "") -> tuple[int, ...]:
    """Choose the bands to draw, by name: true colour where there is one, else as `colours` says."""
    return colours(bands, sensor).bands


def colours(bands: BandNames, sensor: str = "") -> Colours:
    """Choose the bands to draw as red, green and blue by their wavelengths; see `core.bands.display_choice`.

    Where no sensor is named, those that know all the names are asked, and heeded if they agree. Bands of which nothing is
    known are drawn as they come: the first three as false colour, or the first.
    """
    known: set[tuple[BandNames, str]] = set()
    for name in (sensor,) if sensor else sensor_names():
        asked = get_sensor(name)
        if all(band in asked for band in bands):
            known.add(display_choice(asked, bands))
    names, kind = known.pop() if len(known) == 1 else display_choice(None, bands)
    if kind == "one band" and len(bands) >= 3:
        return Colours((0, 1, 2), "false colour")
    return Colours(tuple(bands.index(name) for name in names), kind)


def further_colours(reads: Input) -> list[Colours]:
    """Choose what else to draw of an image of many bands: each band group, or the bands by regions of the spectrum.

    Regions are of named sensors: visible, near infrared to 1.1 um, short-wave infrared to 3 um, and thermal. What the first
    choice shows as a whole is left out, and the visible region beside true colour.
    """
    parts: dict[str, tuple[int, ...]] = {}
    if reads.groups:
        for group in reads.groups:
            parts[f"group {', '.join(group)}"] = tuple(reads.bands.index(band) for band in group)
    else:
        for position, band in enumerate(reads.described):
            region = next((name for name, end in _REGIONS if (band.centre_nm or math.inf) < end), None)
            if region is not None:
                parts[region] = (*parts.get(region, ()), position)
    first = colours(reads.bands, reads.sensor)
    shown = set(first.bands)
    if first.kind == "true colour":
        parts.pop("visible", None)
    return [Colours(_spread(part), kind) for kind, part in parts.items() if not set(part) <= shown]


def _spread(bands: tuple[int, ...]) -> tuple[int, ...]:
    """Three of the bands, the last as red; fewer are shown as one."""
    if len(bands) < 3:
        return bands[-1:]
    return (bands[-1], bands[len(bands) // 2], bands[0])


def stretch(
    image: Tensor,
    valid: Tensor,
    *,
    normalisation: Normalisation | None = None,
    percent: tuple[float, float] = (0.5, 99.5),
) -> Window:
    """Find the percentiles of an image (C *S) over its measured voxels.

    With a `fixed` normalisation the bands are taken back to raw shares and stretched together, which keeps their hue;
    without one, each band is stretched alone.
    """
    bands = image.shape[0]
    mean, std = (0.0,) * bands, (1.0,) * bands
    joint = normalisation is not None and normalisation.method == "fixed"
    if normalisation is not None and joint:
        mean, std = normalisation.mean, normalisation.std
    values = []
    for band in range(bands):
        kept = image[band][valid[band] & torch.isfinite(image[band])].to(torch.float32).cpu().numpy()
        values.append(kept[:: max(1, kept.size // 500_000)] * std[band] + mean[band])
    ends = [_percentiles(v, percent) for v in ([np.concatenate(values)] * bands if joint else values)]
    return Window(
        tuple((end[0] - m) / s for end, m, s in zip(ends, mean, std, strict=True)),
        tuple((end[1] - m) / s for end, m, s in zip(ends, mean, std, strict=True)),
    )


def _percentiles(values: NDArray[np.floating], percent: tuple[float, float]) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, percent))
    return (low, high) if high > low else (low - 0.5, low + 0.5)  # a constant image is drawn mid-grey


def to_rgb(image: Tensor, bands: BandNames, window: Window) -> Pixels:
    """Draw an image (C Y X) as (Y X 3); values outside the window saturate, non-finite ones are black.

    Raises:
        ShapeError: bands, window and channels differ in number, or the image is not 2D.
    """
    if image.ndim != 3 or not image.shape[0] == len(bands) == len(window.low):
        raise ShapeError(
            f"expected an image (C Y X) with one band name and window per channel, got {tuple(image.shape)}, "
            f"{len(bands)} names and {len(window.low)} windows."
        )
    return _drawn(image, window, shown_bands(bands))


def _drawn(image: Tensor, window: Window, bands: tuple[int, ...]) -> Pixels:
    picked = []
    for band in bands:
        low, high = window.low[band], window.high[band]
        share = (image[band].detach().to(torch.float32).cpu().numpy() - low) / (high - low)
        picked.append(np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0))
    grey = np.stack(picked if len(picked) == 3 else picked * 3, axis=-1)
    return np.rint(grey * 255).astype(np.uint8)


def mask_overlay(
    rgb: Pixels, hidden: NDArray[np.bool_], *, tint: tuple[int, int, int] = HIDDEN_TINT, strength: float = 0.6
) -> Pixels:
    """Tint the hidden pixels (Y X, True = hidden) of a picture (Y X 3); every other pixel is returned as it came."""
    mixed = rgb.astype(np.float32) * (1 - strength) + np.asarray(tint, np.float32) * strength
    return np.where(hidden[..., None], np.rint(mixed).astype(np.uint8), rgb)


def hatch(rgb: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """Replace the hidden pixels of a picture by hatched grey, which neither dark nor missing data look like."""
    y, x = np.indices(hidden.shape)
    pattern = _HATCH[((x + y) % 9 < 2).astype(np.intp)]
    return np.where(hidden[..., None], pattern, rgb)


def clear_nodata(rgb: Pixels, valid: NDArray[np.bool_]) -> Pixels:
    """Give a picture (Y X 4) whose missing areas (valid False) are a translucent dotted wash and the rest opaque."""
    y, x = np.indices(valid.shape)
    wash = _NODATA[((x % 8 < 2) & (y % 8 < 2)).astype(np.intp)]
    opaque = np.concatenate([rgb, np.full((*valid.shape, 1), 255, np.uint8)], axis=-1)
    return np.where(valid[..., None], opaque, wash)


def to_voxels(mask: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Spread a mask over tokens to the voxels of their patches: (*tokens) to (*S)."""
    for axis, size in enumerate(patch):
        mask = mask.repeat_interleave(size, dim=axis)
    return mask


def central_slices(volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut a volume (C Z Y X) through its middle voxel: (C Y X) across z, (C Z X) across y, (C Z Y) across x.

    Raises:
        ShapeError: it is not a volume.
    """
    if volume.ndim != 4:
        raise ShapeError(f"expected a volume (C Z Y X), got {tuple(volume.shape)}.")
    z, y, x = (n // 2 for n in volume.shape[1:])
    return volume[:, z], volume[:, :, y], volume[:, :, :, x]


def token_pca(tokens: Tensor, grid: tuple[int, ...]) -> Pixels:
    """Colour tokens (N D) by their first three principal components: (*grid 3); like tokens get like colours.

    Each component's sign is fixed (its largest loading is positive), so the same tokens give the same colours.

    Raises:
        ShapeError: N is not the grid's number of tokens.
    """
    if tokens.ndim != 2 or tokens.shape[0] != math.prod(grid):
        raise ShapeError(f"expected tokens (N, D), N = {math.prod(grid)} for grid {grid}, got {tuple(tokens.shape)}.")
    centred = tokens.detach().to(torch.float64).cpu()
    centred = centred - centred.mean(0)
    _, _, loadings = torch.linalg.svd(centred, full_matrices=False)
    axes = loadings[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    parts = torch.zeros(3, tokens.shape[0], dtype=torch.float64)
    parts[: axes.shape[0]] = axes @ centred.T
    # Rounding noise of a constant input must not be stretched into colours.
    parts[parts.abs().amax(1) < 1e-9 * tokens.abs().max().clamp(min=1e-30)] = 0.0
    window = stretch(parts, torch.ones_like(parts, dtype=torch.bool), percent=(1, 99))
    return to_rgb(parts[:, None], RGB, window).reshape(*grid, 3)


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
    window = stretch(original[picked], data, normalisation=_hue_of(reads, shown))
    valid = data.all(0)

    def draw(name: str, heading: str, image: Tensor, scale: Window) -> Column:
        tiles = []
        planes = zip(*(_planes(t, reads) for t in (image, hidden[None], valid[None], blank[None])), strict=True)
        for values, hide, keep, gap in planes:
            rgb, covered = _drawn(values, scale, tuple(range(len(values)))), hide[0].numpy() > 0.5
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
        label, guess = name.replace("_", " "), batch[index].mean(0, keepdim=True)
        truth = pictures.targets[name][index].mean(0, keepdim=True) if name in pictures.targets else None
        if pictures.groups and not bool(guess.any()) and (truth is None or not bool(truth.any())):
            continue  # these groups have no such target
        scale = stretch(guess if truth is None else truth, valid[None], percent=(1, 98))
        if truth is not None:
            columns.append(draw(f"{name}-target", f"{label.capitalize()}: target", truth, scale))
        columns.append(draw(name, f"{label.capitalize()}: prediction", guess, scale))
    return Row(pictures.input, bands, tuple(columns), shown.kind)


def _hue_of(reads: Input | None, shown: Colours) -> Normalisation | None:
    """The value space of the drawn bands where their hue is to be kept, as in true colour; others are stretched alone."""
    if reads is None or reads.normalisation.method != "fixed" or shown.kind != "true colour":
        return None
    mean, std = (
        tuple(each[band] for band in shown.bands) for each in (reads.normalisation.mean, reads.normalisation.std)
    )
    return Normalisation(method="fixed", mean=mean, std=std)


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


def save_png(path: Path, pixels: Pixels) -> Path:
    """Write a picture (Y X), (Y X 3) or (Y X 4); a reader never meets half a file."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    Image.fromarray(np.ascontiguousarray(pixels)).save(part, format="PNG", optimize=True)
    part.replace(path)
    return path


def save_panels(
    folder: Path,
    pictures: Sequence[Pictures],
    *,
    limit: int = 4,
    contract: Contract | None = None,
    step: int | None = None,
) -> Path:
    """Write up to `limit` rows per input as PNG files and their index `panels.json`, which `core.report` reads.

    Panels of an earlier call are replaced. The contract, where given, tells each input's colours and proportions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {entry.name: entry for entry in contract.inputs} if contract else {}
    images: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    rows, named = [], set()
    for batch in pictures:
        for row in panels(batch, limit=limit - images[batch.input], reads=known.get(batch.input)):
            columns = []
            for column in row.columns:
                stem = re.sub(r"[^\w-]+", "-", f"panel_{row.input}_{lines[row.input]:02d}_{column.name}")
                file = f"{stem}.png"
                save_png(folder / file, column.pixels)
                height, width = column.pixels.shape[:2]
                entry = {"name": column.name, "heading": column.heading, "file": file, "width": width, "height": height}
                columns.append(entry)
                named.add(file)
            about = {"shown": list(row.shown), "colours": row.colours, "volume": batch.original.ndim == 5}
            rows.append({"input": row.input, **about, "columns": columns})
            images[row.input] += not row.again
            lines[row.input] += 1
    index = folder / "panels.json"
    publish_text(index, json.dumps({"step": step, "rows": rows}, indent=1, ensure_ascii=False))
    for stale in set(folder.glob("panel_*.png")):
        if stale.name not in named:
            stale.unlink()
    return index
