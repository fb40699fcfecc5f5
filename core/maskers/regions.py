"""One whole region, and a proportional share of each other region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch, valid_tokens
from core.errors import ConfigError, DataError
from core.maskers._rank import ranked_within
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count, hide_share
from core.rng import SampleRng
from core.shapes import Grid, patchify


@dataclass(frozen=True, kw_only=True)
class Regions(Masker):
    """Hide a random region whole and the same share of each other one (CRFR-P of FSFM, Wang et al. 2024, 2412.12032).

    Deviations: regions are not those of a face parser but levels of a coarse map of each image: of brightness, or of the
    prior that the batch carries; a region is chosen among those that fit into the hidden share, where the paper leaves out
    the large ones, skin and background, by name; 2D and 3D; the share is of each sample's valid tokens and exact.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        regions: levels of the map.
        source: `intensity`: quantiles of the mean of all bands, smoothed over neighbouring tokens, equally many tokens
            each; `prior`: equal steps of `Batch.prior` from 0 to 1.
    """

    ratio: float = 0.75
    regions: int = 4
    source: Literal["intensity", "prior"] = "intensity"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.regions < 2:
            raise ConfigError(f"expected at least 2 regions, got {self.regions}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of fewer than two tokens, or of fewer than the regions."""
        check_grid(grid)
        if grid.num_places < self.regions:
            raise ConfigError(f"expected at least a token per region, {self.regions}, got {grid.num_places}.")

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch.

        Raises:
            DataError: `prior` is asked for and the batch has none.
        """
        valid = valid_tokens(batch, grid)
        region = self._map(batch, grid).repeat(1, grid.num_groups)
        rng = rng.split("regions")
        rank, size = ranked_within(rng.split("tokens").uniform(grid.num_tokens), region, valid, self.regions)
        whole = _chosen(rng.split("whole").uniform(self.regions), size, hidden_count(valid, self.ratio))
        # one mark in each step of 1 / size from 0 to 1: the highest share of all marks is the same share of each region
        mark = (rank + rng.split("marks").uniform(grid.num_tokens)) / size.gather(1, region).clamp(min=1)
        return hide_share(torch.where(region == whole[:, None], mark + 1.0, mark), valid, self.ratio)

    def _map(self, batch: Batch, grid: Grid) -> Tensor:
        """Give each place its region, (B, places) int64."""
        somewhere = batch.valid.any(dim=1, keepdim=True)
        if self.source == "prior":
            if batch.prior is None:
                raise DataError("masker 'regions' wants the prior of each image, and the batch has none: load one, or "
                                "choose source 'intensity'.")  # fmt: skip
            level, _ = _token_mean(batch.prior, somewhere, grid)
            return (level * self.regions).to(torch.int64).clamp(0, self.regions - 1)
        level, weight = _token_mean(batch.image, batch.valid, grid)
        return _quantile(_smooth(level, weight, grid), weight > 0.0, self.regions)


def _token_mean(image: Tensor, valid: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Average each place's measured voxels of all bands, and say which share is measured, (B, places) float32 both."""
    share = patchify(valid, grid.patch).to(torch.float32).mean(dim=2)
    total = patchify(torch.where(valid, image, 0.0), grid.patch).to(torch.float32).mean(dim=2)
    return total / share.clamp(min=1e-6), share


def _smooth(level: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """Average over the 3 x 3 (x 3) neighbours, by how much of each is measured."""
    pool = functional.avg_pool2d if grid.ndim == 2 else functional.avg_pool3d
    both = torch.stack([level * weight, weight], dim=1).unflatten(2, grid.tokens)
    total, share = pool(both, 3, stride=1, padding=1).flatten(2).unbind(dim=1)
    return total / share.clamp(min=1e-6)


def _quantile(level: Tensor, counted: Tensor, parts: int) -> Tensor:
    """Cut each sample's counted places into parts of equally many by level, (B, places) int64; ties as they stand."""
    rank, size = ranked_within(level, torch.zeros_like(level, dtype=torch.int64), counted, 1)
    return (rank * parts // size.clamp(min=1)).clamp(0, parts - 1)


def _chosen(noise: Tensor, size: Tensor, budget: Tensor) -> Tensor:
    """Choose a region of each sample, (B,) int64: one that fits, or else the smallest that is there."""
    there, fits = size > 0, size <= budget[:, None]
    smaller = 1.0 / (1.0 + size)
    return torch.where(there & fits, 2.0 + noise, torch.where(there, smaller, -1.0)).argmax(dim=1)
