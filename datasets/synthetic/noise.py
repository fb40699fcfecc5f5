"""Smooth random fields: what the procedural images are textured and laid out with."""

from __future__ import annotations

import numpy as np


def smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: float) -> np.ndarray:
    """A smooth random field of about unit deviation, float32, with about `cells` bumps along the longest of the last two axes.

    `shape` is (Y, X) or (Z, Y, X); a third axis is as smooth as the others, counted in voxels.
    """
    step = max(shape[-2:]) / cells
    coarse = rng.standard_normal(tuple(max(2, round(n / step)) + 3 for n in shape)).astype(np.float32)
    flat = coarse.reshape(-1, *coarse.shape[-2:])
    planes = np.stack([_resized(plane, shape[-2:]) for plane in flat])
    if len(shape) == 2:
        return np.asarray(planes[0])
    place = np.linspace(0, len(planes) - 1.001, shape[0], dtype=np.float32)
    below = place.astype(int)
    share = (place - below)[:, None, None]
    share = share * share * (3 - 2 * share)
    mixed = planes[below] * (1 - share) + planes[below + 1] * share
    return np.asarray(mixed / np.sqrt(share**2 + (1 - share) ** 2), dtype=np.float32)


def fractal(
    rng: np.random.Generator, shape: tuple[int, ...], cells: float, octaves: int, fall: float = 0.5
) -> np.ndarray:
    """A sum of smooth fields, each twice as fine and `fall` times as strong as the one before; unit deviation, mean 0."""
    field = np.zeros(shape, np.float32)
    for octave in range(octaves):
        field += np.float32(fall**octave) * smooth(rng, shape, cells * 2**octave)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6))


def step(value: np.ndarray, width: float) -> np.ndarray:
    """0 below zero, 1 above, with a soft edge of about `width`."""
    ramp: np.ndarray = np.clip(value / np.float32(width) + np.float32(0.5), 0, 1)
    return ramp


def _resized(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(plane).resize((shape[-1], shape[-2]), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32)
