"""Masks over voxels: strokes and blocks hide the exact share of tokens, and in each only what they cover."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.maskers._voxels import voxel_plan
from core.maskers.scribble import NODES, Scribble, _distance, _weights
from core.maskers.voxel_blocks import VoxelBlocks, _covered
from core.plan import hide_share
from core.shapes import Grid
from core.voxel_masks import token_share
from tests.core.maskers.inputs import complete, streams

FLAT = Grid((14, 14), (8, 8))
SOLID = Grid((6, 6, 6), (4, 8, 8))


def test_the_most_covered_tokens_are_hidden_as_far_as_they_are_covered():
    grid = Grid((1, 4), (1, 4))
    voxels = torch.tensor([[[[1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]]]], dtype=torch.bool)
    batch, valid = complete(1, grid), torch.ones(1, 4, dtype=torch.bool)
    plan = voxel_plan(voxels, torch.zeros(1, 4), valid, 0.5, batch, grid)
    assert plan.hide.tolist() == [[True, False, True, False]]
    assert plan.covered.tolist() == [[0.75, 0.0, 1.0, 0.0]]
    assert plan.voxels.flatten().int().tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


def test_a_hidden_token_that_nothing_covers_is_hidden_whole():
    grid = Grid((1, 4), (1, 4))
    voxels = torch.zeros(1, 1, 1, 16, dtype=torch.bool)
    voxels[..., 0] = True
    plan = voxel_plan(voxels, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool), 0.5,
                      complete(1, grid), grid)  # fmt: skip
    assert plan.covered.tolist() == [[0.25, 0.0, 1.0, 0.0]]
    assert plan.voxels.flatten().int().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("masker", [Scribble(), VoxelBlocks()])
@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_the_hidden_tokens_are_those_that_are_covered_most(masker, grid):
    batch = complete(6, grid)
    plan = masker(batch, grid, batch.rng)
    share = plan.covered
    exact = hide_share(share, torch.ones_like(plan.hide), masker.ratio)
    assert torch.equal(plan.hide, exact.hide)
    assert torch.equal(share, token_share(plan.voxels, grid))
    assert 0.3 < float(share[plan.hide].mean()) < 0.97
    assert float(share[plan.hide].std()) > 0.05


@pytest.mark.parametrize("coverage", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_strokes_reach_enough_tokens_however_thin(coverage, grid):
    batch = complete(6, grid)
    masker = Scribble(coverage=coverage)
    level = (_distance(streams(6), torch.full((1, grid.ndim), 3.0), grid) * 1024).long().clamp(max=1023)
    widest = masker._widest(level, torch.ones(6, grid.num_places, dtype=torch.bool), grid)
    covered = level <= widest.reshape(-1, *(1 for _ in grid.size))
    reached = token_share(covered[:, None], grid) > 0
    assert int(reached.sum(1).min()) >= -(-grid.num_places // 2)
    if coverage > 0.1:
        assert float(covered.float().mean((*range(1, 1 + grid.ndim),)).min()) >= coverage * 0.5
    plan = masker(batch, grid, batch.rng)
    assert float(plan.covered[plan.hide].min()) > 0


def test_wider_strokes_cover_more():
    batch = complete(6, FLAT)
    covered = [float(Scribble(coverage=c)(batch, FLAT, batch.rng).voxels.float().mean()) for c in (0.2, 0.5, 1.0)]
    assert covered[0] < covered[1] < covered[2]
    assert abs(covered[1] - 0.25) < 0.03


def test_strokes_are_connected_lines():
    """A stroke's voxel nearly always has a neighbour of the same stroke; scattered voxels of the same share would not."""
    batch = complete(4, FLAT)
    voxels = Scribble(coverage=0.4)(batch, FLAT, batch.rng).voxels[:, 0].float()
    around = torch.nn.functional.avg_pool2d(voxels, 3, stride=1, padding=1) * 9
    assert float((around[voxels > 0] >= 4).float().mean()) > 0.9


def test_the_lattice_is_blended_by_weights_that_add_up_to_one():
    weight = _weights(torch.rand(3, 50) * 40)
    torch.testing.assert_close(weight.sum(2), torch.ones(3, 50))
    assert int((weight > 0).sum(2).max()) == 2
    assert _weights(torch.tensor([[0.0, float(NODES), 3.5]]))[0, :, [0, 3, 4]].tolist() == [
        [1, 0, 0],
        [1, 0, 0],
        [0, 0.5, 0.5],
    ]


