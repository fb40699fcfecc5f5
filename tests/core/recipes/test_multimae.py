"""MultiMAE: one budget over groups of bands, one loss for each group, and samples that lack a group."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.config import from_dict, to_dict
from core.contract import Contract, Input
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.bands import Bands
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.transformer import TransformerSpec
from core.recipes.base import RecipeSpec
from core.recipes.multimae import MultiMae, group_names
from core.shapes import patchify
from core.targets.hog import Hog
from core.targets.pixels import Pixels
from core.testing.recipe_contract import loss_and_gradients, watched
from core.testing.samples import CUBE, SCENE, VOLUME, ragged_batch

OPTICAL = replace(SCENE, groups=(SCENE.bands[:3], SCENE.bands[3:4], SCENE.bands[4:]))
MODALITIES = replace(VOLUME, bands=("t1", "t2"), groups=(("t1",), ("t2",)))
THERMAL = replace(CUBE, groups=(CUBE.bands[:1], CUBE.bands[1:8], CUBE.bands[8:]))
ENTRIES = (OPTICAL, MODALITIES, THERMAL)
PREDICTORS = {
    "transformer": TransformerSpec(width=16, depth=1, heads=2),
    "cross_attention": CrossAttentionSpec(width=16, depth=2, heads=2, queries="all", start="learned"),
}


def _spec(*entries: Input, **fields):
    vit = ViTSpec(contract=Contract(inputs=entries or ENTRIES), width=24, depth=2, heads=2)
    return MultiMae(**({"encoder": vit, "predictor": PREDICTORS["transformer"]} | fields))


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def entry(request):
    return request.param


@pytest.fixture(params=PREDICTORS)
def recipe(request, entry):
    return _spec(entry, predictor=PREDICTORS[request.param]).build()


def test_the_budget_is_shared_unevenly_and_is_exact_in_sum(recipe, entry):
    one = ragged_batch(entry).take([0])
    batch = replace(one.take([0] * 40), key=torch.arange(40))
    ((_, grid, plan),) = watched(recipe, batch).plans
    total = grid.num_tokens
    assert plan.hide.sum(1).tolist() == [math.ceil(5 * total / 6)] * 40
    seen = plan.see.unflatten(1, (grid.num_groups, -1)).sum(2)
    assert len(seen.unique(dim=0)) > 5
    assert int(seen.min()) == 0


def test_each_group_is_scored_by_itself_and_the_loss_is_their_mean(recipe, entry):
    batch = ragged_batch(entry)
    output = recipe(batch, batch.rng)
    prepared, _ = recipe.encoder.prepare(batch)
    grid = entry.grid()
    ((_, _, plan),) = watched(recipe, batch).plans
    prediction = recipe.predictor(recipe.encoder(prepared, plan), plan, prepared)
    expected = {}
    for number, (group, name) in enumerate(zip(entry.groups, group_names(entry), strict=True)):
        own = prepared.aligned(group)
        value, weight = Pixels()(own, grid.plain)
        places = slice(number * grid.num_places, (number + 1) * grid.num_places)
        error = (prediction[:, places, : value.shape[2]] - value).square()
        scored = weight & plan.hide[:, places, None]
        expected[name] = error[scored].sum() / max(int(scored.sum()), 1)
    assert output.terms.keys() == expected.keys()
    for name, term in expected.items():
        torch.testing.assert_close(output.terms[name], term.detach())
    torch.testing.assert_close(output.loss.detach(), torch.stack(list(expected.values())).mean().detach())


def test_a_group_without_weight_is_not_learnt(entry):
    weights = (0.0, *(2.0 for _ in entry.groups[1:]))
    recipe = _spec(entry, weights={entry.name: weights}).build()
    batch = ragged_batch(entry)
    output = recipe(batch, batch.rng)
    others = [output.terms[name] for name in group_names(entry)[1:]]
    torch.testing.assert_close(output.loss.detach(), torch.stack(others).mean())
    _, gradients = loss_and_gradients(recipe, batch)
    assert not bool(gradients[f"predictor.heads.{entry.name}.0.weight"].any())
    assert bool(gradients[f"predictor.heads.{entry.name}.1.weight"].any())


def test_a_sample_that_lacks_a_group_is_trained_by_the_others(recipe, entry):
    batch = ragged_batch(entry).take([0, 1])
    gone = [entry.bands.index(band) for band in entry.groups[0]]
    valid = batch.valid.clone()
    valid[:, gone] = False
    batch = replace(batch, valid=valid)
    ((_, grid, plan),) = watched(recipe, batch).plans
    assert not bool((plan.see | plan.hide)[:, : grid.num_places].any())
    loss, gradients = loss_and_gradients(recipe, batch)
    assert math.isfinite(loss)
    assert loss > 0.0
    filled = replace(batch, image=torch.where(valid, batch.image, torch.nan))
    again, other = loss_and_gradients(recipe, filled)
    assert again == loss
    assert all(torch.equal(gradients[name], other[name]) for name in gradients)
    first, *rest = group_names(entry)
    terms = recipe(batch, batch.rng).terms
    assert float(terms[first]) == 0.0
    assert all(float(terms[name]) > 0.0 for name in rest)
    assert not bool(gradients[f"encoder.stems.{entry.name}.embeddings.0.weight"].any())


def test_what_other_groups_show_reaches_a_hidden_group(recipe, entry):
    """The prediction of a group that is hidden whole depends on the other groups' content."""
    grid, batch = entry.grid(), ragged_batch(entry).take([0])
    plan = watched(recipe, batch).plans[0][2]
    hide = torch.arange(grid.num_tokens)[None] < grid.num_places
    plan = replace(plan, see=~hide, hide=hide)
    prepared, _ = recipe.encoder.prepare(batch)
    image = prepared.image.clone().requires_grad_()
    watching = replace(prepared, image=image)
    recipe.predictor(recipe.encoder(watching, plan), plan, watching)[:, : grid.num_places].square().sum().backward()
    own = [entry.bands.index(band) for band in entry.groups[0]]
    others = [i for i in range(len(entry.bands)) if i not in own]
    assert not bool(image.grad[:, own].any())
    assert bool((image.grad[:, others] != 0).all())


