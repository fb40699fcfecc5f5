"""Patches of another sample of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.fills._visible import filled, hidden_voxels, visible_statistics
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid, patchify, unpatchify


@dataclass(frozen=True, kw_only=True)
class OtherSample(Fill):
    """Replace hidden voxels by those of another image (GMML, Atito et al. 2022, arXiv 2205.14986, 3.1).

    Each hidden patch becomes a random patch that is seen of the partner: among the samples that have data the one with the
    next larger key, the last one's being the first. This is the one fill whose result depends on the other samples of the
    batch, and so on the number of ranks: who is whose partner is a function of the keys in the batch, and the random choice
    of patches is the sample's own. A patch of its own would be the alternative, but would show more of its own image.

    Deviations: patches come from another place of the partner, and only from where it is seen, so that no hidden content
    of any sample reaches the encoder. Voxels that the partner lacks (missing data, no partner in a batch of one) become
    the mean of the sample's own visible voxels.
    """

    ability: ClassVar[Ability] = "dense"

    def check(self, entry: Input) -> None:
        """Nothing: it fills any input."""

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch with its hidden voxels replaced."""
        mean, _ = visible_statistics(batch, plan, grid)
        partner = next_by_key(batch.key, plan.see.any(dim=1))
        draw = rng.split("other sample").uniform(grid.num_tokens).unflatten(1, (grid.num_groups, -1))
        see = plan.see.unflatten(1, (grid.num_groups, -1))[partner]
        alone = (partner == torch.arange(len(partner), device=partner.device))[:, None]
        value, known = torch.empty_like(batch.image), torch.empty_like(batch.valid)
        for number, group in enumerate(grid.groups or (batch.bands,)):
            bands = [batch.bands.index(band) for band in group]
            donor, real = _seen_place(see[:, number] & ~alone, draw[:, number])
            value[:, bands] = _moved(batch.image[:, bands][partner], donor, grid)
            known[:, bands] = _moved(batch.valid[:, bands][partner], donor, grid) & real.reshape(
                -1, *(1 for _ in batch.image.shape[1:])
            )
        return filled(batch, torch.where(known, value, mean), hidden_voxels(batch, plan, grid))


def next_by_key(key: Tensor, counted: Tensor) -> Tensor:
    """Give the row of the counted sample with the next larger key, (B,) int64; its own where it is the only one."""
    order = key.argsort(stable=True)
    order = order[(~counted[order]).to(torch.uint8).argsort(stable=True)]
    following = (torch.arange(len(key), device=key.device) + 1) % counted.sum().clamp(min=1)
    return torch.empty_like(order).scatter_(0, order, order[following])


def _seen_place(see: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one of the seen places for each place, (B, places) int64, and say in which samples there is one, (B,) bool."""
    count = see.sum(dim=1, keepdim=True)
    order = (~see).to(torch.uint8).argsort(dim=1, stable=True)
    return order.gather(1, (draw * count).to(torch.int64)), count[:, 0] > 0


def _moved(image: Tensor, place: Tensor, grid: Grid) -> Tensor:
    """Lay out an image of the patches at `place`."""
    patches = patchify(image, grid.patch)
    return unpatchify(patches.gather(1, place[..., None].expand_as(patches)), grid.plain)
