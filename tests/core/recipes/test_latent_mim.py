"""Latent MIM: the loss by hand, targets of hidden patches alone, moving averages, and gaps between patches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.errors import ConfigError
from core.plan import Plan
from core.predictors.cross_attention import CrossAttentionSpec
from core.recipes.latent_mim import gapped, inner_size, projector, standardised
from core.shapes import patchify, unpatchify
from core.teachers.ema import Ema
from core.testing.samples import INPUTS, SCENE, VOLUME, ragged_batch, recipe_spec


def built(**changes):
    torch.manual_seed(0)
    predictor = CrossAttentionSpec(width=16, depth=1, heads=2)
    return replace(recipe_spec("latent_mim", SCENE), predictor=predictor, **changes).build()


def test_loss_by_hand():
    recipe = built()
    with torch.no_grad():
        for parameter in recipe.teacher_projector.parameters():
            parameter.mul_(1.1)
    batch = ragged_batch(SCENE).take([0])
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    tokens = recipe.encoder(ready, plan)
    shown = replace(tokens, value=recipe.projector(tokens.value), prefix=recipe.projector(tokens.prefix))
    prediction = recipe.predictor(shown, plan, ready)[plan.hide]
    target = recipe.teacher_projector(recipe.teacher.encoder(ready, Plan(see=plan.hide, hide=plan.see)).value)[0]
    unit = (prediction - prediction.mean(0)) / prediction.std(0)
    cosines = functional.normalize(unit, dim=1) @ functional.normalize(target, dim=1).T
    expected = 0.4 * functional.cross_entropy(cosines / 0.2, torch.arange(len(target)))
    torch.testing.assert_close(recipe(batch, batch.rng).loss, expected, rtol=1e-5, atol=1e-6)


def test_targets_are_of_hidden_patches_alone():
    recipe = built()
    asked = []
    recipe.teacher.encoder.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    recipe(batch, batch.rng)
    assert torch.equal(asked[0].see, plan.hide)


def test_encoder_and_projector_are_averaged_alike():
    recipe = built(teacher=Ema(start=0.75, end=0.75))
    before = recipe.teacher_projector[0].weight.clone(), recipe.teacher.encoder.class_token.clone()
    with torch.no_grad():
        recipe.projector[0].weight.add_(1.0)
        recipe.encoder.class_token.add_(1.0)
    assert recipe.updated() is False
    torch.testing.assert_close(recipe.teacher_projector[0].weight, before[0] + 0.25)
    torch.testing.assert_close(recipe.teacher.encoder.class_token, before[1] + 0.25)
    assert not any(parameter.requires_grad for parameter in recipe.teacher_projector.parameters())


def test_momentum_rises_with_progress():
    recipe = built()
    before = recipe.teacher.encoder.class_token.clone()
    with torch.no_grad():
        recipe.encoder.class_token.add_(1.0)
    recipe.progress.fill_(0.5)
    recipe.updated()
    torch.testing.assert_close(recipe.teacher.encoder.class_token, before + 0.005)


def test_projector_is_three_layers_of_the_papers_kind():
    kinds = [type(layer).__name__ for layer in projector(6, 8, 3)]
    assert kinds == ["Linear", "LayerNorm", "GELU", "Linear", "LayerNorm", "GELU", "Linear", "LayerNorm"]
    assert [tuple(p.shape) for p in projector(6, 8, 3).parameters() if p.ndim == 2] == [(8, 6), (8, 8), (6, 8)]
    assert built().projector[0].weight.shape == (128, 24)
    assert len(projector(6, 8, 0)) == 0


def test_standardised_over_counted_tokens_of_each_sample():
    value = torch.tensor([[[1.0], [3.0], [50.0]], [[7.0], [8.0], [9.0]], [[5.0], [6.0], [7.0]]], requires_grad=True)
    counted = torch.tensor([[True, True, False], [False, True, False], [False] * 3])
    found = standardised(value, counted)
    half = 1.0 / 2.0**0.5
    torch.testing.assert_close(found[0].flatten(), torch.tensor([-half, half, 0.0]))
    assert bool((found[1:] == 0).all())
    found.square().sum().backward()
    assert bool(torch.isfinite(value.grad).all())


@pytest.mark.parametrize("entry", INPUTS.values(), ids=INPUTS)
def test_gap_keeps_one_patch_of_each_cell(entry):
    batch = ragged_batch(entry)
    ready = batch.normalised()
    found = gapped(ready, entry.patch, 0.5, batch.rng)
    gaps = tuple(round(0.5 * p) for p in entry.patch)
    cell = tuple(p + g for p, g in zip(entry.patch, gaps, strict=True))
    tokens = tuple(s // c for s, c in zip(entry.size, cell, strict=True))
    assert found.size == inner_size(entry.size, entry.patch, 0.5)
    assert found.size == tuple(t * p for t, p in zip(tokens, entry.patch, strict=True))
    assert found.valid.shape == found.image.shape
    assert torch.equal(found.image == 0, ~found.valid)  # both were cut at the same places
    places = torch.arange(float(torch.tensor(entry.size).prod())).reshape(1, 1, *entry.size).expand_as(ready.image)
    numbered = gapped(replace(ready, image=places.contiguous()), entry.patch, 0.5, batch.rng)
    assert len(numbered.image[0, 0].unique()) == numbered.image[0, 0].numel()  # no voxel twice
    patches = patchify(numbered.image[:, :1], entry.patch)
    first = patches[0, :, 0]
    assert torch.equal(patches[0] - first[:, None], (patches[0, 0] - first[0]).expand_as(patches[0]))  # whole patches
    axes = torch.stack(torch.unravel_index(first.long(), entry.size), 1) % torch.tensor(cell)
    assert bool((axes <= torch.tensor(gaps)).all())
    assert torch.equal(axes.amax(0) > 0, torch.tensor(gaps) > 0)


def test_gap_moves_with_the_sample_and_never_with_its_mates():
    batch = ragged_batch(SCENE).normalised()
    whole = gapped(batch, SCENE.patch, 0.25, batch.rng)
    alone = gapped(batch.take([1]), SCENE.patch, 0.25, batch.take([1]).rng)
    assert torch.equal(alone.image[0], whole.image[1])
    other = replace(batch, key=batch.key + 1)
    assert not torch.equal(gapped(other, SCENE.patch, 0.25, other.rng).image, whole.image)


def test_without_a_gap_the_batch_is_left_as_it_is():
    batch = ragged_batch(SCENE)
    assert gapped(batch, SCENE.patch, 0.05, batch.rng) is batch


def test_gap_takes_the_prior_along():
    batch = ragged_batch(SCENE).normalised()
    found = gapped(replace(batch, prior=batch.image[:, :1]), SCENE.patch, 0.25, batch.rng)
    assert torch.equal(found.prior, found.image[:, :1])


def test_a_recipe_with_a_gap_trains_and_hides_its_share_of_fewer_patches():
    recipe = built(gap=0.25)
    plans = []
    masker = recipe.masker

    class Recorder:
        hint = None

        def __call__(self, *given):
            plans.append(masker(*given))
            return plans[-1]

    recipe.masker = Recorder()
    batch = ragged_batch(SCENE)
    recipe(batch, batch.rng).loss.backward()
    assert plans[0].see.shape == (4, 3 * 4)  # 32 x 48 in cells of 10
    assert int(plans[0].hide[0].sum()) == 11
    assert bool(recipe.encoder.stems["scene"].weight.grad.abs().max() > 0)


def test_a_gap_that_leaves_no_room_is_refused_when_built():
    with pytest.raises(ConfigError, match=r"room for a patch \(8, 8\) and its gap of 4.0 edges, got \(32, 48\)"):
        built(gap=4.0)
    with pytest.raises(ConfigError, match="expected at least two tokens"):
        replace(recipe_spec("latent_mim", replace(VOLUME, size=(4, 16, 16))), gap=1.0).build()


def test_content_between_patches_is_never_read():
    recipe = built(gap=0.5)
    batch = ragged_batch(SCENE)
    ready, _ = recipe.encoder.prepare(batch)
    image = ready.image.clone().requires_grad_()
    gapped(replace(ready, image=image), SCENE.patch, 0.5, batch.rng).image.sum().backward()
    hidden = image.grad == 0
    assert 0.4 < float(hidden.float().mean()) < 0.8
    noisy = replace(ready, image=torch.where(hidden, 7.0, ready.image))
    assert recipe(noisy, batch.rng).loss.item() == recipe(ready, batch.rng).loss.item()
    whole = unpatchify(patchify(ready.image, SCENE.patch), SCENE.grid())
    assert torch.equal(whole, ready.image)
