"""Which values rest on measured neighbours alone."""

from __future__ import annotations

from torch import Tensor


def eroded(valid: Tensor, reach: int = 1, axes: tuple[int, ...] | None = None) -> Tensor:
    """True where all voxels up to `reach` steps away, along the axes and across them, are valid too.

    What is outside the image counts as valid, since filters reflect it.

    Args:
        valid: (B, C, *S) bool.
        reach: voxels to either side.
        axes: spatial axes, 0 = first; None = all.
    """
    for axis in range(valid.ndim - 2) if axes is None else axes:
        for _ in range(reach):
            inner, shorter = valid.clone(), valid.shape[2 + axis] - 1
            inner.narrow(2 + axis, 0, shorter).logical_and_(valid.narrow(2 + axis, 1, shorter))
            inner.narrow(2 + axis, 1, shorter).logical_and_(valid.narrow(2 + axis, 0, shorter))
            valid = inner
    return valid
