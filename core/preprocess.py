"""From raw values to what an encoder reads: content mask, whole-image fit, value space. The one implementation.

`datasets` (training and validation samples) and `Encoder.preprocess` (a user's array) both call these functions, so the
two cannot drift apart. Arrays are numpy, array order, `valid` True = measured data; what an image holds where it is not
valid never reaches a result. Reading files and drawing crops live in `datasets`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from core.bands import BandNames, align
from core.contract import Input, Normalisation
from core.errors import BandError, DataError, ShapeError
from core.sensors._ranges import check_range as check_range

Window = tuple[slice, ...]

_COARSE = 128  # longest side on which the content mask is found; its border is then refined at full resolution


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
    if valid is not None:
        valid = valid if valid.ndim == image.ndim else valid[None]
    elif is_native(entry):
        valid = finite(image) if mask is None else finite(image) & mask
    box = (
        content_box(everywhere(valid)) if valid is not None else None
    )  # of all bands of the file, as a manifest says it
    image = image if order is None else image[picked]
    if valid is not None and len(valid) > 1:
        valid = valid[picked]
    if not is_native(entry):
        inside: np.ndarray = measured(image, entry) if valid is None else np.logical_and.reduce(valid)
        if valid is None and mask is not None:
            inside = inside & np.logical_and.reduce(mask[picked])
        valid = inside[None]
    assert valid is not None
    mean, std = measure(image, valid) if entry.normalisation.method == "per_image" else (None, None)
    chosen = None if scaling is None else [scaling[position] for position in picked]
    offset, scale = offset_scale(entry.normalisation, image.dtype, mean, std, scaling=chosen)
    if is_native(entry) and box is not None:
        fitted, valid = window_of(image, valid, box, entry.whole)
    else:
        fitted, valid = fit(image, valid[0], entry.whole)
    if check and entry.sensor:
        check_range(entry, *_percentiles(fitted, valid, image.dtype, entry, chosen), source="image")
    if (bounds := clip_bounds(entry.normalisation)) is not None:
        ends = [offset + bound / scale for bound in bounds]  # as raw values; a negative scaling swaps them
        least, most = (end.reshape(-1, *(1,) * entry.ndim) for end in (np.minimum(*ends), np.maximum(*ends)))
        fitted = np.where(valid, np.clip(fitted, least, most), fitted)
    return Prepared(image=fitted, valid=valid, offset=offset, scale=scale)


def is_native(entry: Input) -> bool:
    """Say whether whole images keep their own spacing: volumes, and scenes whose pixels have a size in m or mm."""
    return entry.ndim == 3 or entry.unit != "px"


def finite(image: np.ndarray) -> np.ndarray:
    """Say which numbers are numbers: (C, *S) bool, or (1, *S) where the type knows no other."""
    whole = np.ones((1, *image.shape[1:]), dtype=bool)
    found: np.ndarray = np.isfinite(image) if image.dtype.kind == "f" else whole
    return found


def everywhere(valid: np.ndarray) -> np.ndarray:
    """Say where some band is data, (*S), of `valid` (C, *S)."""
    found: np.ndarray = valid[0] if len(valid) == 1 else np.logical_or.reduce(valid)
    return found


def measured(image: np.ndarray, entry: Input) -> np.ndarray:
    """Say where an image (C, *S) is data, (*S) bool: finite in every band and, on a dark background, in the content.

    Raises:
        ShapeError: a dark background on an image that is not 2D.
    """
    numbers: np.ndarray = np.logical_and.reduce(finite(image))
    if entry.background == "none":
        return numbers
    if entry.ndim != 2:
        raise ShapeError(f"input '{entry.name}': a dark background is found on 2D images only, got {entry.ndim}D.")
    content: np.ndarray = numbers & foreground(image)
    return content


def foreground(image: np.ndarray) -> np.ndarray:
    """Find the content of a photograph (C, Y, X) with a black surround, such as the disc of a fundus photograph.

    (Y, X) bool: the largest connected region brighter than a tenth of the way from black level to bright content, holes
    filled. An image without a nearly black part is content everywhere, and so is a constant one.
    """
    bright = image.max(axis=0).astype(np.float32)
    bright = np.where(np.isfinite(bright), bright, 0.0)
    shape = tuple(math.ceil(n / math.ceil(max(bright.shape) / _COARSE)) for n in bright.shape)
    coarse = F.adaptive_avg_pool2d(torch.from_numpy(bright)[None, None], shape)[0, 0].numpy()
    black, white = np.percentile(coarse, [1.0, 95.0])
    if white <= 0 or black > 0.15 * white:
        return np.ones(bright.shape, dtype=bool)
    threshold = black + 0.1 * (white - black)
    content = _without_holes(_largest(coarse > threshold))
    # Only cells at the border of the content are decided pixel by pixel: noise elsewhere changes nothing.
    grown, core = _dilate(content), ~_dilate(~content)
    found: np.ndarray = (_enlarge(grown, bright.shape) & (bright > threshold)) | _enlarge(core, bright.shape)
    return found


def content_box(valid: np.ndarray) -> Window:
    """Give the smallest window that holds every True of `valid` (*S); the whole array when there is none."""
    box = []
    for axis in range(valid.ndim):
        hit = np.flatnonzero(valid.any(axis=tuple(a for a in range(valid.ndim) if a != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, valid.shape[axis]))
    return tuple(box)


def fit(image: np.ndarray, valid: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bring a whole image (C, *S) with `valid` (*S) to `size`; (C, *size) float32 raw values and (C, *size) bool.

    2D: the content box is resized with antialiasing until it fits, keeping its aspect, and centred; the rest is
    padding. 3D: the window of `size` at the centre of the content box, at native spacing (a volume's voxels have a
    physical size, and positions are in mm), padded where the volume is smaller. Padding is 0 and not valid.

    Raises:
        ShapeError: `size` has another rank than the image.
    """
    if len(size) != valid.ndim or image.shape[1:] != valid.shape:
        raise ShapeError(
            f"expected image (C, *S) and valid (*S) of the rank of {size}, got {image.shape}, {valid.shape}."
        )
    box = content_box(valid)
    lengths = [part.stop - part.start for part in box]
    if valid.ndim == 2:
        inner = resized(lengths, size)
        image, valid = resample(image[(slice(None), *box)], valid[box], (inner[0], inner[1]))
        box = tuple(slice(0, n) for n in inner)
    return window_of(image, valid, box, size)


