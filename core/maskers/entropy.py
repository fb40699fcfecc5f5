"""Texture first: tokens whose voxels have a broad histogram are hidden more often."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng
from core.shapes import Grid

FLAT = 1e-3  # priority of the flattest token: above 0, so that chance decides among flat ones, not their place


@dataclass(frozen=True, kw_only=True)
class Entropy(Masker):
    """Hide by entropy times uniform noise (Uni4Eye++, Cai et al. 2024, IEEE Transactions on Medical Imaging).

    Each token's entropy is that of a histogram of its voxels, averaged over bands and scaled to 0-1 within the sample.

    Deviations: bins span each sample's and band's range of data, where the released code counts whole numbers of values
    between 0 and 1, all of which fall into one bin; fewer bins than its 256, as many patches have fewer voxels; measured
    voxels only; 2D and 3D.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        bins: of the histogram.
    """

    ratio: float = 0.75
    bins: int = 32

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.bins < 2:
            raise ConfigError(f"expected at least 2 bins, got {self.bins}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, and patches of one voxel."""
        check_grid(grid)
        if grid.voxels < 2:
            raise ConfigError("expected patches of several voxels, got one: a histogram of one voxel has no entropy.")

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        valid = valid_tokens(batch, grid)
        noise = rng.split("entropy").uniform(grid.num_tokens)
        return hide_share(_scaled(self._of_groups(batch, grid), valid) * noise, valid, self.ratio)

    def _of_groups(self, batch: Batch, grid: Grid) -> Tensor:
        if not grid.groups:
            return self._of(batch, grid)
        return torch.cat([self._of(batch.aligned(group), grid.plain) for group in grid.groups], dim=1)

    def _of(self, batch: Batch, grid: Grid) -> Tensor:
        return token_entropy(batch.image, None if batch.complete else batch.valid, grid, self.bins)


def token_entropy(image: Tensor, valid: Tensor | None, grid: Grid, bins: int) -> Tensor:
    """Measure the entropy of each token's measured voxels, (B, places) float32 in nats, averaged over measured bands.

    Without `valid` every voxel is measured.
    """
    # on a CPU sample by sample: what one needs then stays in the cache
    step = 1 if image.device.type == "cpu" else max(len(image), 1)
    place = _places(grid, bins + 1, image.device)
    parts = [
        _entropies(image[i : i + step], None if valid is None else valid[i : i + step], grid, bins, place)
        for i in range(0, max(len(image), 1), step)
    ]
    return torch.cat(parts)


def _entropies(image: Tensor, valid: Tensor | None, grid: Grid, bins: int, place: Tensor) -> Tensor:
    batch, bands = image.shape[:2]
    axes = tuple(range(2, image.ndim))
    if valid is None:
        low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
        number = _levels(image, low, high, bins).to(torch.int32)
    else:
        low = torch.where(valid, image, torch.inf).amin(dim=axes, keepdim=True)
        high = torch.where(valid, image, -torch.inf).amax(dim=axes, keepdim=True)
        level = _levels(image, low, high, bins)
        number = torch.where(valid, level, bins).to(torch.int32)  # an extra bin for what was not measured
    wide = grid.num_places * (bins + 1)
    start = torch.arange(batch * bands, dtype=torch.int32, device=image.device).mul_(wide)
    number += start.reshape(batch, bands, *(1,) * grid.ndim)
    number += place
    counts = torch.bincount(number.flatten(), minlength=batch * bands * wide)
    counts = counts.to(torch.float32).reshape(batch, bands, grid.num_places, bins + 1)[..., :bins]
    total = counts.sum(dim=3, keepdim=True)
    share = counts / total.clamp(min=1)
    entropy: Tensor = -torch.special.xlogy(share, share).sum(dim=3)
    measured = total[..., 0] > 0
    return entropy.sum(dim=1) / measured.sum(dim=1).clamp(min=1)


def _levels(image: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    span = torch.where(high > low, high - low, 1.0)
    return ((image - low) * (bins / span)).clamp_(max=bins - 1)  # the highest value belongs to the last bin


def _places(grid: Grid, bins: int, device: torch.device) -> Tensor:
    """Give the number of the first bin of each voxel's token, (*S) int32."""
    number = torch.zeros((1,) * grid.ndim, dtype=torch.int32, device=device)
    for axis, (tokens, edge) in enumerate(zip(grid.tokens, grid.patch, strict=True)):
        along = torch.arange(tokens, dtype=torch.int32, device=device).repeat_interleave(edge)
        number = number * tokens + along.reshape([-1 if i == axis else 1 for i in range(grid.ndim)])
    return number * bins


def _scaled(entropy: Tensor, valid: Tensor) -> Tensor:
    """Scale each sample's entropies to `FLAT` - 1 over its valid tokens; all 1 where they are equal."""
    low = torch.where(valid, entropy, torch.inf).amin(dim=1, keepdim=True)
    high = torch.where(valid, entropy, -torch.inf).amax(dim=1, keepdim=True)
    share = torch.where(high > low, (entropy - low) / (high - low), 1.0)
    return FLAT + (1.0 - FLAT) * share
