"""Tokens by band group: what a part does for all bands, done for each group and laid side by side, group by group."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.shapes import Grid, patchify

Part = Callable[[Batch, Grid], tuple[Tensor, Tensor]]


def by_group(part: Part, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
    """Apply a target to each group of bands: value and weight (B, N, P), N = groups x places.

    P is that of the largest group; a smaller group's rest has value 0 and weight 0.
    """
    if not grid.groups:
        return part(batch, grid)
    found = [part(batch.aligned(group), grid.plain) for group in grid.groups]
    width = max(value.shape[2] for value, _ in found)
    values = [functional.pad(value, (0, width - value.shape[2])) for value, _ in found]
    weights = [functional.pad(weight, (0, width - weight.shape[2])) for _, weight in found]
    return torch.cat(values, dim=1), torch.cat(weights, dim=1)


def cut(image: Tensor, bands: tuple[str, ...], grid: Grid) -> Tensor:
    """Cut an image (B, C, *S) into the patch vectors of all tokens (B, N, P); smaller groups are padded with 0."""
    if not grid.groups:
        return patchify(image, grid.patch)
    parts = [patchify(image[:, [bands.index(band) for band in group]], grid.patch) for group in grid.groups]
    width = max(part.shape[2] for part in parts)
    return torch.cat([functional.pad(part, (0, width - part.shape[2])) for part in parts], dim=1)
