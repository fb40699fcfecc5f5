"""Between a fine image and the coarser one that an encoder reads: reduced batches, and inputs described more finely.

Reading and resampling of files is in `datasets` and `core.preprocess`; this is for batches, on their device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.contract import Input
from core.errors import ShapeError

Resize = Literal["mean", "bicubic"]
"""How a fine image becomes a coarser one.

`mean`: the mean over the measured voxels of each block: no voxel of another block has a say, so what a hidden patch holds
stays hidden, and what is missing is not mixed in. `bicubic`: 2D only, with antialiasing, as MRM's and UrFound's code
resizes; voxels from beyond the border of a patch bleed into it, hidden ones and missing ones (as 0) too.
"""


def reduced(batch: Batch, factor: int, method: Resize = "mean") -> Batch:
    """Make voxels `factor` times as large along every axis; what covers the same ground stays at the same place.

    A voxel is valid where at least half of what it is made of is. Spacing grows by the factor in every unit (pixels
    have a length too: that of a nominal pixel), `origin` is a place and stays, `prior` is averaged.

    Args:
        batch: of any value space; the result is float32 in the same one.
        factor: voxels along each axis that become one; 1 = nothing changes.
        method: `mean`, or `bicubic` for comparison with references.

    Raises:
        ShapeError: the factor does not divide the image, or a volume would be resized bicubically.
    """
    if factor < 1 or any(length % factor for length in batch.size):
        raise ShapeError(
            f"expected an image whose sizes are multiples of {factor}, got {batch.size}: load crops of {factor} times the "
            "size of the encoder's input."
        )
    if factor == 1:
        return batch
    known = torch.where(batch.valid, batch.image.to(torch.float32), 0.0)
    if batch.complete:
        count, valid = None, torch.ones((), dtype=torch.bool, device=known.device)
    else:
        count = _sums(batch.valid.to(torch.float32), factor)
        valid = 2 * count >= factor ** len(batch.size)
    if method == "bicubic":
        image = _bicubic(known, factor)
    else:
        image = _sums(known, factor) / (factor ** len(batch.size) if count is None else count.clamp(min=1.0))
    return replace(
        batch,
        image=torch.where(valid, image, 0.0),
        valid=valid.expand(image.shape),
        spacing=batch.spacing * factor,
        prior=None if batch.prior is None else _sums(batch.prior, factor) / factor ** len(batch.size),
    )


def finer(entry: Input, factor: int) -> Input:
    """Describe the same field of view at `factor` times as many voxels per axis: what a stream of fine crops reads.

    `reduced` brings batches of this input back to `entry`, spacing and places included.
    """
    return replace(
        entry,
        patch=tuple(edge * factor for edge in entry.patch),
        size=tuple(length * factor for length in entry.size),
        whole_size=None if entry.whole_size is None else tuple(length * factor for length in entry.whole_size),
        spacing=tuple(step / factor for step in entry.spacing),
    )


def _sums(image: Tensor, factor: int) -> Tensor:
    """Add up blocks of `factor` voxels per axis."""
    pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
    return pool(image, kernel_size=factor, divisor_override=1)


def _bicubic(image: Tensor, factor: int) -> Tensor:
    if image.ndim != 4:
        raise ShapeError(
            f"expected images of 2 axes for bicubic resizing, got {image.ndim - 2}: choose the method 'mean'."
        )
    size = [length // factor for length in image.shape[2:]]
    return functional.interpolate(image, size=size, mode="bicubic", align_corners=False, antialias=True)
