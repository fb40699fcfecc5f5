"""dBOT: the loss by hand, and a restart of student and predictor."""

from __future__ import annotations

import torch
from torch.nn import functional

from core.testing.samples import SCENE, ragged_batch, recipe_spec


def built(seed=0):
    torch.manual_seed(seed)
    return recipe_spec("dbot", SCENE).build()


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_loss_by_hand():
    """The teacher's last block before its last norm, each token normalised; smooth L1 with beta 2 over hidden tokens."""
    recipe = built()
    with torch.no_grad():
        recipe.teacher.encoder.norm.weight.mul_(100.0)  # the last norm must not matter
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    prediction = recipe.predictor(recipe.encoder(ready, plan), plan, ready)[plan.hide]
    inner = recipe.teacher.encoder(ready, levels=(2,)).levels[2].value[plan.hide]
    expected = functional.smooth_l1_loss(prediction, functional.layer_norm(inner, (24,), eps=1e-6), beta=2.0)
    torch.testing.assert_close(recipe(batch, batch.rng).loss, expected)


def test_restart_renews_student_and_predictor_and_the_optimiser_is_told():
    recipe = built()
    began = weights(recipe)
    with torch.no_grad():
        for parameter in recipe.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    learnt = weights(recipe.encoder)
    recipe.progress.fill_(0.25)
    assert recipe.updated() is False
    assert torch.equal(recipe.teacher.encoder.class_token, began["encoder.class_token"])
    recipe.progress.fill_(0.5)
    assert recipe.updated() is True
    assert all(torch.equal(recipe.teacher.encoder.state_dict()[name], value) for name, value in learnt.items())
    for name in ("encoder.class_token", "predictor.mask_token", "predictor.embed.weight"):
        fresh = recipe.state_dict()[name]
        assert not torch.equal(fresh, began[name])
        assert fresh.abs().max() < 0.9  # what was learnt is gone
    assert recipe.updated() is False


def test_a_restored_recipe_restarts_alike():
    one, two = built(0), built(1)
    two.load_state_dict(one.state_dict())
    for recipe in (one, two):
        recipe.progress.fill_(0.7)
        assert recipe.updated() is True
    assert all(torch.equal(two.state_dict()[name], value) for name, value in one.state_dict().items())


def test_a_restart_after_the_last_step_keeps_what_was_learnt():
    recipe = built()
    with torch.no_grad():
        recipe.encoder.norm.bias.add_(1.0)
    recipe.progress.fill_(0.9)
    assert recipe.updated() is True
    assert torch.equal(recipe.kept().norm.bias, torch.ones(24))
    assert recipe.updated() is False  # one more step: the new student has begun
    assert recipe.kept() is recipe.encoder
