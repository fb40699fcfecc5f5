"""One mask for a whole run of slices: neighbours along an axis are hidden together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._cells import numbered
from core.maskers._lengths import token_edges
from core.maskers._rank import either_way
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Tube(Masker):
    """Hide tubes along one axis (VideoMAE, Tong et al. 2022, arXiv 2203.12602, 3.3).

    A hidden patch of a thin slice is all but given away by the same patch of the next one; a tube hides both.

    Deviations: along any axis of 2D or 3D images; a tube may end after `run_length`, so that long volumes have several
    above one another; the share is of each sample's valid tokens and exact, so that one tube of a sample is trimmed.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        axis: the axis that tubes follow, in array order: 0 = z of a volume.
        run_length: shortest length of a tube in the batch's unit (mm or m); none = the whole axis.
    """

    ratio: float = 0.75
    axis: int = 0
    run_length: float | None = None

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.axis < 0 or (self.run_length is not None and not self.run_length > 0):
            raise ConfigError(f"expected an axis from 0 and a run length above 0, got {self.axis}, {self.run_length}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid without that axis, or with a single place beside it."""
        check_grid(grid)
        if self.axis >= grid.ndim:
            raise ConfigError(f"expected an axis below {grid.ndim} for tokens {grid.tokens}, got {self.axis}.")
        if grid.num_places == grid.tokens[self.axis]:
            raise ConfigError(
                f"expected a grid with several tubes along axis {self.axis}, got tokens {grid.tokens}: choose another axis."
            )

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        rng = rng.split("tube")
        noise = rng.uniform(grid.num_places)
        along = [torch.arange(count, device=noise.device)[None] for count in grid.tokens]
        along[self.axis] = self._runs(batch, grid)
        along = [number.expand(len(noise), -1) for number in along]
        priority = either_way(noise.gather(1, numbered(along, grid)), rng)
        return hide_share(priority, valid_tokens(batch, grid), self.ratio)

    def _runs(self, batch: Batch, grid: Grid) -> Tensor:
        """Number the run of each token along the axis, (B, tokens) int64; what is left at the end joins the last run."""
        index = torch.arange(grid.tokens[self.axis], device=batch.valid.device)[None]
        if self.run_length is None:
            return torch.zeros_like(index)
        edge = token_edges(batch.spacing, grid)[:, self.axis, None]
        length = (self.run_length / edge - 1e-4).ceil().to(torch.int64).clamp(min=1)
        last = (grid.tokens[self.axis] // length - 1).clamp(min=0)
        return torch.minimum(index // length, last)
