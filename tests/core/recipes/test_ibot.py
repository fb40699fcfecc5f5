"""iBOT's wiring: who sees what, what is held against what, and what follows the update. The exam of all recipes is elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional

from core.batch import valid_tokens
from core.config import from_dict, to_dict
from core.contract import Contract
from core.encoders.base import Tokens
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.hard_patches import HardPatches
from core.plan import Plan
from core.projection import ProjectionSpec
from core.recipes.base import RecipeSpec
from core.recipes.ibot import Distillation, Ibot, _Taught
from core.testing.recipe_contract import loss_and_gradients, watched
from core.testing.samples import CUBE, SCENE, VOLUME, ragged_batch
from core.views import Augment, make_view

SAME = Augment(scale=(1.0, 1.0), aspect=1.0, gain=0.0, shift=0.0)
HEAD = ProjectionSpec(hidden=16, bottleneck=8, num_prototypes=12)


def _spec(**fields):
    vit = ViTSpec(contract=Contract(inputs=(SCENE, VOLUME, CUBE)), width=24, depth=2, heads=2)
    return Ibot(**({"encoder": vit, "head": HEAD} | fields))


@pytest.fixture(params=[SCENE, VOLUME, CUBE], ids=lambda entry: entry.name)
def entry(request):
    return request.param


@pytest.fixture
def recipe():
    recipe = _spec().build()
    for own in recipe.teacher.parameters():  # a teacher of its own, so that it matters whose numbers are used
        own.add_(torch.randn_like(own) * 0.1)
    recipe.token_centre.value.normal_(std=0.1)
    recipe.patch_centre.value.normal_(std=0.1)
    return recipe


def _parts(recipe, batch):
    """The two views with the student's plans and tokens, and the teacher's tokens of the intact views."""
    step = watched(recipe, batch)
    views = [view for view, _, _ in step.plans]
    return views, [plan for *_, plan in step.plans], step.tokens, [recipe.teacher.observe(view) for view in views]


def test_loss_is_that_of_the_equations(recipe, entry):
    """Sample by sample: class tokens across views, hidden patches within a view, each image's patches averaged first."""
    batch = ragged_batch(entry)
    recipe.eval()  # the fixed yardstick: the teacher's first temperature
    views, plans, student, teacher = _parts(recipe, batch)
    grid = entry.grid()

    def loss(learnt, taught, centre):
        share = functional.softmax((recipe.teacher_head(taught) - centre.value) / 0.04, dim=0)
        return -(share * functional.log_softmax(recipe.head(learnt) / 0.1, dim=0)).sum()

    across, within = [], []
    for sample in range(len(batch)):
        seen = [bool(valid_tokens(view, grid)[sample].any()) for view in views]
        if all(seen):
            for own, other in ((0, 1), (1, 0)):
                taught = teacher[other].prefix[sample, 0]
                across.append(loss(student[own].prefix[sample, 0], taught, recipe.token_centre))
        for tokens, taught, plan in zip(student, teacher, plans, strict=True):
            hidden = plan.hide[sample].nonzero()[:, 0].tolist()
            parts = [loss(tokens.value[sample, i], taught.value[sample, i], recipe.patch_centre) for i in hidden]
            if parts:
                within.append(torch.stack(parts).mean())
    output = recipe(batch, batch.rng)
    torch.testing.assert_close(output.terms["class"], torch.stack(across).mean().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.terms["patch"], torch.stack(within).mean().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.loss.detach(), output.terms["class"] + output.terms["patch"])


def test_each_image_counts_the_same_however_many_of_its_patches_are_hidden(recipe):
    """Of images whose errors differ widely: 1, 5 and 9 hidden patches, and one view without any, which does not count."""
    hide = torch.zeros(2, 2, 24, dtype=torch.bool)
    for number, (view, sample) in zip((1, 5, 9), ((0, 0), (0, 1), (1, 0)), strict=True):
        hide[view, sample, 2 : 2 + number] = True
    draw = torch.Generator().manual_seed(0)
    value, patches = (torch.randn(2, 2, 24, width, generator=draw) for width in (24, 8))
    patches = functional.normalize(patches, dim=-1)
    grid, prefix = SCENE.grid(), torch.zeros(2, 1, 24)
    learnt = [Tokens(value[view], None, prefix, grid, True) for view in (0, 1)]
    taught = [_Taught(prefix[:, 0], patches[view], None) for view in (0, 1)]
    progress = torch.zeros(())
    found = recipe._within(learnt, taught, [Plan(see=~each, hide=each) for each in hide], progress)
    each = [
        recipe._error(value[at][hide[at]], patches[at][hide[at]], recipe.patch_centre, progress).mean()
        for at in ((0, 0), (0, 1), (1, 0))
    ]
    assert float(torch.stack(each).std().detach()) > 0.05
    torch.testing.assert_close(found, torch.stack(each).mean(), rtol=1e-5, atol=1e-6)


