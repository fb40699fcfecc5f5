"""Cells larger than a token, the masker of SimMIM."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._cells import cell_of
from core.maskers._lengths import at_least_a_token
from core.maskers._rank import either_way
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Cells(Masker):
    """Hide random cells of several tokens (SimMIM, Xie et al. 2021, arXiv 2111.09886, 3.2; SatVision-TOA, 2411.17000).

    Deviations: 2D and 3D; the share is of each sample's valid tokens and exact, so that the last cell is trimmed
    (`whole_cells` counts as SimMIM does); cells at the far border may be smaller than the others.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        cell_tokens: edge of a cell in tokens, one number or one per axis; none = 2, or what `cell_length` says.
        cell_length: edge of a cell in the batch's unit (mm or m), the same along every axis; a token belongs to the cell
            that holds its centre, and along an axis where tokens are longer a cell is one token.
        whole_cells: hide ceil(ratio * cells that hold data) whole cells, the count of SimMIM, in place of the exact share
            of tokens.
    """

    ratio: float = 0.6
    cell_tokens: int | tuple[int, ...] | None = None
    cell_length: float | None = None
    whole_cells: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.cell_tokens is not None and self.cell_length is not None:
            raise ConfigError(
                f"expected cells in tokens or as a length, got both: cell_tokens {self.cell_tokens}, cell_length "
                f"{self.cell_length}."
            )
        edges = self.cell_tokens if isinstance(self.cell_tokens, tuple) else (self.cell_tokens or 2,)
        if min(edges, default=0) < 1 or self.cell_tokens == 0:
            raise ConfigError(f"expected cells no smaller than a token, 1 or more per axis, got {self.cell_tokens}.")
        if self.cell_length is not None and not self.cell_length > 0:
            raise ConfigError(f"expected a cell length above 0, got {self.cell_length}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token or of one cell, cells of another rank, and cells shorter than a token."""
        check_grid(grid)
        if self.cell_length is not None:
            at_least_a_token(self.cell_length, torch.tensor([spacing]), grid, what="a cell")
            return
        edges = self._edges(grid)
        if len(edges) != grid.ndim:
            raise ConfigError(f"expected cells of {grid.ndim} edges for tokens {grid.tokens}, got {edges}.")
        if all(edge >= count for edge, count in zip(edges, grid.tokens, strict=True)):
            raise ConfigError(
                f"expected a grid of at least two cells, got cells of {edges} tokens on a grid of {grid.tokens}: "
                "choose smaller cells or a larger crop."
            )

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        if self.cell_length is not None:
            size = at_least_a_token(self.cell_length, batch.spacing, grid, what="a cell")
        else:
            size = torch.tensor([self._edges(grid)], dtype=torch.float32, device=batch.valid.device)
        valid, cell, rng = valid_tokens(batch, grid), cell_of(grid, size), rng.split("cells")
        noise = rng.uniform(grid.num_places)
        if self.whole_cells:
            return whole_cell_plan(noise, cell, valid, self.ratio)
        return hide_share(either_way(noise.gather(1, cell.expand_as(noise)), rng), valid, self.ratio)

    def _edges(self, grid: Grid) -> tuple[int, ...]:
        return self.cell_tokens if isinstance(self.cell_tokens, tuple) else (self.cell_tokens or 2,) * grid.ndim


def whole_cell_plan(noise: Tensor, cell: Tensor, valid: Tensor, ratio: float) -> Plan:
    """Hide whole cells, those of the highest noise: ceil(ratio * cells that hold a valid token) of each sample.

    Args:
        noise: (B, places), one draw for each possible number of a cell.
        cell: (B or 1, places) int64, the number of each place's cell.
        valid: (B, N) bool.
        ratio: hidden share of the cells.
    """
    cell, groups = cell.expand_as(noise), valid.shape[1] // cell.shape[1]
    somewhere = valid.unflatten(1, (groups, -1)).any(dim=1)
    filled = torch.zeros_like(cell).scatter_reduce_(1, cell, somewhere.to(cell.dtype), "amax") > 0
    chosen = hide_share(noise, filled, ratio).hide.gather(1, cell).repeat(1, groups)
    return Plan(see=valid & ~chosen, hide=valid & chosen)
