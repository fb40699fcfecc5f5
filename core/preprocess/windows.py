"""Windows of an image: the box of its content, cutting, resizing by validity, fitting a whole image to a size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from core.errors import ShapeError

Window = tuple[slice, ...]


def content_box(valid: np.ndarray) -> Window:
    """Give the smallest window that holds every True of `valid` (*S); the whole array when there is none."""
    box = []
    for axis in range(valid.ndim):
        hit = np.flatnonzero(valid.any(axis=tuple(a for a in range(valid.ndim) if a != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, valid.shape[axis]))
    return tuple(box)


def fit(
    image: np.ndarray, valid: np.ndarray, size: tuple[int, ...], box: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a whole image (C, *S) with `valid` (*S) to `size`; (C, *size) float32 raw values and (C, *size) bool.

    `box` is what of it is brought there; none = its content box.

    2D: the box is resized with antialiasing until it fits, keeping its aspect, and centred; the rest is
    padding. 3D: the window of `size` at the centre of the box, at native spacing (a volume's voxels have a
    physical size, and positions are in mm), padded where the volume is smaller. Padding is 0 and not valid.

    Raises:
        ShapeError: `size` has another rank than the image.
    """
    if len(size) != valid.ndim or image.shape[1:] != valid.shape:
        raise ShapeError(
            f"expected image (C, *S) and valid (*S) of the rank of {size}, got {image.shape}, {valid.shape}."
        )
    box = content_box(valid) if box is None else box
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
