"""What lies over a picture: hidden patches, missing data; and the file that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.viz.colour import Pixels

HIDDEN_TINT = (86, 180, 233)  # sky blue: apart from retina orange and tissue grey in every colour vision
_HATCH = np.array([(142, 142, 148), (112, 112, 120)], np.uint8)  # base and line of a hidden patch, opaque
_NODATA = np.array([(128, 128, 128, 40), (128, 128, 128, 120)], np.uint8)  # wash and dot; translucent: suits any page


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


def has_nodata(pixels: Pixels) -> bool:
    """Tell whether `clear_nodata` found missing areas in a picture; what lies between slices is clear and is none."""
    return pixels.shape[-1] == 4 and bool(np.isin(pixels[..., 3], _NODATA[:, 3]).any())


def to_voxels(mask: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Spread a mask over tokens to the voxels of their patches: (*tokens) to (*S)."""
    for axis, size in enumerate(patch):
        mask = mask.repeat_interleave(size, dim=axis)
    return mask


def classes_over(
    rgb: Pixels, codes: NDArray[np.integer], colours: Sequence[tuple[int, int, int]], *, strength: float = 1.0
) -> Pixels:
    """Lay classes (Y X), numbers of `colours`, over a picture (Y X 3); where there is none, below 0, it stays as it came."""
    mixed = rgb * (1 - strength) + np.asarray(colours, np.float32)[np.maximum(codes, 0)] * strength
    return np.where((codes >= 0)[..., None], np.rint(mixed).astype(np.uint8), rgb)


def faded(rgb: Pixels) -> Pixels:
    """Take the colour from a picture and most of its contrast, so that what is laid over it stands out."""
    grey = rgb.astype(np.float32).mean(-1, keepdims=True)
    found: Pixels = np.rint(np.broadcast_to(150 + 0.35 * grey, rgb.shape)).astype(np.uint8)
    return found


def save_png(path: Path, pixels: Pixels) -> Path:
    """Write a picture (Y X), (Y X 3) or (Y X 4); a reader never meets half a file."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    Image.fromarray(np.ascontiguousarray(pixels)).save(part, format="PNG", optimize=True)
    part.replace(path)
    return path
