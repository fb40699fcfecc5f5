"""Between masks over tokens and masks over voxels, both ways."""

from __future__ import annotations

import torch
from torch import Tensor

from core.bands import BandNames
from core.shapes import Grid, patchify


def to_voxels(tokens: Tensor, grid: Grid, bands: BandNames) -> Tensor:
    """Spread a choice of tokens (B, N) over their voxels: (B, 1, *S), or (B, C, *S) where bands have groups."""
    images: Tensor = tokens.unflatten(1, (grid.num_groups, *grid.tokens))
    for axis, edge in enumerate(grid.patch):
        images = images.repeat_interleave(edge, dim=2 + axis)
    if not grid.groups:
        return images
    owner = {band: number for number, group in enumerate(grid.groups) for band in group}
    return images[:, [owner[band] for band in bands]]


def token_share(voxels: Tensor, grid: Grid) -> Tensor:
    """Measure which share of each place is chosen, (B, places) float32, from voxels (B, 1, *S)."""
    return patchify(voxels, grid.patch).to(torch.float32).mean(dim=2)
