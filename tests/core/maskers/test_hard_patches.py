"""Hard patches: the share that is chosen for hardness grows with progress, the rest is random."""

from __future__ import annotations

import math

import pytest
import torch

from core.batch import valid_tokens
from core.errors import ConfigError
from core.maskers.hard_patches import HardPatches
from core.plan import Guide
from core.testing.samples import CUBE, SCENE, VOLUME, ragged_batch
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("image", 1, (4, 4), (40, 40))


def _plan(masker, hint, progress, count=1):
    batch = make_batch(torch.zeros(count, 1, 40, 40), ENTRY)
    return masker(batch, batch.grid((4, 4)), batch.rng, Guide(hint=hint, progress=progress))


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE], ids=lambda entry: entry.name)
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_hides_the_exact_share_of_valid_tokens(entry, progress):
    batch, grid = ragged_batch(entry).normalised(), entry.grid()
    valid = valid_tokens(batch, grid)
    guide = Guide(hint=torch.rand(4, grid.num_tokens), progress=torch.tensor(progress))
    plan = HardPatches()(batch, grid, batch.rng, guide)
    for sample in range(4):
        count = int(valid[sample].sum())
        assert int(plan.hide[sample].sum()) == min(math.ceil(0.75 * count), max(count - 1, 0))
    assert torch.equal(plan.see | plan.hide, valid)


@pytest.mark.parametrize(("progress", "certain"), [(0.0, 0), (0.1, 3), (0.5, 18), (1.0, 37)])
def test_the_hardest_are_certain_and_their_number_rises_linearly(progress, certain):
    """Of 75 hidden tokens the floor of 75 x 0.5 x progress; the next hardest are hidden no more often than any other."""
    hint = torch.rand(1, 100).expand(300, -1)
    rank = hint[0].argsort(descending=True)
    often = _plan(HardPatches(), hint, torch.tensor(progress), 300).hide.float().mean(0)[rank]
    assert bool((often[:certain] == 1.0).all())
    expected = (75 - certain) / (100 - certain)
    assert bool(((often[certain:] - expected).abs() < 0.13).all())
    assert float(often[certain : certain + 10].mean()) == pytest.approx(expected, abs=0.03)


def test_start_and_end_are_the_ends():
    hint = torch.rand(40, 100)
    top = hint.argsort(1, descending=True).argsort(1) < 75
    assert torch.equal(_plan(HardPatches(end=1.0), hint, torch.tensor(1.0), 40).hide, top)
    assert torch.equal(_plan(HardPatches(start=1.0, end=1.0), hint, None, 40).hide, top)


def test_invalid_tokens_are_never_hidden_be_they_predicted_ever_so_hard():
    batch, grid = ragged_batch(SCENE).normalised(), SCENE.grid()
    valid = valid_tokens(batch, grid)
    hint = torch.where(valid, torch.rand(4, 24), 1e9)
    guide = Guide(hint=hint, progress=torch.tensor(1.0))
    plan = HardPatches(end=1.0)(batch, grid, batch.rng, guide)
    assert not bool((plan.hide & ~valid).any())
    easiest = torch.where(valid[1], hint[1], torch.inf).argmin()
    assert bool(plan.see[1, easiest])


def test_without_a_hint_it_says_so():
    with pytest.raises(ConfigError, match="masker 'hard_patches' ranks tokens by a hint and got none"):
        _plan(HardPatches(), None, torch.tensor(0.5))


def test_a_share_that_falls_is_refused():
    with pytest.raises(ConfigError, match="start <= end"):
        HardPatches(start=0.6)
