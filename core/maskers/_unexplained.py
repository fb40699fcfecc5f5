"""How badly regions are predicted from what surrounds them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from core.maskers._inpaint import inpaint

Array = np.ndarray[Any, Any]

_RING = 2  # voxels of the finest axis around a region that its score is measured against
_CALM = 0.05  # spread of a ring that counts as none, in units of the image's own range


def scores_of(scaled: Array, measured: Array, labels: Array, spacing: tuple[float, ...]) -> tuple[Array, Array]:
    """Paint every region shut from around it and compare: (K,) mean error, and (K,) that over the spread around it.

    Regions that do not touch are painted shut in one image, so a few images serve all of them.
    """
    count = int(labels.max()) + 1
    colours = _colours(labels, count)
    shades = colours[labels]  # 0 = no region
    batch = np.arange(1, colours.max() + 1).reshape(-1, *(1,) * labels.ndim)
    known = torch.from_numpy((shades[None] != batch) & measured[None])[:, None]
    image = torch.from_numpy(scaled)[None].expand(len(known), -1, *(-1,) * labels.ndim)
    if not len(known):
        return np.zeros(0), np.zeros(0)
    error = (inpaint(image, known, spacing) - image).abs().mean(dim=1).numpy()
    areas = np.bincount(labels.ravel(), minlength=count)[1:]
    errors = np.zeros(count - 1)
    spread = np.zeros(count - 1)
    reach = [round(_RING / s) for s in spacing]
    for number, painted in enumerate(error, start=1):
        inside = np.where(shades == number, labels, 0)
        errors += np.bincount(inside.ravel(), painted.ravel(), count)[1:] / areas
        ring = np.where((inside == 0) & measured, _spread_labels(inside, reach), 0)
        spread += _deviations(scaled, ring, count)[1:]
    return errors, errors / (spread + _CALM)


def neighbours(labels: Array, *, diagonal: bool) -> Array:
    """List pairs of labels that touch, (M, 2), lower first; 0 touches nothing."""
    ndim, count = labels.ndim, int(labels.max()) + 1
    offsets = [o for o in itertools.product((-1, 0, 1), repeat=ndim) if o > (0,) * ndim]
    codes = []
    for offset in offsets:
        if diagonal or sum(map(abs, offset)) == 1:
            here = labels[tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, labels.shape, strict=True))]
            there = labels[tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, labels.shape, strict=True))]
            differ = (here != there) & (here > 0) & (there > 0)
            low, high = np.minimum(here, there)[differ], np.maximum(here, there)[differ]
            codes.append(np.unique(low.astype(np.int64) * count + high))
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), count), axis=1)


def _colours(labels: Array, count: int) -> Array:
    """Colour the map of regions: no two that touch, be it at a corner, share a number from 1 on; label 0 gets 0."""
    touching: list[list[int]] = [[] for _ in range(count)]
    for a, b in neighbours(labels, diagonal=True).tolist():
        touching[a].append(b)
        touching[b].append(a)
    colours = np.zeros(count, np.int32)
    for label in sorted(range(1, count), key=lambda one: -len(touching[one])):
        taken = {int(colours[other]) for other in touching[label]}
        colours[label] = next(colour for colour in itertools.count(1) if colour not in taken)
    return colours


def _spread_labels(labels: Array, reach: list[int]) -> Array:
    """Carry each label outwards by `reach` voxels along each axis; where two meet the higher wins."""
    pool = functional.max_pool2d if labels.ndim == 2 else functional.max_pool3d
    wide = pool(torch.from_numpy(labels).to(torch.float32)[None, None], [2 * r + 1 for r in reach], 1, reach)
    carried: Array = wide[0, 0].numpy().astype(np.int32)
    return carried


def _deviations(scaled: Array, labels: Array, count: int) -> Array:
    """Measure the standard deviation within each label, averaged over bands; of an absent label, 0."""
    areas = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    found = np.zeros(count)
    for band in scaled.astype(np.float64):
        mean = np.bincount(labels.ravel(), band.ravel(), count) / areas
        found += np.sqrt(np.bincount(labels.ravel(), (band - mean[labels]).ravel() ** 2, count) / areas)
    result: Array = np.where(np.bincount(labels.ravel(), minlength=count) > 0, found / len(scaled), 0.0)
    return result
