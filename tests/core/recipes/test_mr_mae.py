"""MR-MAE: pixels where hidden, features where seen, both by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from core.testing.samples import SCENE, ragged_batch, recipe_spec


def test_both_terms_by_hand():
    torch.manual_seed(0)
    recipe = replace(recipe_spec("mr_mae", SCENE), mimic_weight=0.5).build()
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    tokens = recipe.encoder(ready, plan)
    value, weight = recipe.spec.target(ready, SCENE.grid())
    error = (recipe.predictor(tokens, plan, ready) - value).square()
    image = error[plan.hide[..., None] & weight].mean()
    teacher = recipe.teacher.encoder(ready, levels=(2,)).levels[2].value  # of the whole image
    features = functional.layer_norm(teacher, (24,), eps=1e-6)[plan.see]
    mimicked = torch.cat([recipe.mimic(tokens.value[row, : int(plan.see[row].sum())]) for row in range(4)])
    mimic = (mimicked - features).square().mean()
    output = recipe(batch, batch.rng)
    torch.testing.assert_close(output.terms["image"], image.detach())
    torch.testing.assert_close(output.terms["mimic"], mimic.detach())
    torch.testing.assert_close(output.loss, image + 0.5 * mimic)