def test_weights_count(entry):
    batch = ragged_batch(entry)
    torch.manual_seed(3)
    recipe = _spec(distillation=Distillation(class_weight=0.25, patch_weight=2.0)).build()
    output = recipe(batch, batch.rng)
    expected = 0.25 * output.terms["class"] + 2.0 * output.terms["patch"]
    torch.testing.assert_close(output.loss.detach(), expected)


def test_the_two_views_and_their_masks_differ(recipe, entry):
    views, plans, *_ = _parts(recipe, ragged_batch(entry))
    assert not torch.equal(views[0].image, views[1].image)
    assert not torch.equal(plans[0].hide, plans[1].hide)
    same = watched(_spec(views=SAME).build(), ragged_batch(entry)).plans
    assert torch.equal(same[0][0].image, same[1][0].image)
    assert not torch.equal(same[0][2].hide[0], same[1][2].hide[0])


def test_the_teacher_sees_what_is_hidden_from_the_student(entry):
    recipe = _spec(views=SAME).build()
    batch = ragged_batch(entry).take([0])
    step = watched(recipe, batch)
    both = step.plans[0][2].hide & step.plans[1][2].hide
    assert bool(both.any())
    image = torch.where(_voxels(both, entry), batch.image + 3.0, batch.image)
    changed = watched(recipe, replace(batch, image=image))
    for one, other in zip(step.tokens, changed.tokens, strict=True):
        assert torch.equal(one.value, other.value)
    other = replace(batch, image=image)
    assert recipe(batch, batch.rng).loss.item() != recipe(other, other.rng).loss.item()


def _voxels(tokens, entry):
    mask = tokens.reshape(len(tokens), 1, *entry.grid().tokens)
    for axis, edge in enumerate(entry.patch):
        mask = mask.repeat_interleave(edge, dim=2 + axis)
    return mask


def test_no_gradient_reaches_the_teacher_and_it_stays_in_evaluation(recipe):
    recipe.train()
    _, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    assert not recipe.teacher.encoder.training
    assert not any(name.startswith("teacher") for name in gradients)
    assert not any(parameter.requires_grad for parameter in recipe.teacher.parameters())
    assert not any(parameter.requires_grad for parameter in recipe.teacher_head.parameters())


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.004), (0.5, 0.002), (1.0, 0.0)])
def test_encoder_and_head_of_the_teacher_follow_alike(recipe, progress, share):
    recipe.progress.fill_(progress)
    names = {"class_token": (recipe.teacher.encoder, recipe.encoder), "prototypes": (recipe.teacher_head, recipe.head)}
    before = {name: getattr(mine, name).clone() for name, (mine, _) in names.items()}
    for _, student in names.values():
        for parameter in student.parameters():
            parameter.data.add_(1.0)
    assert recipe.updated() is False
    for name, (mine, student) in names.items():
        expected = before[name] + share * (getattr(student, name) - before[name])
        torch.testing.assert_close(getattr(mine, name).data, expected.data, rtol=0, atol=1e-6)


def test_the_teacher_is_what_is_kept(recipe):
    assert recipe.kept() is recipe.teacher.encoder
    assert recipe.kept() is not recipe.encoder


