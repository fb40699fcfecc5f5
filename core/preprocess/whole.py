"""A whole image of any size, as an encoder reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.bands import BandNames, align
from core.contract import Input
from core.errors import BandError, ShapeError
from core.preprocess.content import everywhere, finite, measured
from core.preprocess.value_space import clip_bounds, measure, offset_scale, percentiles
from core.preprocess.windows import content_box, fit, window_of
from core.sensors._ranges import check_range


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One whole image, ready for an encoder.

    Attributes:
        image: (C, *size) float32, raw values, 0 where not valid.
        valid: (C, *size) bool, True = measured data.
        offset: (C,) float32, and
        scale: (C,) float32: value space of the encoder = (image - offset) * scale.
    """

    image: np.ndarray
    valid: np.ndarray
    offset: np.ndarray
    scale: np.ndarray


def prepare(
    image: np.ndarray,
    bands: BandNames,
    entry: Input,
    *,
    valid: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    scaling: Sequence[tuple[float, float]] | None = None,
    check: bool = True,
) -> Prepared:
    """Turn a whole image (C, *S) of any size into an encoder's input of `entry.whole` voxels.

    Bands are picked by name (`Input.named`), what is not data is found (`measured`), the content is fitted (`fit`), the
    value space is worked out (`offset_scale`), and values beyond `clip` are cut off after the fit, as in crops. `valid` (*S)
    or (C, *S), of the bands given, overrides the search for what is data; `mask` (C, *S) is joined with what the search
    finds, such as where a file has no nodata. `scaling` says per band given how raw values become physical ones. `check`
    refuses values that are not in the unit of the encoder's sensor (`check_range`), by their 1st, 50th and 99th percentiles.

    Raises:
        BandError: a band that the encoder names is missing, or its values are in another unit.
        ShapeError: the image has another rank than the encoder's input.
    """
    if image.ndim != entry.ndim + 1:
        raise ShapeError(f"expected an image (C, *S) of {entry.ndim} spatial axes, got shape {image.shape}.")
    if len(bands) != len(image):
        raise BandError(f"expected one name for each of {len(image)} channels, got {len(bands)} names: {bands}.")
    order = align(entry.named(bands), entry.bands)
    picked = list(range(len(bands))) if order is None else list(order)
    known = _known(image, entry, valid, mask)
    image = image if order is None else image[picked]
    data = _data(image, entry, known, mask, picked)
    mean, std = measure(image, data) if entry.normalisation.method == "per_image" else (None, None)
    chosen = None if scaling is None else [scaling[position] for position in picked]
    offset, scale = offset_scale(entry.normalisation, image.dtype, mean, std, scaling=chosen)
    if known is not None and is_native(entry):
        box = content_box(everywhere(known))  # of all bands of the file, as a manifest says it
        fitted, data = window_of(image, data, box, entry.whole)
    else:
        fitted, data = fit(image, data[0], entry.whole)
    if check and entry.sensor:
        check_range(entry, *percentiles(fitted, data, image.dtype, entry, chosen), source="image")
    return Prepared(image=_clipped(fitted, data, entry, offset, scale), valid=data, offset=offset, scale=scale)


def is_native(entry: Input) -> bool:
    """Say whether whole images keep their own spacing: volumes, and scenes whose pixels have a size in m or mm."""
    return entry.ndim == 3 or entry.unit != "px"


def _known(image: np.ndarray, entry: Input, valid: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray | None:
    """Say what is data before bands are picked, (C or 1, *S); None where the content is yet to be found."""
    if valid is not None:
        return valid if valid.ndim == image.ndim else valid[None]
    if is_native(entry):
        return finite(image) if mask is None else finite(image) & mask
    return None


def _data(
    image: np.ndarray, entry: Input, known: np.ndarray | None, mask: np.ndarray | None, picked: list[int]
) -> np.ndarray:
    """Say what is data of the bands picked, (C or 1, *S): each band for itself where images keep their spacing."""
    if known is not None and len(known) > 1:
        known = known[picked]
    if known is not None and is_native(entry):
        return known
    inside: np.ndarray = measured(image, entry) if known is None else np.logical_and.reduce(known)
    if known is None and mask is not None:
        inside = inside & np.logical_and.reduce(mask[picked])
    return inside[None]


def _clipped(image: np.ndarray, valid: np.ndarray, entry: Input, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Cut off, in raw values, what lies beyond the bounds of the normalisation."""
    bounds = clip_bounds(entry.normalisation)
    if bounds is None:
        return image
    ends = [offset + bound / scale for bound in bounds]  # a negative scaling swaps them
    least, most = (end.reshape(-1, *(1,) * entry.ndim) for end in (np.minimum(*ends), np.maximum(*ends)))
    return np.where(valid, np.clip(image, least, most), image)
