"""Where an image is data: finite numbers and, for a photograph on black, its content."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from core.contract import Input
from core.errors import ShapeError

_COARSE = 128  # longest side on which the content mask is found; its border is then refined at full resolution


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
