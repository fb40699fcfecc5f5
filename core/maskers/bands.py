"""A budget over groups of bands: which group is seen how much, and which not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._rank import ranked_within
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count, hide_share
from core.rng import SampleRng
from core.shapes import Grid

PROPOSALS = 8  # per gamma variate; each is refused with a chance below 0.05, so all of them once in 10^11 draws


@dataclass(frozen=True, kw_only=True)
class Bands(Masker):
    """Split the mask over groups of bands (MultiMAE, Bachmann et al. 2022, arXiv 2204.01678, 3.2; SatMAE, 2207.08051).

    Deviations: counts are of each sample's valid tokens and exact in sum; groups may be dropped whole, the cheapest way to
    an encoder that does without some sensors; 2D and 3D.

    Attributes:
        ratio: hidden share of the tokens of all groups together, above 0 and below 1; MultiMAE sees a sixth.
        mode: `dirichlet`: groups share what is seen by random proportions (MultiMAE); `independent`: every token alike
            (SatMAE); `shared`: the same places in every group (SatMAE), so that no group gives away another.
        alpha: of the symmetric Dirichlet distribution: 1 = all proportions alike, small = mostly one group, large = equal.
        dropout: chance of each group to be hidden whole, as far as the hidden share has room for it; at least one group
            of a sample is left.
    """

    ratio: float = 5.0 / 6.0
    mode: Literal["dirichlet", "independent", "shared"] = "dirichlet"
    alpha: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not self.alpha > 0.0 or not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"expected alpha above 0 and a dropout from 0 to below 1, got {self.alpha} and {self.dropout}."
            )

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token or without groups of bands; a single group is masked at random."""
        check_grid(grid)
        if not grid.groups:
            raise ConfigError(
                "masker 'bands' splits the mask over groups of bands, and expected a grid with groups, got one without: "
                "declare the input's `groups`, or choose masker 'random'."
            )

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        valid = valid_tokens(batch, grid)
        rng = rng.split("bands")
        group = torch.arange(grid.num_groups, device=valid.device).repeat_interleave(grid.num_places)
        group = group.expand(len(valid), -1)
        if self.mode == "shared":
            score = rng.split("tokens").uniform(grid.num_places).repeat(1, grid.num_groups)
        else:
            score = rng.split("tokens").uniform(grid.num_tokens)
        if self.mode == "dirichlet":
            # the marks (n + 1/2) / share of each group, smallest first, are seen in proportion to the shares (Sainte-Lague)
            rank, _ = ranked_within(score, group, valid, grid.num_groups)
            share = dirichlet(rng.split("shares"), grid.num_groups, self.alpha)
            score = (rank + 0.5) / share.gather(1, group)
        if self.dropout > 0.0:
            dropped = self._dropped(rng, valid.unflatten(1, (grid.num_groups, -1)).sum(dim=2), valid)
            score = torch.where(dropped.gather(1, group), 1e30, score)
        return hide_share(score, valid, self.ratio)

    def _dropped(self, rng: SampleRng, size: Tensor, valid: Tensor) -> Tensor:
        """Choose the groups that are hidden whole, (B, G) bool, in random order, while they fit."""
        room = hidden_count(valid, self.ratio)
        wanted = rng.split("dropout").uniform(size.shape[1]) < self.dropout
        chosen = torch.zeros_like(wanted)
        for group in rng.split("order").uniform(size.shape[1]).argsort(dim=1).unbind(dim=1):
            number = size.gather(1, group[:, None])[:, 0]
            fits = wanted.gather(1, group[:, None])[:, 0] & (number <= room)
            chosen = chosen.scatter(1, group[:, None], fits[:, None])
            room = room - number * fits
        return chosen


def dirichlet(rng: SampleRng, parts: int, alpha: float) -> Tensor:
    """Draw proportions of the symmetric Dirichlet distribution, (B, parts) float32, each at least 1e-12.

    Gamma variates by Marsaglia and Tsang 2000, "A simple method for generating gamma variables", with a fixed number of
    proposals, so that what a sample draws does not depend on how often others were refused.
    """
    shape = alpha if alpha >= 1.0 else alpha + 1.0
    d = shape - 1.0 / 3.0
    one, two, level, power = (rng.split(name).uniform(parts, PROPOSALS) for name in ("one", "two", "level", "power"))
    normal = (-2.0 * (one + 2.0**-25).log()).sqrt() * (2.0 * math.pi * two).cos()
    cube = (1.0 + normal / math.sqrt(9.0 * d)) ** 3
    bound = 0.5 * normal.square() + d * (1.0 - cube + cube.clamp(min=1e-12).log())
    accepted = (cube > 0.0) & ((level + 2.0**-25).log() < bound)
    first = accepted.to(torch.uint8).argmax(dim=2, keepdim=True)
    log_gamma = cube.gather(2, first)[..., 0].clamp(min=1e-12).log()
    if alpha < 1.0:  # in logarithms, because the variates of a small alpha are smaller than any float
        log_gamma = log_gamma + (power[..., 0] + 2.0**-25).log() / alpha
    return log_gamma.softmax(dim=1).clamp(min=1e-12)
