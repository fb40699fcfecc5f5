"""One region whole, the others in proportion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError, DataError
from core.maskers.regions import Regions, _chosen
from core.shapes import Grid
from tests.core.maskers.inputs import complete

FLAT = Grid((10, 10), (4, 4))
SOLID = Grid((4, 5, 5), (2, 4, 4))


def _steps(grid, count, edges):
    """Make images whose first axis climbs in steps at the given tokens, with a little noise."""
    index = torch.arange(grid.tokens[0]).repeat_interleave(grid.patch[0])
    level = sum((index >= edge).float() for edge in edges)
    level = level.reshape(-1, *(1 for _ in grid.size[1:])).expand(grid.size)
    return level[None, None] + 0.01 * torch.randn(count, 1, *grid.size)


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_a_region_is_hidden_whole_and_the_same_share_of_each_other(grid):
    batch = complete(40, grid)
    masker = Regions(ratio=0.7)
    region, hide = masker._map(batch, grid), masker(batch, grid, batch.rng).hide
    share = torch.stack([(hide & (region == r)).sum(1) / (region == r).sum(1) for r in range(4)], dim=1)
    others = share.sort(dim=1).values[:, :3]
    assert torch.equal(share.max(dim=1).values, torch.ones(40))
    assert float((others - 0.6).abs().max()) <= 1 / (grid.num_places // 4)  # (0.7 - 0.25) / 0.75, a token up or down
    assert len(share.argmax(dim=1).unique()) == 4


def test_regions_are_levels_of_brightness():
    batch = complete(1, FLAT, image=_steps(FLAT, 1, [3, 5, 8]))
    rows = Regions()._map(batch, FLAT).reshape(10, 10).float().mean(1)
    assert bool((rows.diff() >= 0).all())
    assert rows[0] == 0
    assert rows[-1] == 3


def test_regions_come_from_the_prior():
    batch = complete(30, FLAT)
    prior = torch.zeros(30, 1, 40, 40)
    prior[:, :, :12] = 0.9  # the first three rows of tokens
    masker = Regions(ratio=0.5, regions=2, source="prior")
    hide = masker(replace(batch, prior=prior), FLAT, batch.rng).hide.reshape(30, 10, 10)
    # the larger region has 70 tokens and never fits into 50
    assert bool(hide[:, :3].all())
    assert hide[:, 3:].flatten(1).sum(1).tolist() == [20] * 30


def test_a_missing_prior_is_told():
    batch = complete(1, FLAT)
    with pytest.raises(DataError, match="prior"):
        Regions(source="prior")(batch, FLAT, batch.rng)


def test_a_region_that_fits_is_chosen_and_else_the_smallest_one():
    noise, budget = torch.rand(1, 3), torch.tensor([10])
    assert _chosen(noise, torch.tensor([[11, 10, 12]]), budget).tolist() == [1]
    assert _chosen(noise, torch.tensor([[30, 20, 0]]), budget).tolist() == [1]


def test_missing_voxels_do_not_darken_a_region():
    image = _steps(FLAT, 1, [5]) + 1.0
    whole, holed = complete(1, FLAT, image=image), complete(1, FLAT, image=image)
    holed.valid[:, :, 20:, ::2] = False
    assert torch.equal(Regions(regions=2)._map(whole, FLAT) == 1, Regions(regions=2)._map(holed, FLAT) == 1)


def test_one_region_and_more_regions_than_tokens_are_refused():
    with pytest.raises(ConfigError, match="2 regions"):
        Regions(regions=1)
    with pytest.raises(ConfigError, match="a token per region"):
        Regions(regions=8).check(Grid((2, 2), (4, 4)), (1.0, 1.0))
