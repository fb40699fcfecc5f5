"""Small random changes of masks, so that a stored shape is never quite the same twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.maskers._superpixels import RegionCut

Array = np.ndarray[Any, Any]


def jittered(masks: Array, rng: np.random.Generator, patch: tuple[int, ...], wish: RegionCut) -> Array:
    """Move each mask of (R, *S) and grow or shrink it at random; what would vanish stays as it was."""
    reach = [round(wish.shift * p) for p in patch]
    widths = [round(wish.grow * p) for p in patch]
    moves = np.stack([rng.integers(-r, r, len(masks), endpoint=True) for r in reach], axis=1)
    grown = rng.integers(-1, 1, len(masks), endpoint=True)
    result = np.empty_like(masks)
    for number, mask in enumerate(masks):
        changed = _moved(mask, moves[number])
        if grown[number] and any(widths):
            changed = _widened(changed, widths) if grown[number] > 0 else ~_widened(~changed, widths)
        result[number] = changed if changed.any() else mask
    return result


def _moved(mask: Array, by: Array) -> Array:
    """Shift a mask without wrapping round."""
    result = np.zeros_like(mask)
    source = tuple(slice(max(-b, 0), n - max(b, 0)) for b, n in zip(by.tolist(), mask.shape, strict=True))
    target = tuple(slice(max(b, 0), n - max(-b, 0)) for b, n in zip(by.tolist(), mask.shape, strict=True))
    result[target] = mask[source]
    return result


def _widened(mask: Array, widths: list[int]) -> Array:
    """Grow a mask by some voxels along each axis; the image's border is not a border of the mask."""
    result = mask
    for axis, width in enumerate(widths):
        grown = result.copy()
        for step in range(1, width + 1):
            for sign in (-step, step):
                by = np.zeros(mask.ndim, np.int64)
                by[axis] = sign
                grown |= _moved(result, by)
        result = grown
    return result