def window_of(
    image: np.ndarray, valid: np.ndarray, box: Window, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the window of `size` at the centre of `box`: (C, *size) float32, 0 where it is not valid, and (C, *size) bool."""
    image, valid = cut(image, valid, centred(box, size), size)
    image = np.where(valid, image, 0).astype(np.float32)
    return image, np.broadcast_to(valid, image.shape).copy()


def resized(lengths: Sequence[int], size: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths of 2D content after it is resized to fit into `size`, keeping its aspect."""
    share = min(s / n for s, n in zip(size, lengths, strict=True))
    return tuple(min(s, max(1, round(n * share))) for s, n in zip(size, lengths, strict=True))


def placed(window: Window, box: Window, size: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Say where `fit` would put a window of a 2D image whose content is `box`: start and length per axis, in voxels of `size`."""
    inner = resized([part.stop - part.start for part in box], size)
    before = [-start for start in centred(tuple(slice(0, n) for n in inner), size)]
    shares = [n / (part.stop - part.start) for n, part in zip(inner, box, strict=True)]
    starts = [b + (w.start - c.start) * s for b, w, c, s in zip(before, window, box, shares, strict=True)]
    return tuple(starts), tuple((w.stop - w.start) * s for w, s in zip(window, shares, strict=True))


def centred(box: Window, size: tuple[int, ...]) -> tuple[int, ...]:
    """Start of the window of `size` whose centre is the box's; before the box where the window is the larger one."""
    rooms = [part.stop - part.start - s for part, s in zip(box, size, strict=True)]
    return tuple(
        part.start + (room // 2 if room >= 0 else -(-room // 2)) for part, room in zip(box, rooms, strict=True)
    )


def cut(
    image: np.ndarray, valid: np.ndarray, start: tuple[int, ...], size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Read the window of `size` that begins at `start`, which may lie outside: there it is 0 and not valid.

    `valid` is (*S), or has a band axis too. (C, *size) of the image's dtype, and bool of the rank of `valid`; both fresh.
    """
    length = image.shape[1:]
    source = tuple(slice(max(0, a), max(0, min(n, a + s))) for a, s, n in zip(start, size, length, strict=True))
    target = tuple(slice(part.start - a, part.stop - a) for part, a in zip(source, start, strict=True))
    out = np.zeros((image.shape[0], *size), dtype=image.dtype)
    inside = np.zeros((*valid.shape[: valid.ndim - len(size)], *size), dtype=bool)
    if all(part.stop > part.start for part in source):
        out[(slice(None), *target)] = image[(slice(None), *source)]
        every = (slice(None),) * (valid.ndim - len(size))
        inside[every + target] = valid[every + source]
    return out, inside


def resample(image: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Resize (C, Y, X) to `size` with antialiasing, (C, *size) float32 and (*size) bool.

    Weighted by `valid`, so that a black surround never bleeds into the content's edge; a pixel is valid when at least
    half of what it gathers is, and 0 otherwise.
    """
    pixels = torch.from_numpy(np.array(image, dtype=np.float32, order="C"))
    if valid.all():
        resized = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False)
        return resized[0].numpy(), np.ones(size, dtype=bool)
    weight = torch.from_numpy(np.array(valid, order="C"))
    pixels = torch.where(weight, pixels, 0.0)
    joined = torch.cat([pixels, weight.to(torch.float32)[None]])[None]
    resized = F.interpolate(joined, size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    inside = resized[-1] >= 0.5
    values = torch.where(inside, resized[:-1] / resized[-1].clamp_min(0.5), 0.0)
    return values.numpy(), inside.numpy()


def measure(image: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each band over the valid voxels, (C,) float64 each; 0 and 0 when there are none.

    `valid` is (*S), or (C, *S) where bands differ in it. One pass along the first spatial axis, slab by slab, merged by
    Chan, Golub, LeVeque 1979: memory stays small for large volumes and float32 data loses nothing.
    """
    if valid.ndim == image.ndim:
        if len(valid) == 1:
            return measure(image, valid[0])
        alone = [measure(image[band : band + 1], valid[band]) for band in range(len(image))]
        return np.concatenate([m for m, _ in alone]), np.concatenate([s for _, s in alone])
    count, mean, square = 0, np.zeros(len(image)), np.zeros(len(image))
    step = max(1, (1 << 20) // max(1, math.prod(valid.shape[1:])))
    for start in range(0, valid.shape[0], step):
        inside = valid[start : start + step]
        slab = image[:, start : start + step]
        # Each band's values in one row of memory: ten times as fast as a strided sum, and the same bits alone or together.
        rows = slab.reshape(len(image), -1) if inside.all() else np.stack([band[inside] for band in slab])
        values = rows.astype(np.float64, order="C")
        number = values.shape[1]
        if number == 0:
            continue
        centre = values.mean(axis=1)
        delta = centre - mean
        values -= centre[:, None]
        square += np.square(values, out=values).sum(axis=1) + delta**2 * count * number / (count + number)
        mean += delta * number / (count + number)
        count += number
    return mean, np.sqrt(square / max(1, count))


def full_scale(dtype: np.dtype) -> float:
    """The raw value that means 1.0: 255 for 8 bit, 65535 for 16 bit unsigned, 1 for every other type."""
    return {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(np.dtype(dtype).newbyteorder("="), 1.0)


def offset_scale(
    normalisation: Normalisation,
    dtype: np.dtype,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    *,
    scaling: Sequence[tuple[float, float]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Give (C,) float32 offset and scale: value space of the encoder = (raw - offset) * scale.

    `mean` and `std` are the image's own, of raw values, and are read by `per_image` only; a constant band (std 0) is
    only centred. `scaling` is per band (s, o) with physical value = raw * s + o: `fixed` means and deviations then are of
    physical values, and full scale is 1; `per_image` takes only the sign of s from it.

    Raises:
        DataError: `per_image` without the image's mean and standard deviation, or with ones that are not finite; a
            scaling whose s is 0 or not finite.
    """
    steps = np.array([s for s, _ in scaling] if scaling else [1.0], dtype=np.float64)
    shifts = np.array([o for _, o in scaling] if scaling else [0.0], dtype=np.float64)
    if not (np.isfinite(steps).all() and np.isfinite(shifts).all() and (steps != 0).all()):
        raise DataError(f"expected a finite scaling per band that is not 0, got {scaling}; mend the file's metadata.")
    if normalisation.method == "fixed" and scaling:
        offset = (np.array(normalisation.mean) - shifts) / steps
        spread = np.array(normalisation.std) / steps
    elif normalisation.method == "fixed":
        top = full_scale(dtype) if normalisation.full_scale else 1.0
        offset, spread = np.array(normalisation.mean) * top, np.array(normalisation.std) * top
    else:
        if mean is None or std is None or not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise DataError(f"expected the image's finite mean and standard deviation per band, got {mean} and {std}.")
        offset = np.asarray(mean, dtype=np.float64)
        spread = np.where(np.asarray(std) > 0, std, 1.0) * np.sign(steps)
    return offset.astype(np.float32), (1.0 / spread).astype(np.float32)


def clip_bounds(normalisation: Normalisation) -> tuple[np.ndarray, np.ndarray] | None:
    """Give the least and the greatest value per band in the encoder's value space, (C,) float32 each; None = unbounded."""
    if not normalisation.clip:
        return None
    mean, std = np.array(normalisation.mean), np.array(normalisation.std)
    low, high = (np.array(bound) for bound in zip(*normalisation.clip, strict=True))
    return ((low - mean) / std).astype(np.float32), ((high - mean) / std).astype(np.float32)


def _percentiles(
    raw: np.ndarray,
    valid: np.ndarray,
    dtype: np.dtype,
    entry: Input,
    scaling: Sequence[tuple[float, float]] | None,
) -> list[np.ndarray]:
    """Measure the 1st, 50th and 99th percentile of each band (C, *S) as physical values; NaN where nothing is valid."""
    found = []
    for at, (band, inside) in enumerate(zip(raw, np.broadcast_to(valid, raw.shape), strict=True)):
        values = band[inside]
        numbers = np.percentile(values, [1, 50, 99]) if values.size else np.full(3, np.nan)
        if scaling is not None:
            numbers = np.sort(numbers * scaling[at][0] + scaling[at][1])
        elif entry.described[at].unit == "full scale":
            numbers = numbers / full_scale(dtype)
        found.append(numbers)
    return list(np.stack(found, axis=1))


def _dilate(mask: np.ndarray) -> np.ndarray:
    grown: np.ndarray = F.max_pool2d(torch.from_numpy(mask.astype(np.float32))[None, None], 3, 1, 1)[0, 0].numpy()
    return grown > 0.5


def _enlarge(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, mask.shape, strict=True))
    larger: np.ndarray = mask[rows][:, columns]
    return larger


def _largest(mask: np.ndarray) -> np.ndarray:
    labels = _components(mask)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return labels == counts.argmax() if counts.any() else mask


def _without_holes(mask: np.ndarray) -> np.ndarray:
    outside = _components(~mask)
    border = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
    return ~np.isin(outside, border[border > 0])


def _components(mask: np.ndarray) -> np.ndarray:
    """Number the 4-connected regions of (Y, X) bool, 0 = background: union-find over the runs of each row."""
    labels = np.zeros(mask.shape, dtype=np.int64)
    parent = [0]

    def root(label: int) -> int:
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    for y, edge in enumerate(edges):
        for start, stop in zip(np.flatnonzero(edge == 1), np.flatnonzero(edge == -1), strict=True):
            label = len(parent)
            parent.append(label)
            if y:
                above = labels[y - 1, start:stop]
                for touched in np.unique(above[above > 0]):
                    parent[root(int(touched))] = root(label)
            labels[y, start:stop] = label
    return np.array([root(label) for label in range(len(parent))])[labels]
