"""Recipes with a teacher: the exam with band groups and the predictor of the paper, and what they share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.config import from_dict, to_dict
from core.errors import ConfigError
from core.maskers.attention import AttentionGuided
from core.maskers.hard_patches import HardPatches
from core.predictors.cross_attention import CrossAttentionSpec
from core.recipes.base import RecipeSpec
from core.teachers.random_start import RandomStart
from core.testing.recipe_contract import RecipeContract
from core.testing.samples import CUBE, SCENE, encoder_spec, grouped, narrowed, ragged_batch, recipe_spec, teacher_of

NAMES = ("dbot", "dmae", "latent_mim", "maskalign", "mr_mae")
ENTRY = grouped(CUBE)


def spec_of(name):
    spec = recipe_spec(name, ENTRY)
    if name == "latent_mim":
        spec = replace(spec, predictor=CrossAttentionSpec(width=16, depth=1, heads=2))
    return spec


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def entry():
    return ENTRY


@pytest.fixture
def fresh(name):
    def build():
        torch.manual_seed(0)
        return spec_of(name).build()

    return build


@pytest.fixture
def recipe(fresh):
    return fresh()


@pytest.mark.slow
class TestWithBandGroups(RecipeContract):
    pass


def test_config_survives_a_file(name):
    spec = spec_of(name)
    assert from_dict(RecipeSpec, to_dict(spec)) == spec


def test_the_teacher_stays_still_while_the_recipe_trains(name):
    recipe = recipe_spec(name, SCENE).build().train()
    assert not any(module.training for module in recipe.teacher.modules())
    assert not any(parameter.requires_grad for parameter in recipe.teacher.parameters())
    before = {key: value.clone() for key, value in recipe.teacher.state_dict().items()}
    batch = ragged_batch(SCENE)
    recipe(batch, batch.rng).loss.backward()
    torch.optim.SGD(recipe.parameters(), lr=0.1).step()
    assert all(torch.equal(recipe.teacher.state_dict()[key], value) for key, value in before.items())
    assert recipe.kept() is recipe.encoder


@pytest.mark.parametrize("masker", [AttentionGuided(), HardPatches()])
def test_a_masker_without_its_hint_is_refused_when_built(name, masker):
    if (name, masker.hint) == ("maskalign", "attention"):
        return
    spec = replace(recipe_spec(name, SCENE), masker=masker)
    with pytest.raises(ConfigError, match=f"recipe '{name}' has no network that gives the hint '{masker.hint}'"):
        spec.build()


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("dbot", {"beta": 0.0}, "expected a beta of the smooth L1 above 0"),
        ("mr_mae", {"mimic_weight": 0.0}, "expected a mimic weight above 0"),
        ("dmae", {"depth": 0.0}, "expected a stage as a share of the depth"),
        ("dmae", {"distil_weight": -1.0}, "expected a distil weight above 0"),
        ("maskalign", {"stages": 0}, "at least one stage to align"),
        ("latent_mim", {"temperature": 0.0}, "expected a temperature and a projector_ratio above 0"),
        ("latent_mim", {"gap": -0.1}, "a projector_depth and a gap of 0 or more"),
    ],
)
def test_options_that_cannot_work_are_refused(recipe, options, message):
    with pytest.raises(ConfigError, match=message):
        replace(recipe_spec(recipe, SCENE), **options)


def test_any_teacher_serves_where_any_is_allowed():
    from core.teachers.ema import Ema

    for name in ("dmae", "maskalign", "mr_mae"):
        recipe = replace(recipe_spec(name, SCENE), teacher=Ema(start=0.0, end=0.0)).build()
        with torch.no_grad():
            recipe.encoder.norm.bias.add_(1.0)
        assert recipe.updated() is False
        assert torch.equal(recipe.teacher.encoder.norm.bias, recipe.encoder.norm.bias)


def test_a_teacher_that_renews_the_student_is_refused_where_other_layers_would_stay():
    for name in ("dmae", "maskalign", "mr_mae"):
        with pytest.raises(ConfigError, match=rf"recipe '{name}' has layers of its own.*choose recipe 'dbot'"):
            replace(recipe_spec(name, SCENE), teacher=RandomStart())


def test_a_larger_teacher_serves_too():
    large = replace(encoder_spec(SCENE), width=32, depth=4, heads=4)
    for name in ("dmae", "maskalign", "mr_mae"):
        recipe = replace(recipe_spec(name, SCENE), teacher=teacher_of(large)).build()
        batch = ragged_batch(SCENE)
        loss = recipe(batch, batch.rng).loss
        assert bool(loss > 0)


@pytest.mark.parametrize(("name", "term"), [("dmae", "teacher"), ("maskalign", "align"), ("mr_mae", "mimic")])
def test_what_the_teachers_bands_lack_is_not_scored(name, term):
    """The teacher reads three of six bands; where these are missing it has nothing to say of a token that is valid."""
    rgb = narrowed(SCENE, "rgb", ("red", "green", "blue"))
    recipe = replace(recipe_spec(name, SCENE), teacher=teacher_of(encoder_spec(rgb))).build()
    batch = ragged_batch(SCENE).take([0, 0])
    valid = batch.valid.clone()
    valid[1, :3] = False  # half of its bands: every token still counts for the student
    both, whole, blind = replace(batch, valid=valid), batch.take([0]), replace(batch, valid=valid).take([1])
    terms = [recipe(given, given.rng).terms[term] for given in (both, whole, blind)]
    assert terms[1] > 0
    torch.testing.assert_close(terms[0], terms[1])
    assert terms[2] == 0
