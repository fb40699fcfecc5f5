"""Coloured noise against ColorMAE: which part of a given pattern is hidden."""

from __future__ import annotations

import pytest
import torch

from core.maskers.color_noise import weakest_first
from core.plan import hide_share
from tests.parity.fixture import Fixture

pytestmark = pytest.mark.parity


def test_the_weakest_of_a_pattern_is_hidden_as_in_the_reference(parity):
    fixture = Fixture(parity / "colormae_mask")
    pattern = fixture.io["in.pattern_windows"]
    valid = torch.ones(4, 196, dtype=torch.bool)
    plan = hide_share(weakest_first(pattern), valid, fixture.config["mask_ratio"])
    assert torch.equal(plan.hide.float(), fixture.io["out.mask"])
    kept = fixture.io["out.ids_keep"].sort(dim=1).values
    assert torch.equal(plan.see.nonzero()[:, 1].reshape(4, -1), kept)


def test_their_normalisation_changes_no_rank(parity):
    fixture = Fixture(parity / "colormae_mask")
    pattern = fixture.io["in.pattern_windows"]
    normalised = pattern / pattern.amax((1, 2), keepdim=True)
    fixture.close(normalised, "out.normalized")
    assert torch.equal(weakest_first(normalised).argsort(1), weakest_first(pattern).argsort(1))
