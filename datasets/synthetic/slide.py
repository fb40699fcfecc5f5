"""Procedural H&E slides: stroma, glands and tumour on a white background; the share of tumour carries the grade.

Absorbance is mixed from haematoxylin and eosin whose colours, strengths and sharpness are drawn per slide, independently
of the grade. Tumour differs by its nuclei (larger, closer, uneven) and by having no glands. A stand-in to run the software
on, not a model of disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.synthetic.noise import fractal, smooth, step

SIZE = (1536, 2048)  # Y X
MICRONS_PER_PIXEL = 0.5
GRADES = ((0.0, 0.0), (0.08, 0.18), (0.28, 0.45), (0.60, 0.85))  # least and most share of tumour in the tissue
_TILE = 256


@dataclass(frozen=True)
class Slide:
    """One drawn slide, all arrays (Y, X).

    Attributes:
        pixels: (Y, X, 3) uint8.
        tissue: True where there is tissue.
        tumour: True where the tissue is tumour.
        nuclei: uint32, 0 = none, else the number of the nucleus, 1 to `nuclei.max()`, none left out.
    """

    pixels: np.ndarray
    tissue: np.ndarray
    tumour: np.ndarray
    nuclei: np.ndarray

    @property
    def tumour_share(self) -> float:
        """Tumour among tissue."""
        return float(self.tumour.sum() / max(1, self.tissue.sum()))


def slide(rng: np.random.Generator, grade: int, size: tuple[int, int] = SIZE) -> Slide:
    """Draw one slide at 0.5 um per pixel; sides of at least 256 pixels."""
    longest = max(size)
    outline = fractal(rng, size, longest / 700, 4) + 0.9 - _rim(size)
    tissue = outline > 0
    lobes = fractal(rng, size, longest / 350, 3)
    share = float(rng.uniform(*GRADES[grade]))
    edge = float(np.quantile(lobes[tissue], 1 - share)) if share else np.inf
    tumour = tissue & (lobes > edge)
    glands, lumen = _glands(rng, size, longest / 140, tissue & (lobes < edge - 0.25))
    fibre = _fibres(rng, size)
    eosin = 0.42 + 0.20 * fibre + 0.05 * smooth(rng, size, longest / 60)
    nest = _blurred(tumour.astype(np.float32), 4)
    eosin += nest * (0.44 + 0.07 * smooth(rng, size, longest / 9) - eosin)
    eosin = np.where(glands, 0.36 + 0.05 * smooth(rng, size, longest / 7), eosin)
    haematoxylin = 0.07 + 0.12 * nest + np.float32(0.07) * glands
    nuclei, stain = _nuclei(rng, size, tissue, tumour, glands, lumen)
    haematoxylin = np.maximum(haematoxylin, stain)
    eosin = np.where(nuclei > 0, eosin * 0.55, eosin)
    present = step(outline, 0.03) * (1 - 0.96 * lumen) * (1 - _tears(rng, size, longest))
    return Slide(_stained(rng, haematoxylin * present, eosin * present), tissue, tumour, nuclei)


def _rim(size: tuple[int, int]) -> np.ndarray:
    """Grows towards the edges of the slide, so that tissue ends before them."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    return np.asarray(2.6 * np.maximum(np.abs(y)[:, None], np.abs(x)[None, :]) ** 4)


