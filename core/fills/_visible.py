"""Which voxels a fill replaces, which it may learn from, and what those that are visible have in common."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from core.batch import Batch
from core.plan import Plan
from core.shapes import Grid
from core.voxel_masks import to_voxels


def hidden_voxels(batch: Batch, plan: Plan, grid: Grid) -> Tensor:
    """Give the voxels that are hidden, (B, 1 or C, *S) bool: those of the plan, or all of its hidden tokens."""
    return to_voxels(plan.hide, grid, batch.bands) if plan.voxels is None else plan.voxels


def visible_voxels(batch: Batch, plan: Plan, grid: Grid) -> Tensor:
    """Give the measured voxels that the encoder may read, (B, C, *S) bool: of valid tokens, and not hidden."""
    read = to_voxels(plan.see | plan.hide, grid, batch.bands)
    return batch.valid & read & ~hidden_voxels(batch, plan, grid)


def visible_statistics(batch: Batch, plan: Plan, grid: Grid) -> tuple[Tensor, Tensor]:
    """Measure mean and standard deviation of each sample's and band's visible voxels, (B, C, 1, ...) float32 both.

    Where nothing is visible both are 0: the middle of the encoder's value space.
    """
    visible = visible_voxels(batch, plan, grid)
    axes = tuple(range(2, batch.image.ndim))
    count = visible.sum(dim=axes, keepdim=True).clamp(min=1)
    mean = torch.where(visible, batch.image, 0.0).sum(dim=axes, keepdim=True) / count
    square = torch.where(visible, batch.image - mean, 0.0).square().sum(dim=axes, keepdim=True) / count
    # the root's slope at 0 is infinite: a flat band must not turn gradients into NaN
    return mean, torch.where(square > 0.0, square, 1.0).sqrt() * (square > 0.0)


def filled(batch: Batch, value: Tensor, where: Tensor) -> Batch:
    """Put values in place of measured voxels; what is missing stays missing."""
    return replace(batch, image=torch.where(where & batch.valid, value.to(batch.image.dtype), batch.image))
