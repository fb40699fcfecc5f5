"""A map of the image as the guide: it finds structure, ignores missing data, respects spacing, and yields to temperature."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.batch import valid_tokens
from core.errors import ConfigError, DataError
from core.maskers.feature_guided import FeatureGuided
from core.plan import Guide
from core.predictors.transformer import TransformerSpec
from core.recipes.mae import Mae
from core.targets.gradient import gradient_magnitude
from core.testing.samples import CUBE, SCENE, VOLUME, encoder_spec, grouped, ragged_batch
from tests.parity.fixture import make_batch, make_input

FLAT = make_input("flat", 2, (8, 8), (64, 64))
SOLID = make_input("solid", 1, (2, 8, 8), (8, 32, 32))


def _plan(masker, batch, entry, guide=None):
    return masker(batch, entry.grid(), batch.rng, guide or Guide())


def _striped(entry, count=1):
    """Stripes in the right half of the image, nothing in the left."""
    image = torch.zeros(count, len(entry.bands), *entry.size)
    image[..., entry.size[-1] // 2 :] = torch.sin(torch.arange(entry.size[-1] // 2) * 1.5)
    return make_batch(image, entry)


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE, grouped(CUBE)], ids=["scene", "volume", "cube", "grouped"])
@pytest.mark.parametrize("source", ["gradient", "hog", "prior", "hint"])
def test_hides_the_exact_share_of_valid_tokens(entry, source):
    batch, grid = ragged_batch(entry).normalised(), entry.grid()
    batch = replace(batch, prior=torch.rand(4, 1, *entry.size))
    valid = valid_tokens(batch, grid)
    plan = _plan(FeatureGuided(source=source), batch, entry, Guide(hint=torch.rand(4, grid.num_tokens)))
    for sample in range(4):
        count = int(valid[sample].sum())
        assert int(plan.hide[sample].sum()) == min(math.ceil(round(0.6 * count, 6)), max(count - 1, 0))
    assert torch.equal(plan.see | plan.hide, valid)


@pytest.mark.parametrize("entry", [FLAT, SOLID], ids=["flat", "solid"])
@pytest.mark.parametrize("source", ["gradient", "hog"])
def test_a_cold_map_hides_the_structure_or_all_but_it(entry, source):
    batch = _striped(entry)
    right = (torch.arange(entry.grid().num_tokens) % entry.grid().tokens[-1]) >= entry.grid().tokens[-1] // 2
    high = _plan(FeatureGuided(ratio=0.5, source=source, temperature=0.01), batch, entry)
    low = _plan(FeatureGuided(ratio=0.5, source=source, temperature=0.01, hide="low"), batch, entry)
    assert torch.equal(high.hide[0], right)
    assert torch.equal(low.hide[0], ~right)


def test_a_hot_map_is_chance():
    batch = _striped(FLAT, 200)
    often = _plan(FeatureGuided(ratio=0.5, temperature=1000.0), batch, FLAT).hide.float().mean(0).reshape(8, 8)
    assert float(often[:, 4:].mean()) == pytest.approx(0.5, abs=0.03)
    warm = _plan(FeatureGuided(ratio=0.5, temperature=1.0), batch, FLAT).hide.float().mean(0).reshape(8, 8)
    assert 0.6 < float(warm[:, 4:].mean()) < 0.95


def test_orientation_tells_an_edge_from_noise_of_more_gradient():
    """Left: noise; right: stripes with two thirds of its mean gradient magnitude."""
    batch = _striped(FLAT)
    image, spacing = torch.randn(1, 2, 64, 64), torch.ones(1, 2)
    noise, stripes = (gradient_magnitude(x, spacing, 3)[..., 33:63].mean() for x in (image, batch.image))
    image = torch.cat([image[..., :32] * 1.5 * stripes / noise, batch.image[..., 32:]], dim=3)
    hidden = {}
    for source in ("gradient", "hog"):
        masker = FeatureGuided(ratio=0.25, source=source, temperature=0.01)
        hidden[source] = _plan(masker, make_batch(image, FLAT), FLAT).hide.reshape(8, 8)
    assert int(hidden["gradient"][:, 4:].sum()) <= 4
    assert int(hidden["hog"][:, 4:].sum()) == 16


def test_a_constant_image_prefers_no_place():
    batch = make_batch(torch.ones(150, 2, 64, 64), FLAT)
    for source in ("gradient", "hog"):
        often = _plan(FeatureGuided(source=source, temperature=0.01), batch, FLAT).hide.float().mean(0)
        assert 0.42 < float(often.min()) < float(often.max()) < 0.78


@pytest.mark.parametrize("source", ["gradient", "hog"])
def test_the_border_of_missing_data_is_no_structure(source):
    batch = _striped(FLAT)
    batch.image[:, :, :, :16] = 50.0
    batch.valid[:, :, :, :16] = False
    batch = replace(batch.normalised(), image=batch.normalised().image + 30.0 * batch.valid)
    hide = _plan(FeatureGuided(ratio=0.6, source=source, temperature=0.01), batch, FLAT).hide.reshape(8, 8)
    assert int(hide[:, 4:].sum()) == 29  # of 48 valid tokens; the step from missing data to 30 is nothing


def test_a_slope_counts_per_millimetre():
    """The same step per voxel is five times weaker across thick slices: the sides that change within a slice win."""
    image = torch.zeros(1, 1, 8, 32, 32)
    image[:, :, :, :, :16] += torch.sin(torch.arange(8) * 1.5)[:, None, None]
    image[:, :, :, :, 16:] += torch.sin(torch.arange(16) * 1.5)
    thick = replace(make_batch(image, SOLID), spacing=torch.tensor([[5.0, 1.0, 1.0]]))
    hide = _plan(FeatureGuided(ratio=0.5, temperature=0.01), thick, SOLID).hide.reshape(4, 4, 4)
    assert bool(hide[..., 2:].all())


def test_the_prior_decides():
    prior = torch.zeros(1, 1, 64, 64)
    prior[..., 16:32, 8:40] = 1.0
    batch = replace(make_batch(torch.zeros(1, 2, 64, 64), FLAT), prior=prior)
    hide = _plan(FeatureGuided(ratio=0.125, source="prior", temperature=0.01), batch, FLAT).hide.reshape(8, 8)
    assert bool(hide[2:4, 1:5].all()) and int(hide.sum()) == 8


def test_a_missing_prior_is_an_error():
    with pytest.raises(DataError, match="batches with a prior map"):
        _plan(FeatureGuided(source="prior"), _striped(FLAT), FLAT)


def test_a_recipe_without_a_teacher_refuses_the_hint_when_it_is_built():
    spec = Mae(encoder=encoder_spec(SCENE), predictor=TransformerSpec(width=16, depth=1, heads=2))
    with pytest.raises(ConfigError, match="no network that gives the hint 'attention'"):
        replace(spec, masker=FeatureGuided(source="hint")).build()
    assert replace(spec, masker=FeatureGuided()).build().masker.hint is None


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError, match="temperature above 0"):
        FeatureGuided(temperature=0.0)
