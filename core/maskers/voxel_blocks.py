"""Small blocks of voxels that do not follow the tokens, the masker of GMML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._voxels import voxel_plan
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class VoxelBlocks(Masker):
    """Hide connected voxels in blocks of random size and place (GMML, Atito et al. 2022, arXiv 2205.14986, 3.1).

    As many blocks are drawn as cover the ratio on average; the tokens that they cover most are hidden, as far as they
    cover them.

    Deviations: the hidden share is of tokens, exactly, and what blocks cover of other tokens stays visible; 2D and 3D,
    edges drawn for each axis.

    Attributes:
        ratio: hidden share of the valid tokens, above 0 and below 1; the share of hidden voxels is smaller.
        shortest: shortest edge of a block, and
        longest: longest edge.
        unit: of both: `token` = edges of a token; `length` = the batch's unit (mm or m).
    """

    ratio: float = 0.7
    shortest: float = 0.5
    longest: float = 2.0
    unit: Literal["token", "length"] = "token"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 < self.shortest <= self.longest:
            raise ConfigError(f"expected 0 < shortest <= longest edge, got {self.shortest} and {self.longest}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, and blocks smaller than a voxel or larger than the image."""
        check_grid(grid)
        if self.unit == "length":
            self._scale(torch.tensor([spacing]))
            return
        if self.shortest * max(grid.patch) < 1.0:
            raise ConfigError(
                f"expected blocks of at least a voxel, got edges from {self.shortest:g} of a patch of {grid.patch}."
            )
        if all(self.longest > count for count in grid.tokens):
            raise ConfigError(
                f"expected blocks smaller than the image of {grid.tokens} tokens, got edges up to {self.longest:g}."
            )

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        rng = rng.split("voxel blocks")
        shortest, longest = self._edges(batch, grid)
        covered = _covered(shortest, longest, self.ratio, grid, rng)
        noise = rng.split("ties").uniform(grid.num_places)
        return voxel_plan(covered[:, None], noise, valid_tokens(batch, grid), self.ratio, batch, grid)

    def _edges(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Express both edges in voxels, (B, ndim) float32, at least 1."""
        if self.unit == "token":
            scale = torch.tensor([grid.patch], dtype=torch.float32, device=batch.valid.device).expand(len(batch), -1)
        else:
            scale = self._scale(batch.spacing)
        return (self.shortest * scale).clamp(min=1.0), (self.longest * scale).clamp(min=1.0)

    def _scale(self, spacing: Tensor) -> Tensor:
        """Say how many voxels the unit of length is, (B, ndim) float32, and refuse blocks below a voxel."""
        scale = 1.0 / spacing.to(torch.float32)
        if bool((self.longest * scale.amax(dim=1) < 1.0).any()):
            raise ConfigError(
                f"expected blocks of at least a voxel, got edges up to {self.longest:g} on voxels of "
                f"{' x '.join(f'{edge:g}' for edge in spacing[spacing.amin(dim=1).argmax()].tolist())}, both in "
                "the unit of the spacing."
            )
        return scale


def _covered(shortest: Tensor, longest: Tensor, ratio: float, grid: Grid, rng: SampleRng) -> Tensor:
    """Draw as many blocks as cover the ratio on average, and say which voxels they cover, (B, *S) bool."""
    size = torch.tensor(grid.size, device=shortest.device)
    mean = (shortest + longest) / 2.0
    count = (math.log1p(-ratio) / torch.log1p(-(mean / (size + mean)).prod(dim=1))).ceil()
    drawn = int(count.max()) if len(count) else 0  # the blocks of one sample come first in any longer row of draws
    edges = shortest[:, None] + (longest - shortest)[:, None] * rng.split("edges").uniform(drawn, grid.ndim)
    # a block may begin before the image, so that its border is covered as often as its middle
    start = rng.split("place").uniform(drawn, grid.ndim) * (size + edges) - edges
    extents = [_extent(start[..., axis], edges[..., axis], voxels) for axis, voxels in enumerate(grid.size)]
    rows, columns = extents[-2] * (torch.arange(drawn, device=size.device) < count[:, None])[..., None], extents[-1]
    if grid.ndim == 2:
        return rows.transpose(1, 2) @ columns > 0.5
    planes = [(rows * plane[..., None]).transpose(1, 2) @ columns > 0.5 for plane in extents[0].unbind(dim=2)]
    return torch.stack(planes, dim=1)


def _extent(start: Tensor, edge: Tensor, voxels: int) -> Tensor:
    """Say which voxel centres along an axis lie in each block, (B, K, voxels) float32, 0 or 1."""
    middle = torch.arange(voxels, device=start.device) + 0.5
    return ((middle >= start[..., None]) & (middle < (start + edge)[..., None])).to(torch.float32)