def test_a_period_in_millimetres_is_rounder_than_one_in_tokens():
    grid = Grid((10, 10), (8, 8))
    thin = complete(1, grid, spacing=(4.0, 1.0))
    length = Scribble(period=32.0, unit="length")(thin, grid, thin.rng)
    token = Scribble(period=1.0)(thin, grid, thin.rng)
    assert length.hide.sum() == token.hide.sum() == 50
    with pytest.raises(ConfigError, match="no smaller than a token, got 7 on tokens of 32 x 8"):
        Scribble(period=7.0, unit="length")(thin, grid, thin.rng)
    with pytest.raises(ConfigError, match="no smaller than a token, got 7 on tokens of 32 x 8"):
        Scribble(period=7.0, unit="length").check(grid, (4.0, 1.0))
    Scribble(period=8.0, unit="length").check(grid, (4.0, 1.0))


@pytest.mark.parametrize("grid", [FLAT, SOLID])
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_blocks_cover_the_ratio_on_average_and_borders_as_often_as_the_middle(grid, ratio):
    edge = torch.tensor([grid.patch], dtype=torch.float32).expand(60, -1)
    covered = _covered(edge * 0.5, edge * 1.5, ratio, grid, streams(60)).float()
    assert abs(float(covered.mean()) - ratio) < 0.04
    for axis in range(1, 1 + grid.ndim):
        border = covered.select(axis, 0).mean()
        assert abs(float(border) - ratio) < 0.08


def test_blocks_are_those_of_a_loop():
    grid, edge = Grid((3, 4, 5), (2, 2, 2)), torch.full((2, 3), 2.0)
    rng = streams(2)
    ours = _covered(edge, edge * 2.0, 0.5, grid, rng)
    size, mean = torch.tensor(grid.size), 3.0
    count = int((torch.tensor(0.5).log() / torch.log1p(-(mean / (size + mean)).prod())).ceil())
    edges = 2.0 + 2.0 * rng.split("edges").uniform(count, 3)
    start = rng.split("place").uniform(count, 3) * (size + edges) - edges
    theirs = torch.zeros_like(ours)
    for sample in range(2):
        for block in range(count):
            first, last = start[sample, block], start[sample, block] + edges[sample, block]
            inside = [
                (torch.arange(n) + 0.5 >= a) & (torch.arange(n) + 0.5 < b)
                for n, a, b in zip(grid.size, first, last, strict=True)
            ]
            theirs[sample] |= inside[0][:, None, None] & inside[1][:, None] & inside[2]
    assert torch.equal(ours, theirs)


def test_blocks_in_millimetres_follow_each_sample_s_own_spacing_and_no_other_s():
    grid = Grid((8, 8), (8, 8))
    batch = complete(2, grid)
    batch.spacing[1] = 0.25
    masker = VoxelBlocks(shortest=4.0, longest=8.0, unit="length")
    shortest, longest = masker._edges(batch, grid)
    assert shortest.tolist() == [[4, 4], [16, 16]]
    assert longest.tolist() == [[8, 8], [32, 32]]
    both, alone = masker(batch, grid, batch.rng), masker(batch.take([1]), grid, batch.take([1]).rng)
    assert torch.equal(both.voxels[1], alone.voxels[0])
    assert both.voxels[0].sum() != both.voxels[1].sum()


@pytest.mark.parametrize(
    ("masker", "grid", "words"),
    [
        (VoxelBlocks(shortest=0.05), FLAT, "at least a voxel"),
        (VoxelBlocks(shortest=5.0, longest=20.0), FLAT, "smaller than the image"),
        (Scribble(), Grid((4, 4), (1, 1)), "several voxels"),
    ],
)
def test_what_cannot_work_is_refused(masker, grid, words):
    with pytest.raises(ConfigError, match=words):
        masker.check(grid, (1.0,) * grid.ndim)


def test_blocks_below_a_voxel_in_millimetres_are_refused():
    batch = complete(1, FLAT, spacing=(3.0, 3.0))
    with pytest.raises(ConfigError, match=r"got edges up to 2 on voxels of 3 x 3"):
        VoxelBlocks(shortest=1.0, longest=2.0, unit="length")(batch, FLAT, batch.rng)
    with pytest.raises(ConfigError, match=r"got edges up to 2 on voxels of 3 x 3"):
        VoxelBlocks(shortest=1.0, longest=2.0, unit="length").check(FLAT, (3.0, 3.0))
    VoxelBlocks(shortest=1.0, longest=2.0, unit="length").check(FLAT, (3.0, 2.0))


@pytest.mark.parametrize(
    ("part", "options"),
    [(Scribble, {"period": 0.5}), (Scribble, {"coverage": 0.0}), (VoxelBlocks, {"shortest": 2.0, "longest": 1.0})],
)
def test_impossible_options_are_refused(part, options):
    with pytest.raises(ConfigError, match="expected"):
        part(**options)
