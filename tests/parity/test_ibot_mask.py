"""Boxes against iBOT's loader: a ratio for each image, then BEiT's rule with iBOT's smallest box."""

from __future__ import annotations

import math
import random

import pytest
import torch

from core.maskers.boxes import beit_boxes, ibot_ratio
from core.plan import hide_share
from tests.parity.fixture import Fixture

pytestmark = pytest.mark.parity

CHOICES = {"block": ((0.3, 0.0),), "block_list": ((0.0, 0.0), (0.3, 0.2))}


@pytest.fixture
def fixture(parity):
    return Fixture(parity / "ibot_mask")


@pytest.mark.parametrize("name", CHOICES)
def test_the_crops_of_an_image_are_masked_as_in_the_reference(fixture, name):
    draw = random.Random(7)
    for crop, size in enumerate(fixture.config["crops"]):
        edge = size // fixture.config["patch"]
        hidden = ibot_ratio(CHOICES[name], draw) * edge**2
        mask = beit_boxes((edge, edge), hidden, (edge // 3) ** 2, draw)
        assert torch.equal(torch.from_numpy(mask), fixture.io[f"out.mask_{name}_crop{crop}"])


def test_random_masks_round_up_where_the_reference_rounds_down(fixture):
    """Ranking the reference's own mask, ours hides all that it hides, and 128 of 196 tokens where it hides 127."""
    ratio = float(fixture.config["rand"])
    for crop, size in enumerate(fixture.config["crops"]):
        theirs = fixture.io[f"out.mask_rand_crop{crop}"].flatten()
        ours = hide_share(theirs.float()[None], torch.ones(1, len(theirs), dtype=torch.bool), ratio).hide[0]
        assert len(theirs) == (size // fixture.config["patch"]) ** 2
        assert int(theirs.sum()) == math.floor(ratio * len(theirs))
        assert int(ours.sum()) == math.ceil(ratio * len(theirs))
        assert bool(ours[theirs].all())
