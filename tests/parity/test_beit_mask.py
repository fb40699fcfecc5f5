"""Boxes against BEiT's MaskingGenerator: its rule exactly, and ours in what masks look like."""

from __future__ import annotations

import random

import pytest
import torch

from core.maskers.boxes import Boxes, beit_boxes
from core.shapes import Grid
from tests.core.maskers.inputs import agreement, complete
from tests.parity.fixture import Fixture

pytestmark = pytest.mark.parity

GRID = Grid((14, 14), (1, 1))


@pytest.fixture
def fixture(parity):
    return Fixture(parity / "beit_block_mask")


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_draws_the_masks_of_the_reference(fixture, seed):
    c = fixture.config
    mask = beit_boxes((14, 14), c["num_masking_patches"], c["min_num_patches"], random.Random(seed), c["min_aspect"])
    assert torch.equal(torch.from_numpy(mask).long(), fixture.io[f"out.mask_14_75_seed{seed}"])


def test_on_another_grid(fixture):
    mask = beit_boxes((10, 12), 40, 4, random.Random(5))
    assert torch.equal(torch.from_numpy(mask).long(), fixture.io["out.mask_10x12_40_min4_seed5"])


def test_the_rule_has_the_statistics_of_the_reference(fixture):
    draw = random.Random(123)
    masks = torch.stack([torch.from_numpy(beit_boxes((14, 14), 75, 16, draw)) for _ in range(2000)])
    count = masks.sum((1, 2))
    mean, deviation, least, most = fixture.io["out.stat_count_mean_std_min_max"].tolist()
    assert float(count.double().mean()) == pytest.approx(mean, abs=1e-4)
    assert float(count.double().std(correction=0)) == pytest.approx(deviation, abs=1e-4)
    assert (int(count.min()), int(count.max())) == (least, most)
    assert torch.equal(count.bincount(minlength=76), fixture.io["out.stat_count_hist_0_75"])
    torch.testing.assert_close(masks.float().mean(0), fixture.io["out.stat_position_frequency"])
    across, down = fixture.io["out.stat_neighbour_agreement_hv"].tolist()
    assert agreement(masks, 2) == pytest.approx(across, abs=1e-5)
    assert agreement(masks, 1) == pytest.approx(down, abs=1e-5)


def test_boxes_drawn_at_once_look_like_those_of_the_reference(fixture):
    """Close, not equal: ours hides the exact count, and boxes that span the grid are allowed."""
    batch = complete(1000, GRID)
    hide = Boxes(ratio=75 / 196, smallest=16)(batch, GRID, batch.rng).hide.reshape(-1, 14, 14)
    assert torch.equal(hide.sum((1, 2)), torch.full((1000,), 75))
    across, down = fixture.io["out.stat_neighbour_agreement_hv"].tolist()
    assert agreement(hide, 2) == pytest.approx(across, abs=0.02)
    assert agreement(hide, 1) == pytest.approx(down, abs=0.02)
    theirs, ours = fixture.io["out.stat_position_frequency"], hide.float().mean(0)
    assert float(torch.corrcoef(torch.stack([theirs.flatten(), ours.flatten()]))[0, 1]) > 0.95
    assert float((theirs - ours).abs().max()) < 0.1
