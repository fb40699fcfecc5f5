"""FG-MAE: histograms for all inputs, indices for those whose radiances are known, added with a weight."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.contract import Contract, Normalisation
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.predictors.transformer import TransformerSpec
from core.recipes.fg_mae import FgMae
from core.targets.indices import Indices
from core.testing.recipe_contract import loss_and_gradients
from core.testing.samples import SCENE, VOLUME, ragged_batch

# the sample batches come with offset 0.1 and scale 1.5
FIXED = Normalisation(method="fixed", mean=(0.1,) * 6, std=(1 / 1.5,) * 6)
OPTICAL = replace(SCENE, normalisation=FIXED)
BY_IMAGE = replace(SCENE, normalisation=Normalisation(method="per_image"))
PREDICTOR = TransformerSpec(width=16, depth=1, heads=2)


def _spec(*inputs, **options):
    encoder = ViTSpec(contract=Contract(inputs=inputs), width=24, depth=2, heads=2)
    return FgMae(encoder=encoder, predictor=PREDICTOR, **options)


def _built(*inputs, **options):
    torch.manual_seed(0)
    return _spec(*inputs, **options).build()


def test_one_head_gives_the_numbers_of_both_targets():
    recipe = _built(OPTICAL)
    assert list(recipe.predictors) == ["features"]
    assert recipe.predictors["features"].heads["scene"][0].out_features == 9 * 6 + 3 * 64


def test_the_loss_is_the_weighted_sum_of_its_terms():
    batch = ragged_batch(OPTICAL)
    output = _built(OPTICAL, indices_weight=0.25)(batch, batch.rng)
    assert float(output.terms["hog"]) > 0
    assert float(output.terms["indices"]) > 0
    assert output.loss.item() == pytest.approx(float(output.terms["hog"] + 0.25 * output.terms["indices"]), rel=1e-6)


def test_terms_equal_a_computation_by_hand():
    recipe, batch = _built(OPTICAL), ragged_batch(OPTICAL)
    clean, entry = recipe.encoder.prepare(batch)
    plan = recipe.masker(clean, entry.grid(), batch.rng)
    prediction = recipe.predictors["features"](recipe.encoder(clean, plan), plan, clean)[..., 54:]
    radiance = torch.where(batch.valid, batch.image, 0.0)
    _, green, red, nir, swir1, _ = radiance.unbind(1)
    error, count = 0.0, 0
    for number, (a, b, one, two) in enumerate([(nir, red, 3, 2), (green, nir, 1, 3), (swir1, nir, 4, 3)]):
        for y in range(4):
            for x in range(6):
                place = (slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8))
                for sample in range(4):
                    if not plan.hide[sample, 6 * y + x]:
                        continue
                    first, second = a[sample][place], b[sample][place]
                    known = batch.valid[sample, one][place] & batch.valid[sample, two][place]
                    known = known & (first >= 0) & (second >= 0)
                    guess = prediction[sample, 6 * y + x, 64 * number : 64 * number + 64].reshape(8, 8)
                    error += ((guess - (first - second) / (first + second))[known] ** 2).sum().item()
                    count += int(known.sum())
    assert float(recipe(batch, batch.rng).terms["indices"]) == pytest.approx(error / count, rel=1e-4)


def test_inputs_without_indices_have_histograms_alone():
    recipe = _built(OPTICAL, VOLUME)
    heads = recipe.predictors["features"].heads
    assert heads["scene"][0].out_features == 54 + 192
    assert heads["volume"][0].out_features == 27
    batch = ragged_batch(VOLUME)
    output = recipe(batch, batch.rng, pictures=True)
    assert float(output.terms["indices"]) == 0.0
    assert output.loss.item() == pytest.approx(float(output.terms["hog"]))
    assert list(output.pictures.reconstructions) == ["hog"]


def test_no_index_at_all_leaves_no_term():
    for recipe in (_built(VOLUME), _built(BY_IMAGE), _built(OPTICAL, indices=None)):
        assert list(recipe.branches["features"].terms) == ["hog"]


def test_an_index_can_be_insisted_on():
    with pytest.raises(ConfigError, match="`per_image` normalisation loses them"):
        _spec(BY_IMAGE, indices=Indices()).build()
    with pytest.raises(ConfigError, match="expected the bands of one of"):
        _spec(OPTICAL, VOLUME, indices=Indices()).build()


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="weight above 0"):
        _spec(OPTICAL, indices_weight=0.0)


@pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
def test_missing_voxels_change_neither_loss_nor_gradient(content):
    recipe, batch = _built(OPTICAL), ragged_batch(OPTICAL)
    loss, gradients = loss_and_gradients(recipe, batch)
    filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
    again, other = loss_and_gradients(recipe, filled)
    assert again == loss > 0
    assert all(torch.equal(gradients[name], other[name]) for name in gradients)
    assert all(bool(gradient.abs().max() > 0) for gradient in gradients.values())


def test_shuffled_bands_give_the_same_loss():
    recipe, batch = _built(OPTICAL), ragged_batch(OPTICAL)
    shuffled = batch.aligned(tuple(reversed(batch.bands)))
    assert recipe(shuffled, batch.rng).loss.item() == recipe(batch, batch.rng).loss.item()


def test_both_predictions_are_drawn():
    batch = ragged_batch(OPTICAL)
    pictures = _built(OPTICAL)(batch, batch.rng, pictures=True).pictures
    assert pictures.reconstructions["hog"].shape == (4, 6, 32, 48)
    assert pictures.reconstructions["indices"].shape == (4, 3, 32, 48)