def _fibres(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Wavy collagen in bundles: a fine grain drawn out along a direction that a smooth field bends; about -1 to 1."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    bend, bundle = fractal(rng, size, max(size) / 260, 3), smooth(rng, size, max(size) / 90)
    angle = float(rng.uniform(0, np.pi))
    phase = (x * np.cos(angle) + y * np.sin(angle)) / 3.4 + 11 * bend
    waves = 0.5 * np.sin(phase) + 0.3 * np.sin(2.3 * phase + 3 * bundle)
    return np.asarray(
        waves * (0.35 + 0.35 * np.tanh(bundle)) + 0.35 * smooth(rng, size, max(size) / 28) + 0.3 * bundle, np.float32
    )


def _glands(
    rng: np.random.Generator, size: tuple[int, int], cells: float, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Round glands in normal tissue: the cells (bool) around a lumen (soft share)."""
    field = smooth(rng, size, cells) + 0.35 * smooth(rng, size, 2.5 * cells)
    soft = step(_blurred(where.astype(np.float32), 6) - 0.5, 0.5)
    height = field - 0.75 + (soft - 1) * 2
    return height > 0, step(height - 0.75, 0.10)


def _blurred(field: np.ndarray, radius: float) -> np.ndarray:
    from PIL import Image, ImageFilter

    grey = Image.fromarray(np.uint8(np.clip(field, 0, 1) * 255))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def _tears(rng: np.random.Generator, size: tuple[int, int], longest: int) -> np.ndarray:
    """Thin cracks that cutting leaves."""
    line = step(0.035 - np.abs(fractal(rng, size, longest / 500, 3)), 0.03)
    return np.asarray(0.95 * line * step(smooth(rng, size, longest / 400) - 0.6, 0.4))


def _nuclei(
    rng: np.random.Generator,
    size: tuple[int, int],
    tissue: np.ndarray,
    tumour: np.ndarray,
    glands: np.ndarray,
    lumen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Number every nucleus, (Y, X) uint32, and give its haematoxylin."""
    normal = tissue & ~tumour & (lumen < 0.1)
    spots = [
        _placed(rng, size, 36, normal & ~glands, 0.72, 6.2, 0.52, 0.16, 0.95),  # spindles of the stroma
        _placed(rng, size, 17, normal & glands, 0.85, 6.4, 0.12, 0.08, 0.80),  # rows around a lumen
        _placed(rng, size, 21, tumour, 0.92, 8.4, 0.22, 0.26, 0.88),  # tumour: large, close, uneven
    ]
    return _stamped(rng, size, np.concatenate(spots))


def _placed(
    rng: np.random.Generator,
    size: tuple[int, int],
    pitch: int,
    where: np.ndarray,
    taken: float,
    axis: float,
    flat: float,
    uneven: float,
    dark: float,
) -> np.ndarray:
    """Nuclei of one kind on a shaken grid, (n, 6): y, x, half axes, angle, darkness.

    `pitch`: pixels between neighbours; `taken`: share of places that hold one; `axis`: mean half axis in pixels; `flat`:
    how much shorter the other is; `uneven`: spread of both.
    """
    y, x = np.mgrid[pitch // 2 : size[0] : pitch, pitch // 2 : size[1] : pitch].astype(np.float32)
    y[:, 1::2] += pitch / 2
    room = 0.28 * pitch
    y, x = (axis_places.ravel() + rng.uniform(-room, room, y.size) for axis_places in (y, x))
    inside = (y > 12) & (y < size[0] - 12) & (x > 12) & (x < size[1] - 12) & (rng.random(y.size) < taken)
    y, x = y[inside], x[inside]
    kept = where[y.astype(int), x.astype(int)]
    y, x = y[kept], x[kept]
    long = axis * np.clip(rng.normal(1, uneven, y.size), 0.6, 1.5)
    short = long * np.clip(1 - flat + rng.normal(0, 0.4 * uneven, y.size), 0.35, 1.0)
    angle = rng.uniform(0, np.pi, y.size)
    return np.stack([y, x, long, short, angle, dark * rng.uniform(0.8, 1.15, y.size)], axis=1).astype(np.float32)


def _stamped(rng: np.random.Generator, size: tuple[int, int], spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw all nuclei at once: a small square around each, written to the places it covers."""
    reach = np.arange(-12, 13, dtype=np.float32)
    nuclei, stain = np.zeros(size, np.uint32), np.zeros(size, np.float32)
    lumps = rng.uniform(0, 2 * np.pi, (len(spots), 2)).astype(np.float32)
    for start in range(0, len(spots), 4096):  # a bounded part of memory at a time
        part, lump = spots[start : start + 4096], lumps[start : start + 4096]
        y0, x0 = part[:, 0].astype(int), part[:, 1].astype(int)
        dy = reach[None, :, None] - (part[:, 0] - y0)[:, None, None]
        dx = reach[None, None, :] - (part[:, 1] - x0)[:, None, None]
        cos, sin = np.cos(part[:, 4])[:, None, None], np.sin(part[:, 4])[:, None, None]
        along, across = (dx * cos + dy * sin) / part[:, 2, None, None], (dy * cos - dx * sin) / part[:, 3, None, None]
        turn = np.arctan2(across, along)
        distance = np.hypot(along, across) * (1 + 0.07 * np.sin(3 * turn + lump[:, :1, None]))
        chromatin = 0.86 + 0.14 * np.sin(1.3 * dx + lump[:, :1, None]) * np.sin(1.1 * dy + lump[:, 1:, None])
        shade = step(1 - distance, 0.28) * part[:, 5, None, None] * (chromatin + 0.12 * step(distance - 0.72, 0.2))
        index = (y0[:, None, None] + reach.astype(int)[None, :, None]) * size[1] + x0[:, None, None] + reach.astype(int)
        covered = distance < 1
        number = np.broadcast_to(
            np.arange(start + 1, start + 1 + len(part), dtype=np.uint32)[:, None, None], covered.shape
        )
        np.maximum.at(stain.ravel(), index.ravel(), shade.ravel())
        np.maximum.at(nuclei.ravel(), index[covered], number[covered])
    _, flat = np.unique(
        np.concatenate([[0], nuclei.ravel()]), return_inverse=True
    )  # those hidden by others do not count
    return flat[1:].reshape(size).astype(np.uint32), stain


def _stained(rng: np.random.Generator, haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """From amounts of stain to light (Beer and Lambert), with the laboratory's and the scanner's share of chance."""
    blue = np.array([0.62, 0.68, 0.32], np.float32) + rng.normal(0, 0.045, 3).astype(np.float32)
    pink = np.array([0.10, 0.82, 0.42], np.float32) + rng.normal(0, 0.045, 3).astype(np.float32)
    strength = rng.uniform(0.7, 1.5, 2).astype(np.float32)
    white = (243 + rng.uniform(-8, 8, 3)).astype(np.float32)
    pixels = np.empty((*haematoxylin.shape, 3), np.float32)
    for band in range(3):
        depth = haematoxylin * (1.5 * strength[0] * blue[band]) + eosin * (0.95 * strength[1] * max(pink[band], 0.02))
        pixels[..., band] = white[band] * np.exp(-depth)
    pixels += rng.uniform(0.8, 2.2) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_slide(path: Path, pixels: np.ndarray, *, number: int = 1) -> int:
    """Save as a pyramid of tiles that describes itself as Aperio's scanners do; gives the number of levels.

    Each level is four times smaller; after the first comes a thumbnail in strips, at the end a label and a macro image,
    as in real slides, whose label must not be mistaken for tissue. Same pixels, same bytes.
    """
    import tifffile

    levels = [pixels]
    while min(levels[-1].shape[:2]) // 4 >= 128:
        levels.append(_reduced(levels[-1], 4))
    height, width = pixels.shape[:2]
    facts = f"|AppMag = 20|MPP = {MICRONS_PER_PIXEL}|Filename = synthetic-{number:04d}"
    with tifffile.TiffWriter(path) as out:
        for place, level in enumerate(levels):
            tall, wide = level.shape[:2]
            size = f"{width}x{height} ({_TILE}x{_TILE})" + (f" -> {wide}x{tall}" if place else "")
            text = f"Aperio Image Library v11.2.1\r\n{size} Deflate{facts}"
            _page(out, level, text, tiled=True, subfile=1 if place else 0)
            if place == 0:
                thumbnail = _reduced(levels[-1], max(1, levels[-1].shape[1] // 256))
                tall, wide = thumbnail.shape[:2]
                text = f"Aperio Image Library v11.2.1\r\n{width}x{height} -> {wide}x{tall} - |AppMag = 20"
                _page(out, thumbnail, text, tiled=False, subfile=0)
        for name, picture, subfile in (("label", _label(number), 1), ("macro", _macro(levels[-1]), 9)):
            tall, wide = picture.shape[:2]
            _page(out, picture, f"Aperio Image Library v11.2.1\r\n{name} {wide}x{tall}", tiled=False, subfile=subfile)
    return len(levels)


def _page(out: Any, pixels: np.ndarray, text: str, *, tiled: bool, subfile: int) -> None:
    """One page in tiles or in strips; without loss, as tifffile encodes JPEG only with another library."""
    options: dict[str, Any] = {"tile": (_TILE, _TILE)} if tiled else {"rowsperstrip": 64}
    out.write(
        pixels,
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 4},
        subfiletype=subfile,
        description=text,
        metadata=None,
        software=False,
        datetime=False,
        **options,
    )


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(factor))


def _label(number: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    paper = Image.new("RGB", (160, 160), (232, 226, 205))
    ImageDraw.Draw(paper).multiline_text((14, 48), f"SYNTHETIC\nslide {number:04d}\nno patient", fill=(30, 30, 60))
    return np.asarray(paper)


def _macro(tissue: np.ndarray) -> np.ndarray:
    """A photograph of the whole glass: the label on the left, the tissue on the right."""
    from PIL import Image

    glass = Image.new("RGB", (480, 160), (214, 217, 216))
    glass.paste(Image.fromarray(_label(0)).resize((140, 140)), (8, 10))
    small = Image.fromarray(tissue)
    small.thumbnail((290, 130))
    glass.paste(small, (170, 15))
    return np.asarray(glass)
