"""What every recipe has from the interface: refusals at build time, the time of the training, and what follows an update."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError
from core.maskers.attention import AttentionGuided
from core.maskers.cells import Cells
from core.maskers.hard_patches import HardPatches
from core.maskers.random import Random
from core.recipes.base import hinted
from core.testing.samples import CUBE, VOLUME, recipe_spec


def test_a_length_below_a_token_is_refused_when_built_at_the_inputs_own_spacing():
    short, long = (replace(recipe_spec("mae", VOLUME), masker=Cells(cell_length=length)) for length in (7.9, 8.0))
    with pytest.raises(ConfigError, match=r"got 7.9 on tokens of 10 x 8 x 8"):
        short.build()
    long.build()
    with pytest.raises(ConfigError, match=r"got 8 on tokens of 8000 x 8000"):
        replace(recipe_spec("mae", CUBE), masker=Cells(cell_length=8.0)).build()


def test_a_hint_is_refused_unless_it_is_given():
    assert hinted(Random(), "x") == Random()
    assert hinted(HardPatches(), "x", "loss") == HardPatches()
    with pytest.raises(ConfigError, match="recipe 'x' has no network that gives the hint 'attention'"):
        hinted(AttentionGuided(), "x", "loss")


def test_a_masker_is_told_how_far_the_training_is_and_in_evaluation_its_beginning():
    recipe = recipe_spec("mae", VOLUME).build()
    recipe.progress.fill_(0.25)
    hint = torch.rand(2, 3)
    assert float(recipe.train().guide(hint).progress) == float(recipe.reached()) == 0.25
    assert recipe.guide(hint).hint is hint
    assert float(recipe.eval().guide().progress) == float(recipe.reached()) == 0.0


def test_nothing_follows_and_the_encoder_is_kept_unless_a_recipe_says_otherwise():
    recipe = recipe_spec("mae", VOLUME).build()
    assert recipe.updated() is False
    assert recipe.kept() is recipe.encoder