def test_centres_move_to_the_mean_of_the_teachers_logits_over_valid_tokens(recipe, entry):
    batch = ragged_batch(entry)
    recipe.train()
    *_, teacher = _parts(recipe, batch)
    prepared, _ = recipe.encoder.prepare(batch)
    views = [make_view(prepared, entry, recipe.views, batch.rng.split(f"view {i}")) for i in (0, 1)]
    ok = [valid_tokens(view, entry.grid()) for view in views]
    patches = torch.cat([recipe.teacher_head(t.value)[valid] for t, valid in zip(teacher, ok, strict=True)])
    tokens = torch.cat(
        [recipe.teacher_head(t.prefix[:, 0])[valid.any(1)] for t, valid in zip(teacher, ok, strict=True)]
    )
    assert len(tokens) < 2 * len(batch)  # the sample without data is not counted
    expected = [
        0.9 * c.value + 0.1 * m.mean(0) for c, m in ((recipe.token_centre, tokens), (recipe.patch_centre, patches))
    ]
    recipe.updated()
    torch.testing.assert_close(recipe.token_centre.value, expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(recipe.patch_centre.value, expected[1], rtol=1e-4, atol=1e-6)


def test_validation_moves_nothing_and_is_the_same_whenever_it_is_asked_for(recipe):
    batch = ragged_batch(SCENE)
    recipe.eval()
    first = recipe(batch, batch.rng).loss.item()
    recipe.progress.fill_(0.9)
    assert recipe(batch, batch.rng).loss.item() == first
    before = recipe.token_centre.value.clone()
    recipe.token_centre.update()
    assert torch.equal(recipe.token_centre.value, before)
    recipe.train()
    assert recipe(batch, batch.rng).loss.item() != first


def test_prototypes_are_held_at_first(recipe):
    batch = ragged_batch(SCENE)
    recipe.progress.fill_(0.001)
    gradients = loss_and_gradients(recipe, batch)[1]
    assert not bool(gradients["head.prototypes"].any())
    assert bool(gradients["head.mlp.0.weight"].any())
    recipe.progress.fill_(0.00125)
    assert bool(loss_and_gradients(recipe, batch)[1]["head.prototypes"].any())


def test_prototypes_score_by_cosine_and_keep_length_one():
    head = ProjectionSpec(hidden=16, bottleneck=8, num_prototypes=12).build(24)
    tokens = torch.randn(5, 24)
    head.prototypes.data.mul_(torch.rand(12, 1) + 0.5)
    scores = head(tokens)
    assert float(scores.detach().abs().max()) <= 1.0 + 1e-6
    torch.testing.assert_close(
        scores[2, 3], functional.cosine_similarity(head.mlp(tokens[2]), head.prototypes[3], dim=0)
    )
    assert head.norms is None
    learnt = ProjectionSpec(hidden=16, bottleneck=8, num_prototypes=12, train_norm=True).build(24)
    learnt.norms.data.fill_(3.0)
    assert float(learnt(tokens).detach().abs().max()) > 1.0


def test_bfloat16_gives_nearly_the_same_loss(recipe, entry):
    batch = ragged_batch(entry)
    recipe.eval()
    whole = recipe(batch, batch.rng).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        half = recipe(batch, batch.rng).loss
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(whole, rel=0.05)


def test_it_learns_to_agree_with_its_teacher():
    recipe = _spec().build()
    recipe.progress.fill_(0.5)
    optimizer = torch.optim.AdamW([p for p in recipe.parameters() if p.requires_grad], lr=4e-3)
    batch = ragged_batch(SCENE)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = recipe(batch, batch.rng).loss
        loss.backward()
        optimizer.step()
        recipe.updated()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"encoder": ViTSpec(contract=Contract(inputs=(SCENE,)), width=8, depth=1, heads=1, class_token=False)},
            "class token",
        ),
        ({"masker": HardPatches()}, "hint 'loss'"),
        ({"views": Augment(flips={"scene": (True,)})}, "one truth per axis"),
    ],
)
def test_what_does_not_go_together_is_refused_when_built(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        _spec(**fields).build()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"student_temperature": 0.0}, "temperatures above 0"),
        ({"temperature_rise": 1.5}, "shares from 0 to 1"),
        ({"hold_prototypes": 1.0}, "learn at some time"),
        ({"patch_weight": 0.0}, "weights above 0"),
    ],
)
def test_impossible_settings_are_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Distillation(**fields)


def test_a_head_of_one_prototype_is_refused():
    with pytest.raises(ConfigError, match="at least 2 prototypes"):
        ProjectionSpec(num_prototypes=1)


def test_it_is_a_config():
    spec = _spec(views=Augment(scale=(0.3, 1.0)))
    assert from_dict(RecipeSpec, to_dict(spec)) == spec


@pytest.mark.slow
def test_two_ranks_form_one_loss_one_gradient_and_one_centre(tmp_path: Path):
    start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    for entry in (SCENE, VOLUME, CUBE):
        loss, gradients, centres = _step(ragged_batch(entry))
        ranks = [torch.load(tmp_path / f"{entry.name}.{rank}.pt") for rank in (0, 1)]
        assert sum(rank[0] for rank in ranks) / 2 == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            mean = (ranks[0][1][name] + ranks[1][1][name]) / 2
            torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)
        for index, centre in enumerate(centres):
            assert torch.equal(ranks[0][2][index], ranks[1][2][index])
            torch.testing.assert_close(ranks[0][2][index], centre, rtol=1e-4, atol=1e-7)


def _step(batch):
    torch.manual_seed(0)
    recipe = _spec().build()
    recipe.progress.fill_(0.1)
    loss, gradients = loss_and_gradients(recipe, batch)
    recipe.updated()
    return loss, gradients, [recipe.token_centre.value, recipe.patch_centre.value]


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for entry in (SCENE, VOLUME, CUBE):
        rows = [0, 2] if rank == 0 else [1, 3]
        torch.save(_step(ragged_batch(entry).take(rows)), Path(folder) / f"{entry.name}.{rank}.pt")
    distributed.destroy_process_group()
