"""Shape-aware masking as a recipe: what an MAE reconstructs better when it has learned on such masks."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.mask_bank import build_bank
from core.maskers.random import Random
from core.maskers.shape_aware import ShapeAware
from core.testing.recipe_contract import loss_and_gradients, watched
from core.testing.samples import SCENE, ragged_batch, recipe_spec
from tests.core.maskers.phantoms import phantoms


def test_a_step_with_a_bank_hides_what_the_masker_plans(tmp_path):
    build_bank([phantoms(SCENE, 1)], tmp_path, SCENE)
    recipe = replace(recipe_spec("shape_aware", SCENE), masker=ShapeAware(bank=str(tmp_path))).build()
    batch = ragged_batch(SCENE)
    (prepared, grid, plan), *others = watched(recipe, batch).plans
    assert not others
    assert torch.equal(plan.hide, ShapeAware(bank=str(tmp_path))(prepared, grid, batch.rng).hide)
    assert loss_and_gradients(recipe, batch)[0] > 0.0


def test_with_the_random_masker_it_is_mae():
    losses = []
    for name in ("shape_aware", "mae"):
        torch.manual_seed(0)
        recipe = replace(recipe_spec(name, SCENE), masker=Random()).build()
        losses.append(loss_and_gradients(recipe, ragged_batch(SCENE))[0])
    assert losses[0] == losses[1]
