"""Where the image has structure, or where knowledge says it matters: a map of the image decides, softened by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError, DataError
from core.groups import by_group
from core.maskers._hints import hint_of
from core.maskers._oriented import oriented_energy
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng
from core.shapes import Grid, patchify
from core.targets.gradient import Gradient

_SLOPE = Gradient()


@dataclass(frozen=True, kw_only=True)
class FeatureGuided(Masker):
    """Hide tokens by chance, the likelier the more (or less) a map of the image holds there.

    Source: ours; the priority of body parts in HAP (Yuan et al. 2023, arXiv 2310.20695) is the source `prior`. The score,
    standardised over each sample's valid tokens, is divided by a temperature and Gumbel noise is added, so that tokens are
    drawn without replacement with odds exp(score / temperature).

    Attributes:
        ratio: hidden share of the valid tokens, above 0 and below 1.
        source: `gradient`: mean gradient per unit of spacing, which noise has as well as edges; `hog`: how much of it runs
            one way, which edges and vessels have; `prior`: the batch's anatomy map; `hint`: what the recipe's teacher
            attends to. Bands count alike; voxels that rest on missing data do not count.
        hide: `high`: where the map is high; `low`: where it is low.
        temperature: in standard deviations of the score; towards 0 the map decides alone, far above 1 chance does.
    """

    ratio: float = 0.6
    source: Literal["gradient", "hog", "prior", "hint"] = "gradient"
    hide: Literal["high", "low"] = "high"
    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not self.temperature > 0.0:
            raise ConfigError(
                f"expected a temperature above 0, got {self.temperature}: 0.01 follows the map and leaves ties to chance."
            )
        if self.source == "hint":  # a recipe that has no such network then refuses it when it is built
            object.__setattr__(self, "hint", "attention")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token."""
        check_grid(grid)

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch.

        Raises:
            DataError: source `prior` and the batch has none.
            ConfigError: source `hint` and the guide has none.
        """
        valid = valid_tokens(batch, grid)
        score = _standardised(self._map(batch, grid, valid, guide), valid)
        uniform = rng.split("feature guided").uniform(grid.num_tokens).clamp(min=1e-7)
        gumbel = -torch.log(-torch.log(uniform))
        sign = 1.0 if self.hide == "high" else -1.0
        return hide_share(sign * score + self.temperature * gumbel, valid, self.ratio)

    def _map(self, batch: Batch, grid: Grid, valid: Tensor, guide: Guide) -> Tensor:
        """Score every token, (B, N)."""
        if self.source == "hint":
            return hint_of(guide, valid, "feature_guided")
        if self.source == "prior":
            if batch.prior is None:
                raise DataError(
                    "masker 'feature_guided' with source 'prior' expected batches with a prior map, got none: give the "
                    "data a prior, or choose the source 'gradient' or 'hog'."
                )
            return patchify(batch.prior, grid.patch).to(torch.float32).mean(dim=2).repeat(1, grid.num_groups)
        with torch.no_grad():
            value, weight = by_group(_SLOPE if self.source == "gradient" else oriented_energy, batch, grid)
            weight = weight.to(torch.float32)
            return (value * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)


def _standardised(score: Tensor, valid: Tensor) -> Tensor:
    """Subtract each sample's mean over valid tokens (B, N) and divide by their deviation; equal scores give 0."""
    score = torch.where(valid, torch.nan_to_num(score), 0.0)
    count = valid.sum(dim=1, keepdim=True).clamp(min=1)
    apart = torch.where(valid, score - score.sum(dim=1, keepdim=True) / count, 0.0)
    deviation = (apart.square().sum(dim=1, keepdim=True) / count).sqrt()
    return torch.where(deviation > 1e-6 * score.abs().amax(1, keepdim=True), apart / deviation.clamp(min=1e-12), 0.0)
