"""From the axes of a file to (Z, Y, X): z to superior, y to anterior, x to right; shared by the readers of volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.geometry import Affine
from core.preprocess import Window


@dataclass(frozen=True)
class Orientation:
    """How stored axes (i, j, k) become (Z, Y, X).

    Attributes:
        axes: which stored axis becomes Z, Y and X.
        flips: whether each of Z, Y, X runs against its stored axis.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def size(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Order a shape (or anything else) that is known along (i, j, k) as (Z, Y, X)."""
        z, y, x = self.axes
        return shape[z], shape[y], shape[x]

    def stored(self, window: Window, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        """Give the stored window, ordered (i, j, k), that holds a window of (Z, Y, X); `shape` is (i, j, k)."""
        parts = [slice(0)] * 3
        for part, axis, flip in zip(window, self.axes, self.flips, strict=True):
            n = shape[axis]
            parts[axis] = slice(n - part.stop, n - part.start) if flip else part
        return parts[0], parts[1], parts[2]

    def turn(self, voxels: np.ndarray) -> np.ndarray:
        """Give a view (Z, Y, X) of stored voxels whose axes are (i, j, k)."""
        return voxels.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]


def canonical(affine: np.ndarray, shape: tuple[int, int, int], *, source: str) -> tuple[Orientation, Affine]:
    """Find the turn to the nearest world axes, and the affine of (z, y, x, 1) after it.

    `affine` maps stored indices (i, j, k, 1) to world (x, y, z) in mm, RAS+.

    Raises:
        GeometryError: it is not finite or cannot be inverted; the message names `source`.
    """
    from nibabel.orientations import io_orientation

    Affine.of(affine, source=source)
    towards = io_orientation(affine)  # per stored axis: world axis, and +1 or -1
    axes, flips = [], []
    matrix = np.eye(4)
    matrix[:3, 3] = affine[:3, 3]
    for column, world in enumerate((2, 1, 0)):
        axis = int(np.flatnonzero(towards[:, 0] == world)[0])
        flip = bool(towards[axis, 1] < 0)
        step = affine[:3, axis]
        matrix[:3, column] = -step if flip else step
        if flip:
            matrix[:3, 3] += step * (shape[axis] - 1)
        axes.append(axis)
        flips.append(flip)
    orientation = Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
    return orientation, Affine.of(matrix, source=source)
