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
from core.shapes import Grid, patchify

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
            return token_entropy(batch.image, batch.valid, grid, self.bins)
        parts = [batch.aligned(group) for group in grid.groups]
        return torch.cat([token_entropy(part.image, part.valid, grid.plain, self.bins) for part in parts], dim=1)


def token_entropy(image: Tensor, valid: Tensor, grid: Grid, bins: int) -> Tensor:
    """Measure the entropy of each token's measured voxels, (B, places) float32 in nats, averaged over measured bands."""
    batch, bands = image.shape[:2]
    axes = tuple(range(2, image.ndim))
    low = torch.where(valid, image, torch.inf).amin(dim=axes, keepdim=True)
    high = torch.where(valid, image, -torch.inf).amax(dim=axes, keepdim=True)
    span = torch.where(high > low, high - low, 1.0)
    level = ((image - low) * (bins / span)).clamp(max=bins - 1)  # the highest value belongs to the last bin
    number = torch.where(valid, level, bins).to(torch.int32)  # an extra bin for what was not measured
    number = patchify(number, grid.patch).reshape(-1, grid.voxels)
    row = torch.arange(len(number), dtype=torch.int32, device=number.device)[:, None] * (bins + 1)
    counts = torch.bincount((row + number).flatten(), minlength=len(number) * (bins + 1))
    counts = counts.reshape(batch, grid.num_places, bands, bins + 1)[..., :bins]
    total = counts.sum(dim=3, keepdim=True)
    share = counts / total.clamp(min=1)
    entropy: Tensor = -torch.special.xlogy(share, share).sum(dim=3)
    measured = total[..., 0] > 0
    return entropy.sum(dim=2) / measured.sum(dim=2).clamp(min=1)


def _scaled(entropy: Tensor, valid: Tensor) -> Tensor:
    """Scale each sample's entropies to `FLAT` - 1 over its valid tokens; all 1 where they are equal."""
    low = torch.where(valid, entropy, torch.inf).amin(dim=1, keepdim=True)
    high = torch.where(valid, entropy, -torch.inf).amax(dim=1, keepdim=True)
    share = torch.where(high > low, (entropy - low) / (high - low), 1.0)
    return FLAT + (1.0 - FLAT) * share
