"""Numbers to colours: which bands are red, green and blue, what is black and white, and what tokens have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.bands import RGB, BandNames, display_choice
from core.contract import Input, Normalisation
from core.errors import ShapeError
from core.sensors import get_sensor, sensor_names

Pixels = NDArray[np.uint8]

_REGIONS = (
    ("visible", 700.0),
    ("near infrared", 1100.0),
    ("short-wave infrared", 3000.0),
    ("thermal", 1e5),
)  # end in nm
NATURAL = "each band is stretched from its own 2 to its own 98 percent, in every picture anew"
"""What `natural` does to colours, for the reader of a page."""

# Nine colours of viridis, evenly spaced (van der Walt and Smith, 2015, CC0): as bright as the number is large.
_RAMP = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ]
)


@dataclass(frozen=True)
class Window:
    """The values, per band, that are drawn black and white."""

    low: tuple[float, ...]
    high: tuple[float, ...]


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
    return drawn(image, window, shown_bands(bands))


def drawn(image: Tensor, window: Window, bands: tuple[int, ...]) -> Pixels:
    """Draw bands of an image (C Y X) by their places, three as red, green and blue or one in grey: (Y X 3)."""
    picked = []
    for band in bands:
        low, high = window.low[band], window.high[band]
        share = (image[band].detach().to(torch.float32).cpu().numpy() - low) / (high - low)
        picked.append(np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0))
    grey = np.stack(picked if len(picked) == 3 else picked * 3, axis=-1)
    return np.rint(grey * 255).astype(np.uint8)


def natural(image: Tensor, valid: Tensor, bands: BandNames, sensor: str = "") -> Pixels:
    """Draw an image (C Y X) for the eye, as `colours` chooses and `NATURAL` says: (Y X 3)."""
    places = colours(bands, sensor).bands
    picked = image[list(places)].to(torch.float32)
    return drawn(picked, stretch(picked, valid[list(places)], percent=(2, 98)), tuple(range(len(places))))


def ramp(shares: NDArray[np.floating]) -> Pixels:
    """Colour numbers from 0 to 1 from dark blue over green to yellow, as viridis does: (*S) to (*S 3); others saturate."""
    places = np.linspace(0, 1, len(_RAMP))
    inside = np.clip(np.nan_to_num(shares), 0.0, 1.0)
    found: Pixels = np.stack([np.rint(np.interp(inside, places, _RAMP[:, band])) for band in range(3)], axis=-1).astype(
        np.uint8
    )
    return found


def principal_directions(centred: Tensor) -> tuple[Tensor, float]:
    """Give the first three principal directions (3, D) of centred tokens (N, D), and the largest singular value.

    The sign of each is fixed: its largest loading is positive. Those that the tokens lack are 0.
    """
    _, spread, loadings = torch.linalg.svd(centred, full_matrices=False)
    kept = loadings[:3][spread[:3] > 1e-9 * spread[0]]
    axes = centred.new_zeros(3, centred.shape[1])
    axes[: len(kept)] = kept * kept.gather(1, kept.abs().argmax(1, keepdim=True)).sign()
    return axes, float(spread[0])


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
    axes, _ = principal_directions(centred)
    parts = axes @ centred.T
    # Rounding noise of a constant input must not be stretched into colours.
    parts[parts.abs().amax(1) < 1e-9 * tokens.abs().max().clamp(min=1e-30)] = 0.0
    window = stretch(parts, torch.ones_like(parts, dtype=torch.bool), percent=(1, 99))
    return to_rgb(parts[:, None], RGB, window).reshape(*grid, 3)
