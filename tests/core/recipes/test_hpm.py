"""HPM: who teaches, what it teaches, how the average moves, and what the mask makes of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError
from core.losses import masked_mean
from core.maskers.attention import AttentionGuided
from core.maskers.hard_patches import HardPatches
from core.maskers.random import Random
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.per_level import PerLevelSpec
from core.predictors.transformer import TransformerSpec
from core.predictors.u_decoder import UDecoderSpec
from core.recipes.hpm import Hpm, token_loss
from core.teachers.ema import Ema
from core.testing.recipe_contract import loss_and_gradients
from core.testing.samples import CUBE, SCENE, VOLUME, grouped, ragged_batch, recipe_spec

DECODER = TransformerSpec(width=16, depth=1, heads=2)


@pytest.fixture
def spec():
    return recipe_spec("hpm", SCENE)


def _plans(recipe, batch):
    """Run a step and give what the masker was told and what it planned."""
    seen, masker = [], recipe.masker

    def noted(batch, grid, rng, guide):
        plan = masker(batch, grid, rng, guide)
        seen.append((guide, plan))
        return plan

    recipe.masker = noted
    try:
        output = recipe(batch, batch.rng)
    finally:
        recipe.masker = masker
    return output, seen[0]


def _pairs(recipe):
    """Give each parameter of the teacher with that of the student, by name."""
    student = dict(recipe.encoder.named_parameters()) | dict(
        recipe.predictors["ranking"].named_parameters(prefix="rank")
    )
    teacher = dict(recipe.teacher.encoder.named_parameters())
    teacher |= dict(recipe.teacher_ranking.named_parameters(prefix="rank"))
    assert teacher.keys() == student.keys()
    return {name: (teacher[name], student[name]) for name in teacher}


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.5), (0.1, 0.4), (0.2, 0.3), (0.9, 0.3)])
def test_the_teacher_starts_equal_and_follows_with_a_momentum_that_rises(spec, progress, share):
    ema = Ema(start=0.5, end=0.7, schedule="linear", until=0.2)
    recipe = replace(spec, teacher=ema).build()
    recipe.progress.fill_(progress)
    pairs = _pairs(recipe)
    assert all(torch.equal(own, theirs) for own, theirs in pairs.values())
    before = {name: own.clone() for name, (own, _) in pairs.items()}
    with torch.no_grad():
        for _, theirs in pairs.values():
            theirs.add_(1.0)
    assert all(torch.equal(own, before[name]) for name, (own, _) in pairs.items())
    assert recipe.updated() is False
    for name, (own, _) in pairs.items():
        torch.testing.assert_close(own, before[name] + share, msg=name)


def test_the_default_momentum_is_the_papers():
    share = Hpm.__dataclass_fields__["teacher"].default.share
    assert 1.0 - float(share(torch.tensor(0.0))) == pytest.approx(0.999, abs=1e-7)
    assert float(share(torch.tensor(0.0625))) == pytest.approx(1.0 - 0.99945, rel=1e-3)
    assert float(share(torch.tensor(0.125))) == pytest.approx(1e-4, rel=1e-3)


def test_the_teacher_is_never_trained_nor_in_training_mode_and_is_stored(spec):
    recipe = spec.build().train()
    for teacher in (recipe.teacher, recipe.teacher_ranking):
        assert not any(module.training for module in teacher.modules())
    assert recipe.encoder.training
    _, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    assert not any(name.startswith("teacher") for name in gradients)
    assert {"teacher.encoder.norm.weight", "teacher_ranking.norm.weight"} <= set(recipe.state_dict())
    assert recipe.kept() is recipe.encoder


def test_the_hint_is_the_teachers_view_of_the_whole_image(spec):
    recipe, batch = spec.build(), ragged_batch(SCENE)
    with torch.no_grad():
        for parameter in recipe.encoder.parameters():
            parameter.zero_()  # the student's view would be another
    _, (guide, _) = _plans(recipe, batch)
    prepared, _ = recipe.encoder.prepare(batch)
    assert torch.equal(guide.hint, recipe.hardness(prepared, SCENE.grid()))
    assert not guide.hint.requires_grad
    changed = batch.image.clone()
    changed[0, :, :8, :8] += 5.0  # one token, hidden or not
    _, (other, _) = _plans(recipe, replace(batch, image=changed))
    assert bool((other.hint[0] != guide.hint[0]).all())
    assert torch.equal(other.hint[1], guide.hint[1])


def test_late_in_training_the_hardest_are_hidden_and_in_evaluation_masks_are_fixed(spec):
    recipe, batch = replace(spec, masker=HardPatches(end=1.0)).build(), ragged_batch(SCENE)
    recipe.progress.fill_(1.0)
    _, (guide, plan) = _plans(recipe, batch)
    top = guide.hint.argsort(1, descending=True).argsort(1) < 18
    assert torch.equal(plan.hide[0], top[0])
    recipe.eval()
    _, (guide, plan) = _plans(recipe, batch)
    assert float(guide.progress) == 0.0
    assert not torch.equal(plan.hide[0], top[0])


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE, grouped(CUBE)], ids=["scene", "volume", "cube", "grouped"])
def test_ranks_what_the_reconstruction_found_hard(entry):
    """A loss predictor that knew the losses would pay less than one that knew nothing, and one that errs pays more."""
    recipe = recipe_spec("hpm", entry).build()
    batch = ragged_batch(entry)
    found = {}
    recipe.predictors["image"].register_forward_hook(lambda _, __, out: found.update(image=out))

    class Told(torch.nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, tokens, plan, prepared):
            from core.groups import by_group

            value, weight = by_group(recipe.target, prepared, entry.grid())
            loss, _ = token_loss((found["image"].detach() - value).square(), plan.weigh(weight, "image"))
            return 1e4 * self.sign * loss[..., None]

    losses = {}
    for sign in (1.0, 0.0, -1.0):
        recipe.predictors["ranking"] = Told(sign)
        losses[sign] = float(recipe(batch, batch.rng).terms["ranking"])
    assert losses[1.0] < 0.05
    assert losses[0.0] == pytest.approx(math.log(2.0))
    assert losses[-1.0] > 100.0


def test_absolute_ranking_is_another_loss_and_weights_count(spec):
    batch = ragged_batch(SCENE)
    torch.manual_seed(1)
    one = replace(spec, ranking_weight=2.0).build()
    output = one(batch, batch.rng)
    torch.testing.assert_close(output.loss.detach(), output.terms["image"] + 2.0 * output.terms["ranking"])
    torch.manual_seed(1)
    other = replace(spec, ranking="absolute").build()
    terms = other(batch, batch.rng).terms
    assert torch.equal(terms["image"], output.terms["image"])
    assert float(terms["ranking"]) > float(output.terms["ranking"])
    assert all(parameter.requires_grad for parameter in other.predictors["ranking"].parameters())


def test_what_only_shifts_all_ranks_is_not_trained_and_what_orders_groups_is():
    for entry, frozen in ((SCENE, {"norm.bias", "heads.scene.0.bias"}), (grouped(SCENE), set())):
        recipe = recipe_spec("hpm", entry).build()
        ranking = dict(recipe.predictors["ranking"].named_parameters())
        assert {name for name, parameter in ranking.items() if not parameter.requires_grad} == frozen
        _, gradients = loss_and_gradients(recipe, ragged_batch(entry))
        for name in set(ranking) - frozen:
            assert float(gradients[f"predictors.ranking.{name}"].abs().max()) > 1e-5, name


@pytest.mark.parametrize(
    ("predictor", "frozen"),
    [
        (LayerFusionSpec(inner=DECODER), {"inner.norm.bias", "inner.heads.scene.0.bias"}),
        (PerLevelSpec(inner=DECODER, level=1), {"inner.norm.bias", "inner.heads.scene.0.bias"}),
        (
            PerLevelSpec(inner=LayerFusionSpec(inner=DECODER)),
            {"inner.inner.norm.bias", "inner.inner.heads.scene.0.bias"},
        ),
        (CrossAttentionSpec(width=16, depth=1, heads=2), {"norm.bias", "heads.scene.0.bias"}),
        (UDecoderSpec(width=16), {"heads.scene.bias"}),
    ],
    ids=["fused", "level", "fused level", "cross_attention", "u_decoder"],
)
def test_what_shifts_all_ranks_lies_in_the_last_layers_alone(spec, predictor, frozen):
    recipe = replace(spec, predictor=predictor).build()
    ranking = dict(recipe.predictors["ranking"].named_parameters())
    assert {name for name, parameter in ranking.items() if not parameter.requires_grad} == frozen
    _, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    for name in set(ranking) - frozen:
        assert float(gradients[f"predictors.ranking.{name}"].abs().max()) > 1e-6, name
    for name in frozen:
        ranking[name].requires_grad_(True)
    _, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    for name in frozen:
        assert float(gradients[f"predictors.ranking.{name}"].abs().max()) < 1e-6, name


def test_one_group_of_all_bands_is_ranked_like_none():
    recipe = recipe_spec("hpm", replace(SCENE, groups=(SCENE.bands,))).build()
    ranking = recipe.predictors["ranking"].named_parameters()
    assert {n for n, p in ranking if not p.requires_grad} == {"norm.bias", "heads.scene.0.bias"}


def test_a_masker_that_wants_no_hint_saves_the_teachers_pass(spec, monkeypatch):
    recipe, batch = replace(spec, masker=Random()).build(), ragged_batch(SCENE)
    monkeypatch.setattr(recipe.teacher, "observe", None)  # calling it would fail
    _, (guide, _) = _plans(recipe, batch)
    assert guide.hint is None
    recipe.spec = spec
    with pytest.raises(TypeError):
        recipe(batch, batch.rng)


def test_token_loss_averages_over_measured_values():
    error = torch.tensor([[[1.0, 3.0, torch.nan], [4.0, 4.0, 4.0]]])
    loss, scored = token_loss(error, torch.tensor([[[True, True, False], [False, False, False]]]))
    assert loss.tolist() == [[2.0, 0.0]]
    assert scored.tolist() == [[True, False]]
    assert masked_mean(loss, scored).item() == 2.0


def test_any_masker_but_one_of_another_hint(spec):
    assert isinstance(replace(spec, masker=Random()).build().masker, Random)
    with pytest.raises(ConfigError, match="no network that gives the hint 'attention'"):
        replace(spec, masker=AttentionGuided()).build()


def test_a_ranking_loss_without_weight_is_refused(spec):
    with pytest.raises(ConfigError, match="recipe 'mae' has none"):
        replace(spec, ranking_weight=0.0)
