"""A random orthogonal projection of the tokens: each is blurred with a few others, none is hidden by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.errors import ConfigError
from core.fills._visible import filled
from core.fills.base import Fill
from core.plan import Plan, ranked
from core.rng import SampleRng
from core.shapes import Grid, patchify, unpatchify
from core.voxel_masks import to_voxels


@dataclass(frozen=True, kw_only=True)
class Projection(Fill):
    """Project the valid tokens onto a random subspace (ROPIM, Haghighat et al. 2023, arXiv 2310.18737, 3).

    A count sketch: tokens are dealt into buckets, each with a random sign, and every token becomes its bucket's signed mean
    times its own sign. That is an orthogonal projection of the N token vectors onto as many dimensions as there are buckets.
    The encoder is shown something of every valid token, seen and hidden alike: by design hidden content reaches it, as far
    as the projection lets it; a method predicts what the projection P took away, through I - P (`project`).

    Deviations: buckets hold equally many tokens, so that none is empty; over valid tokens, and measured voxels of them,
    only; hidden and seen tokens of the plan are projected alike, and a plan's voxels play no part; 2D and 3D.

    Attributes:
        kept: dimensions that are kept, as a share of the valid tokens; the paper's is 1/7.
    """

    ability: ClassVar[Ability] = "dense"
    kept: float = 1.0 / 7.0

    def __post_init__(self) -> None:
        if not 0.0 < self.kept < 1.0:
            raise ConfigError(f"expected to keep a share of the dimensions above 0 and below 1, got {self.kept}.")

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch with every valid token projected."""
        valid = (plan.see | plan.hide).unflatten(1, (grid.num_groups, -1))
        value = torch.zeros_like(batch.image)
        for number, group in enumerate(grid.groups or (batch.bands,)):
            bands = [batch.bands.index(band) for band in group]
            operator = sketch(rng.split("projection").split(number), valid[:, number], self.kept)
            image, measured = (patchify(tensor[:, bands], grid.patch) for tensor in (batch.image, batch.valid))
            value[:, bands] = unpatchify(project(image, measured, operator), grid.plain)
        return filled(batch, value, to_voxels(plan.see | plan.hide, grid, batch.bands))


def sketch(rng: SampleRng, valid: Tensor, kept: float) -> Tensor:
    """Draw the buckets and signs of the valid tokens: (B, buckets, N) float32 of 0, 1 and -1, one number per valid token.

    Each sample has ceil(kept * its valid tokens) buckets; the rows of others are 0.
    """
    number = valid.sum(dim=1, keepdim=True)
    buckets = (number * kept - 1e-4).ceil().clamp(min=1).to(torch.int64)
    # a random order of the valid tokens, dealt like cards
    rank = ranked(torch.where(valid, rng.split("buckets").uniform(valid.shape[1]), torch.inf))
    bucket = rank % buckets
    sign = torch.where(rng.split("signs").uniform(valid.shape[1]) < 0.5, -1.0, 1.0) * valid
    row = torch.arange(math.ceil(valid.shape[1] * kept), device=valid.device)[:, None]
    return torch.where(bucket[:, None] == row, sign[:, None], 0.0)


def project(values: Tensor, measured: Tensor, operator: Tensor) -> Tensor:
    """Apply P to the token vectors (B, N, P), value by value over the tokens in which it was measured; 0 elsewhere.

    P = S^T (S S^T)^-1 S of the sketch S: symmetric, and P P = P. What it takes away is `values - project(...)`.
    """
    operator = operator.to(values.dtype)
    with torch.autocast(values.device.type, enabled=False):  # in bfloat16 P P would not be P
        total = operator @ torch.where(measured, values, 0.0)
        count = operator.abs() @ measured.to(values.dtype)
        return (operator.transpose(1, 2) @ (total / count.clamp(min=1.0))) * measured
