"""Images whose organs are known: smooth background, bright and dark ellipsoids that stay apart, noise."""

from __future__ import annotations

import numpy as np
import torch

from core.batch import Batch
from core.contract import Input
from core.rng import key
from tests.parity.fixture import make_batch

Array = np.ndarray


def phantom(size: tuple[int, ...], seed: int, *, noise: float = 0.04) -> tuple[Array, Array]:
    """Give an image (*S) float32 and its four organs (4, *S) bool."""
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    image = 0.3 + 0.1 * sum(np.sin(2.0 * x / n) for x, n in zip(places, size, strict=True))
    organs: list[Array] = []
    taken = np.zeros(size, bool)
    while len(organs) < 4:
        centre = [rng.uniform(0.2, 0.8) * n for n in size]
        radius = [rng.uniform(0.09, 0.16) * n for n in size]
        distance = np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(places, centre, radius, strict=True)))
        if not (taken & (distance < 1.4)).any():
            organs.append(distance < 1.0)
            taken |= distance < 1.4
            image[organs[-1]] = (0.02, 0.75, 0.85, 0.95)[len(organs) - 1]
    image = image + noise * rng.standard_normal(size)
    return image.astype(np.float32), np.stack(organs)


def phantoms(entry: Input, count: int, first: int = 0) -> Batch:
    """Give phantoms as a batch; every band shows the same organs with noise of its own."""
    drawn = [phantom(entry.size, first + i)[0] for i in range(count)]
    image = torch.from_numpy(np.stack(drawn))[:, None].repeat(1, len(entry.bands), *(1,) * entry.ndim)
    batch = make_batch(image, entry)
    keys = torch.tensor([key(first, "phantom", i) for i in range(count)])
    spacing = torch.tensor(entry.spacing).expand(count, -1)
    return Batch(**{**vars(batch), "key": keys, "spacing": spacing, "unit": entry.unit})


def contour(mask: Array) -> Array:
    """Give the voxels of a mask that have a neighbour outside it; the image's border is no contour."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            shifted = np.roll(mask, step, axis)
            edge = [slice(None)] * mask.ndim
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            shifted[tuple(edge)] = mask[tuple(edge)]
            inside &= shifted
    return mask & ~inside


def dice(one: Array, other: Array) -> float:
    """Measure how alike two masks are, 0 to 1."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
