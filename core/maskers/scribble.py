"""Irregular strokes over voxels, the masker of MaskSup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._lengths import at_least_a_token
from core.maskers._voxels import voxel_plan
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count
from core.rng import SampleRng
from core.shapes import Grid, patchify

NODES = 16  # of the lattice along each axis; an image wider than so many strokes sees them repeat
LEVELS = 1024  # of the distance to a stroke's middle, among which a sample's threshold is found


@dataclass(frozen=True, kw_only=True)
class Scribble(Masker):
    """Hide what irregular strokes cover, voxel by voxel (MaskSup, Zunair and Ben Hamza 2022, arXiv 2210.00923, 3).

    Strokes are curves along which smooth noise crosses its mean: one noise in 2D, the crossing of two in 3D. The tokens
    that they cover most are hidden, as far as they cover them.

    Deviations: strokes are made, where the paper takes hand-drawn ones from a collection; the hidden share is of tokens,
    exactly, and what strokes cover of other tokens stays visible; 2D and 3D.

    Attributes:
        ratio: hidden share of the valid tokens, above 0 and below 1; the share of hidden voxels is smaller.
        coverage: how wide strokes are: voxels that they cover, as a share of those of all hidden tokens, above 0 up to 1;
            wider where it takes that to reach enough tokens.
        period: how far strokes lie apart, about; at least 1 token.
        unit: of it: `token` = edges of a token; `length` = the batch's unit (mm or m).
    """

    ratio: float = 0.5
    coverage: float = 0.5
    period: float = 3.0
    unit: Literal["token", "length"] = "token"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 < self.coverage <= 1.0:
            raise ConfigError(f"expected a coverage above 0 up to 1, got {self.coverage}.")
        if not self.period > 0.0 or (self.unit == "token" and self.period < 1.0):
            raise ConfigError(f"expected strokes at least a token apart, got a period of {self.period} {self.unit}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, patches of one voxel, of which no stroke can cover a part, and too short a period."""
        check_grid(grid)
        if grid.voxels < 2:
            raise ConfigError(
                "expected patches of several voxels for strokes over voxels, got one: use masker 'random'."
            )
        if self.unit == "length":
            at_least_a_token(self.period, torch.tensor([spacing]), grid, what="a period")

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        valid = valid_tokens(batch, grid)
        rng = rng.split("scribble")
        if self.unit == "length":
            period = at_least_a_token(self.period, batch.spacing, grid, what="a period")
        else:
            period = torch.full((1, grid.ndim), self.period, device=valid.device)
        level = (_distance(rng, period, grid) * LEVELS).to(torch.int64).clamp(max=LEVELS - 1)
        counted = valid.unflatten(1, (grid.num_groups, -1)).any(dim=1)
        covered = level <= self._widest(level, counted, grid).reshape(-1, *(1 for _ in grid.tokens))
        noise = rng.split("ties").uniform(grid.num_places)
        return voxel_plan(covered[:, None], noise, valid, self.ratio, batch, grid)

    def _widest(self, level: Tensor, counted: Tensor, grid: Grid) -> Tensor:
        """Choose up to which level (B, *S) strokes reach in each sample, (B,) int64, looking at counted places only."""
        patches = torch.where(counted[..., None], patchify(level[:, None], grid.patch), LEVELS)
        row = torch.arange(len(level), device=level.device)[:, None] * (LEVELS + 1)
        number = torch.bincount((row + patches.flatten(1)).flatten(), minlength=len(level) * (LEVELS + 1))
        below = number.reshape(len(level), LEVELS + 1)[:, :LEVELS].cumsum(dim=1)
        wide = (below < self.ratio * self.coverage * below[:, -1:]).sum(dim=1)
        # the token that is reached last must be reached too, so that every hidden token has something to predict
        reached = patches.amin(dim=2).sort(dim=1).values
        last = (hidden_count(counted, self.ratio) - 1).clamp(min=0)
        return torch.maximum(wide, reached.gather(1, last[:, None])[:, 0])


def _distance(rng: SampleRng, period: Tensor, grid: Grid) -> Tensor:
    """Measure how far each voxel is from the middle of a stroke, (B, *S) float32 in 0 to 1, in units of the noise."""
    fields = grid.ndim - 1
    noise = rng.split("noise").uniform(fields, *(NODES for _ in grid.tokens))
    start = rng.split("start").uniform(grid.ndim) * NODES
    for axis, size in enumerate(grid.size):  # linear interpolation, one axis after another
        voxel = (torch.arange(size, device=noise.device) + 0.5) / grid.patch[axis]
        weight = _weights(voxel / period[:, axis, None] + start[:, axis, None])
        with torch.autocast(noise.device.type, enabled=False):  # bfloat16 has fewer values than there are `LEVELS`
            noise = torch.einsum("bsn,bfn...->bf...s", weight, noise)  # the axis moves to the end: all return in order
    return (2.0 * noise - 1.0).abs().amax(dim=1)


def _weights(position: Tensor) -> Tensor:
    """Weigh the nodes of the periodic lattice for each position, (B, S, NODES): two neighbours, smoothly blended."""
    node = torch.arange(NODES, device=position.device)
    apart = (position[..., None] - node + NODES / 2).remainder(NODES) - NODES / 2
    near = (1.0 - apart.abs()).clamp(min=0.0)
    return near.square() * (3.0 - 2.0 * near)