def test_the_encoder_tells_groups_and_places_apart(recipe, entry):
    """Of an image without content every token is its group's and its place's own."""
    prepared, _ = recipe.encoder.prepare(ragged_batch(entry).take([0]))
    tokens = recipe.encoder(replace(prepared, image=torch.zeros_like(prepared.image))).value[0].detach()
    assert len(tokens) == entry.grid().num_tokens
    assert float(torch.pdist(tokens).min()) > 1e-3


def test_the_predictor_tells_groups_and_places_apart(recipe, entry):
    """All groups given one output layer, what is predicted for hidden tokens still differs from each other."""
    grid = entry.grid()
    plan = watched(recipe, ragged_batch(entry).take([0])).plans[0][2]
    prepared, _ = recipe.encoder.prepare(ragged_batch(entry).take([0]))
    heads = recipe.predictor.heads[entry.name]
    for head in heads:
        head.load_state_dict(heads[0].state_dict())
    found = recipe.predictor(recipe.encoder(prepared, plan), plan, prepared)[0].detach()
    assert len(found) == grid.num_tokens
    assert float(torch.pdist(found[plan.hide[0]]).min()) > 1e-3


def test_pictures_show_a_band_as_it_is_where_its_own_group_was_seen(recipe, entry):
    batch = ragged_batch(entry)
    ((masked, grid, plan),) = watched(recipe, batch).plans
    pictures = recipe(batch, batch.rng, pictures=True).pictures
    for number, group in enumerate(entry.groups):
        order = [entry.bands.index(band) for band in group]
        hide = plan.hide[:, number * grid.num_places : (number + 1) * grid.num_places]
        painted = patchify(pictures.reconstructions["image"][:, order], grid.patch)
        true = patchify(masked.image[:, order], grid.patch)
        assert torch.equal(painted[~hide], true[~hide])
        assert not torch.equal(painted[hide], true[hide])


def test_a_target_of_other_numbers_than_voxels_has_no_reconstruction():
    recipe = _spec(OPTICAL, target=Hog()).build()
    batch = ragged_batch(OPTICAL)
    output = recipe(batch, batch.rng, pictures=True)
    assert float(output.loss.detach()) > 0.0
    assert output.pictures.reconstructions == {}


def test_an_input_of_one_group_is_masked_like_maes():
    single = replace(VOLUME, groups=(VOLUME.bands,))
    recipe = _spec(OPTICAL, single).build()
    batch = ragged_batch(single)
    ((_, grid, plan),) = watched(recipe, batch).plans
    assert int(plan.hide[0].sum()) == math.ceil(5 * grid.num_places / 6)
    assert float(recipe(batch, batch.rng).loss.detach()) > 0.0


def test_inputs_without_any_group_are_refused_when_described_and_the_option_is_named():
    option = r"--recipe.encoder.contract.inputs.0.groups '\[\[blue\],\[green\],\[red\],\[nir\],\[swir1\],\[swir2\]\]'"
    with pytest.raises(ConfigError, match=rf"inputs \['scene', 'cube'\] have none.*{option}.*recipe 'mae'"):
        _spec(SCENE, CUBE)


def test_one_input_without_groups_may_be_described_but_not_trained_on():
    """What the data lack is taken out between the two."""
    spec = _spec(SCENE, MODALITIES)
    with pytest.raises(ConfigError, match=r"inputs \['scene'\] have none.*recipe 'mae'"):
        spec.build()
    _spec(MODALITIES).build()


@pytest.mark.parametrize(
    "weights", [{"volume": (1.0,)}, {"photo": (1.0, 1.0)}, {"volume": (0.0, 0.0)}, {"volume": (2.0, -1.0)}]
)
def test_weights_that_fit_no_groups_are_refused(weights):
    with pytest.raises(ConfigError, match="weights of 0 or more for each group"):
        _spec(weights=weights)


def test_a_masker_without_a_use_for_groups_works_too(entry):
    recipe = _spec(entry, masker=Bands(ratio=0.75, mode="shared")).build()
    ((_, grid, plan),) = watched(recipe, ragged_batch(entry)).plans
    same = plan.hide[0].unflatten(0, (grid.num_groups, -1))
    assert bool((same == same[:1]).all())


def test_it_is_a_config():
    spec = _spec(weights={"volume": (1.0, 3.0)})
    assert from_dict(RecipeSpec, to_dict(spec)) == spec
