"""The budget over groups of bands: Dirichlet proportions, shared places, whole groups dropped."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.maskers.bands import Bands, dirichlet
from core.shapes import Grid
from tests.core.maskers.inputs import complete, streams

GROUPS = (("band0",), ("band1", "band2"), ("band3",))
FLAT = Grid((10, 10), (2, 2), GROUPS)
SOLID = Grid((4, 5, 5), (2, 2, 2), GROUPS)


def _seen(masker, grid, count=400):
    batch = complete(count, grid, bands=4)
    return masker(batch, grid, batch.rng).see.unflatten(1, (3, -1))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_proportions_are_dirichlet(alpha):
    share = dirichlet(streams(20_000), 3, alpha).double()
    torch.testing.assert_close(share.sum(1), torch.ones(20_000, dtype=torch.float64))
    variance = (1 / 3) * (2 / 3) / (3 * alpha + 1)
    assert float(share.mean(0).sub(1 / 3).abs().max()) < 0.008
    assert float((share.var(0) / variance - 1).abs().max()) < 0.05
    third = alpha * (alpha + 1) * (alpha + 2) / (3 * alpha * (3 * alpha + 1) * (3 * alpha + 2))
    assert float((share.pow(3).mean(0) / third - 1).abs().max()) < 0.06


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_what_is_seen_follows_the_proportions(grid):
    batch = complete(400, grid, bands=4)
    number = Bands()(batch, grid, batch.rng).see.unflatten(1, (3, -1)).sum(2)
    assert number.sum(1).tolist() == [50] * 400
    wanted = dirichlet(batch.rng.split("bands").split("shares"), 3, 1.0) * 50
    assert float((number - wanted).abs().max()) < 1.5
    assert int((number == 0).any(1).sum()) >= 5  # a share below 1/100 rounds to nothing


def test_large_alpha_splits_evenly_and_small_alpha_sees_one_group():
    even, uneven = _seen(Bands(alpha=1000.0), FLAT).sum(2), _seen(Bands(alpha=0.01), FLAT).sum(2)
    assert int(even.min()) >= 13
    assert int(even.max()) <= 20
    assert float((uneven.max(1).values >= 48).float().mean()) > 0.9
    assert bool((uneven == 50).any(0).all())


def test_a_group_cannot_be_seen_more_than_it_has():
    seen = _seen(Bands(ratio=0.4, alpha=0.01), FLAT).sum(2)
    assert seen.sum(1).tolist() == [180] * 400
    assert int(seen.max()) == 100


def test_shared_places_are_the_same_in_every_group_and_independent_ones_are_not():
    shared, apart = _seen(Bands(mode="shared"), FLAT), _seen(Bands(mode="independent"), FLAT)
    assert int((shared.any(1) & ~shared.all(1)).sum(1).max()) <= 1  # 50 tokens of 3 groups: two of the last place
    expected = 1 - (1 / 6) ** 3 - (5 / 6) ** 3
    assert abs(float((apart.any(1) & ~apart.all(1)).float().mean()) - expected) < 0.02


def test_groups_are_dropped_whole_while_they_fit():
    gone = (_seen(Bands(mode="independent", dropout=0.3), FLAT).sum(2) == 0).sum(1)
    assert int(gone.max()) == 2  # 250 of 300 are hidden: never all three
    chance = [0.7**3, 3 * 0.3 * 0.49, 3 * 0.09 * 0.7 + 0.027]
    for number, expected in enumerate(chance):
        assert abs(float((gone == number).float().mean()) - expected) < 0.07
    one = _seen(Bands(mode="shared", ratio=0.5, dropout=0.9), FLAT).sum(2) == 0  # room for one
    assert int(one.sum(1).max()) == 1
    assert float(one.any(1).float().mean()) > 0.95
    assert float((one.float().mean(0) - 1 / 3).abs().max()) < 0.08


def test_dropout_hides_exactly_as_many():
    seen = _seen(Bands(ratio=0.5, dropout=0.5), FLAT)
    assert seen.flatten(1).sum(1).tolist() == [150] * 400


def test_an_input_without_groups_is_refused():
    with pytest.raises(ConfigError, match="declare the input's `groups`"):
        Bands().check(FLAT.plain, (1.0, 1.0))


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"dropout": 1.0}, {"ratio": 1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        Bands(**options)
