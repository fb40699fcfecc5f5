"""MaskAlign: what is aligned with what, where it is scored, and whose attention decides what stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.errors import ConfigError
from core.maskers.random import Random
from core.plan import Guide, visible_index
from core.targets import _features
from core.testing.samples import SCENE, encoder_spec, ragged_batch, recipe_spec, teacher_of


def built(student=2, teacher=2, **changes):
    torch.manual_seed(0)
    spec = recipe_spec("maskalign", SCENE)
    large = replace(encoder_spec(SCENE), depth=teacher)
    encoder = replace(spec.encoder, depth=student)
    return replace(spec, encoder=encoder, teacher=teacher_of(large), **changes).build()


def test_mixture_begins_as_the_stage_that_lies_as_deep():
    recipe = built(student=6, teacher=6)
    assert recipe.levels == (2, 3, 4, 5, 6)
    torch.testing.assert_close(recipe.mix.detach(), torch.eye(6)[1:] + 0.01)
    recipe = built(student=3, teacher=6, stages=3)
    assert recipe.levels == (4, 5, 6)
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # 2, 2.5 rounded to even, 3
    torch.testing.assert_close(recipe.mix.detach(), expected + 0.01)


def test_places_are_found_once_for_all_stages(monkeypatch):
    recipe, batch, found = built(teacher=4, stages=3), ragged_batch(SCENE), []
    monkeypatch.setattr(_features, "visible_index", lambda see: found.append(see) or visible_index(see))
    recipe(batch, batch.rng)
    assert len(found) == 1


def test_loss_by_hand():
    recipe = built()
    with torch.no_grad():
        recipe.mix.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    found = recipe.teacher.encoder(ready, levels=(1, 2), attention=True)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng, Guide(hint=found.attention.mean(1)))
    tokens = recipe.encoder(ready, plan, levels=(1,))
    stages = [tokens.levels[1].value, tokens.value]
    losses = []
    for number, level in enumerate((1, 2)):
        mixed = sum(share * stage for share, stage in zip(recipe.mix[number], stages, strict=True))
        aligned = recipe.align[number](mixed)[tokens.ok]
        value = functional.layer_norm(found.levels[level].value, (24,), eps=1e-6)[plan.see]
        losses.append(2.0 * functional.smooth_l1_loss(aligned, value))
    torch.testing.assert_close(recipe(batch, batch.rng).loss, sum(losses) / 2.0)


def test_what_stays_visible_follows_the_teachers_attention():
    """Over many draws, the tokens that the teacher attends to most are seen more often."""
    recipe = built().eval()
    batch = ragged_batch(SCENE).take([0] * 200)
    batch = replace(batch, key=torch.arange(200))
    plans = []
    masker = recipe.masker
    recipe.masker = Recorder(masker, plans)
    with torch.no_grad():
        recipe.teacher.encoder.blocks[-1].attn.qkv.weight[:48].mul_(8.0)  # sharp attention
        recipe(batch, batch.rng)
    guide, plan = plans[0]
    often = plan.see.float().mean(0)
    order = guide.hint[0].argsort()
    assert often[order[-6:]].mean() > 2.0 * often[order[:6]].mean()


class Recorder:
    def __init__(self, masker, plans):
        self.masker, self.plans, self.hint = masker, plans, masker.hint

    def __call__(self, batch, grid, rng, guide):
        plan = self.masker(batch, grid, rng, guide)
        self.plans.append((guide, plan))
        return plan


def test_another_masker_needs_no_attention():
    recipe = built(masker=Random(ratio=0.7))
    asked = []
    recipe.teacher.encoder.register_forward_hook(
        lambda _, __, wanted, ___: asked.append(wanted["attention"]), with_kwargs=True
    )
    batch = ragged_batch(SCENE)
    recipe(batch, batch.rng)
    assert asked == [False]


def test_a_teacher_without_attention_is_refused(monkeypatch):
    recipe = built()
    monkeypatch.setattr(type(recipe.encoder), "abilities", frozenset({"drop", "levels"}))
    with pytest.raises(ConfigError, match="'maskalign' needs an encoder with the ability 'attention'"):
        built()
