"""DMAE: inner stages by hand, and a teacher that is shown what the student is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError
from core.shapes import patchify, unpatchify
from core.testing.samples import SCENE, encoder_spec, ragged_batch, recipe_spec, teacher_of


def built(depth=0.5, student=2, teacher=4):
    torch.manual_seed(0)
    large = replace(encoder_spec(SCENE), width=32, depth=teacher, heads=4)
    spec = recipe_spec("dmae", SCENE)
    return replace(spec, encoder=replace(spec.encoder, depth=student), teacher=teacher_of(large), depth=depth).build()


@pytest.mark.parametrize(("student", "teacher", "ours", "theirs"), [(12, 24, 9, 18), (2, 4, 2, 3)])
def test_the_stage_is_three_quarters_deep(student, teacher, ours, theirs):
    recipe = built(0.75, student, teacher)
    assert (recipe.ours, recipe.theirs) == (ours, theirs)


def test_teacher_term_by_hand():
    recipe = built()
    assert (recipe.ours, recipe.theirs) == (1, 2)
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    ours = recipe.distil(recipe.encoder(ready, plan, levels=(1,)).levels[1].value)
    theirs = recipe.teacher.encoder(ready, plan, levels=(2,)).levels[2].value
    real = recipe.encoder(ready, plan).ok
    expected = (ours - theirs)[real].abs().mean()
    output = recipe(batch, batch.rng)
    torch.testing.assert_close(output.terms["teacher"], expected.detach())
    torch.testing.assert_close(output.loss.detach(), sum(output.terms.values()))


def test_hidden_patches_reach_neither_network():
    recipe = built()
    batch = ragged_batch(SCENE).take([0])
    ready, _ = recipe.encoder.prepare(batch)
    hide = recipe.masker(ready, SCENE.grid(), batch.rng).hide[..., None]
    patches = patchify(batch.image, SCENE.patch)
    other = replace(batch, image=unpatchify(torch.where(hide, patches.flip(2) + 3.0, patches), SCENE.grid()))
    one, two = recipe(batch, batch.rng).terms, recipe(other, other.rng).terms
    assert torch.equal(one["teacher"], two["teacher"])
    assert not torch.equal(one["image"], two["image"])


def test_a_stage_that_merges_tokens_is_refused():
    recipe = built()
    recipe.encoder.level_grid = lambda level, grid: replace(grid, tokens=(1, 1))
    with pytest.raises(ConfigError, match="expected stage 1 of ViT to keep its tokens apart"):
        recipe._stage(recipe.encoder)
