"""Voxels at a multiple of the encoder's resolution: what is hidden must be painted finer than anything that was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError, ShapeError
from core.shapes import Grid
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class FinePixels(Target):
    """Predict voxels at `detail` times the encoder's resolution (MRM, Zhou et al. 2023, arXiv 2301.13155, section 3).

    The batch that it is called with is the fine one, `detail` times the size that the grid covers; the grid is the
    encoder's. Token i then stands for block i of the fine image, `detail` times the patch along each axis.
    Deviations: as `Pixels`: normalised per band over measured voxels, with a floor; any rank.

    Attributes:
        detail: fine voxels per voxel of the encoder's image and axis; the references' is 2.
        normalise: as `Pixels.normalise`, within the fine block; the references' is `joint`.
        variance_floor: as `Pixels.variance_floor`.
    """

    detail: int = 2
    normalise: Literal["per_band", "joint", "none"] = "per_band"
    variance_floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.detail < 1:
            raise ConfigError(f"expected a detail of 1 or more, got {self.detail}.")
        self._pixels()  # checks the rest

    def num_values(self, entry: Input) -> int:
        """All fine voxels of all bands, or of the largest group."""
        return self._pixels().num_values(entry) * math.prod((self.detail,) * entry.ndim)

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the fine blocks, band-major, and 1 where they were measured.

        Raises:
            ShapeError: the batch is not `detail` times as large as the grid.
        """
        return self._pixels()(batch, self._blocks(batch, grid))

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Lay the blocks out as a fine image, with each true block's own statistics where they were normalised."""
        return self._pixels().picture(prediction, batch, self._blocks(batch, grid))

    def _pixels(self) -> Pixels:
        return Pixels(normalise=self.normalise, variance_floor=self.variance_floor)

    def _blocks(self, batch: Batch, grid: Grid) -> Grid:
        """The same tokens over the fine image."""
        blocks = Grid(grid.tokens, tuple(edge * self.detail for edge in grid.patch))
        if blocks.size != batch.size:
            raise ShapeError(
                f"expected a fine image of {blocks.size}, {self.detail} times what the encoder's grid covers, got "
                f"{batch.size}: load crops at that detail."
            )
        return blocks
