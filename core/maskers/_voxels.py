"""The plan of a masker that works on voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from core.batch import Batch
from core.plan import Plan, hide_share
from core.shapes import Grid
from core.voxel_masks import to_voxels, token_share


def voxel_plan(voxels: Tensor, noise: Tensor, valid: Tensor, ratio: float, batch: Batch, grid: Grid) -> Plan:
    """Hide the tokens that a voxel mask covers most, the exact share of the valid ones; in each, only what it covers.

    What the mask covers of other tokens is left as it is, so that a seen token is seen whole. A hidden token of which it
    covers nothing is hidden whole.

    Args:
        voxels: (B, 1, *S) bool, True = covered.
        noise: (B, places) in [0, 1], decides between places that are covered alike.
        valid: (B, N) bool.
        ratio: hidden share of the valid tokens.
        batch: the batch, for its band names.
        grid: its tokens.
    """
    share = token_share(voxels, grid)
    plan = hide_share(share + 0.5 / grid.voxels * noise, valid, ratio)
    share = share.repeat(1, grid.num_groups)
    whole = plan.hide & (share == 0.0)
    hidden = to_voxels(whole, grid, batch.bands) | (voxels & to_voxels(plan.hide, grid, batch.bands))
    covered = torch.where(whole, 1.0, share) * plan.hide
    return Plan(see=plan.see, hide=plan.hide, voxels=hidden, covered=covered)
