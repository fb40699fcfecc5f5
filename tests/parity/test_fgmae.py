"""FG-MAE against zhu-xlab/FGMAE: masks, predictions, losses and gradients of the SAR and the multispectral model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Input, Normalisation
from core.layouts.fgmae import UNUSED, recipe_weights
from core.recipes.fg_mae import FgMae
from core.targets.hog import Hog
from core.targets.indices import Indices
from tests.parity.fixture import (
    Fixture,
    FromNoise,
    grad_norms,
    mae_name,
    make_batch,
    make_input,
    placed,
    transformer_spec,
    vit_spec,
)

pytestmark = pytest.mark.parity

L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


def _build(fixture: Fixture, entry: Input):
    c = fixture.config
    spec = FgMae(
        encoder=vit_spec(c, entry),
        predictor=transformer_spec(c, entry),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
        hog=Hog(gaussian=16, floor=1e-12, standardise=c["norm_pix_loss"]),
        indices=Indices(shifted=True, standardise=c["norm_pix_loss"], absent="omit"),
    )
    recipe = spec.build()
    placed(recipe, recipe_weights(fixture.weights, entry))
    return recipe


@pytest.fixture
def radar(parity):
    fixture = Fixture(parity / "fgmae_hog_s1")
    entry = make_input("s1", 2, (16, 16), (224, 224))
    return fixture, _build(fixture, entry), make_batch(fixture.io["in.imgs"], entry)


@pytest.fixture
def optical(parity):
    fixture = Fixture(parity / "fgmae_hog_ndi_s2")
    plain = Normalisation(method="fixed", mean=(0.0,) * 13, std=(1.0,) * 13)
    entry = replace(make_input("s2", 13, (16, 16), (224, 224)), bands=L1C, normalisation=plain)
    return fixture, _build(fixture, entry), make_batch(fixture.io["in.imgs_u16"].float() / 65536, entry)


def _predicted(recipe, batch):
    batch, entry = recipe.encoder.prepare(batch)
    plan = recipe.masker(batch, entry.grid(), batch.rng)
    return plan, recipe.predictors["features"](recipe.encoder(batch, plan), plan, batch)


def test_radar_has_histograms_alone(radar):
    fixture, recipe, batch = radar
    plan, prediction = _predicted(recipe, batch)
    output = recipe(batch, batch.rng)
    fixture.close(plan.hide.float(), "out.mask")
    fixture.close(prediction, "out.pred")
    fixture.close(output.loss, "out.loss")
    assert list(output.terms) == ["hog"]


def test_indices_of_the_release(optical):
    fixture, recipe, batch = optical
    target = replace(recipe.branches["features"].terms["indices"].target, standardise=False)
    value, weight = target(batch, batch.grid((16, 16)))
    image = target.picture(value, batch, batch.grid((16, 16)))
    fixture.close(image[..., 48:160, 48:160], "out.indices_2d_crop48_160")
    assert bool(weight.all())


def test_two_heads_and_both_losses(optical):
    fixture, recipe, batch = optical
    plan, prediction = _predicted(recipe, batch)
    hog, indices = prediction.split([468, 768], dim=2)
    channel_last = indices.unflatten(2, (3, -1)).transpose(2, 3).flatten(2)
    fixture.close(plan.hide.float(), "out.mask")
    fixture.close(hog[:, :98], "out.pred_hog_first98")
    fixture.close(channel_last[:, :98], "out.pred_ndi_first98")
    output = recipe(batch, batch.rng)
    fixture.close(output.terms["hog"], "out.loss_hog")
    fixture.close(output.terms["indices"], "out.loss_ndi")
    fixture.close(output.loss, "out.loss")


@pytest.mark.parametrize("which", ["radar", "optical"])
def test_gradients(which, request):
    fixture, recipe, batch = request.getfixturevalue(which)
    recipe(batch, batch.rng).loss.backward()
    ours = dict(recipe.named_parameters())
    (entry,) = recipe.encoder.contract.inputs
    head = {part: ours[f"predictors.features.heads.{entry.name}.0.{part}"].grad for part in ("weight", "bias")}
    count = fixture.weights["decoder_pred.bias"].numel()
    compared = 0
    for key, norm in fixture.grad_norms().items():
        if key.startswith("decoder_pred"):
            part = key.rpartition(".")[2]
            gradient = head[part][count:] if key.startswith("decoder_pred2") else head[part][:count]
        else:
            gradient = ours[mae_name(key, entry, "predictors.features")].grad
        assert grad_norms(gradient) == pytest.approx(norm, rel=1e-3), key
        compared += 1
    assert compared == {"radar": 48, "optical": 50}[which]


def test_only_the_filters_of_the_release_are_left_out(radar, optical):
    for fixture, recipe, _ in (radar, optical):
        (entry,) = recipe.encoder.contract.inputs
        marked = {key: torch.full_like(v, i, dtype=torch.float32) for i, (key, v) in enumerate(fixture.weights.items())}
        used = {int(i) for v in recipe_weights(marked, entry).values() for i in v.unique()}
        left = {key for i, key in enumerate(marked) if i not in used}
        assert left == {key for key in marked if key.startswith(UNUSED)}
