"""SparK with its own parts sits the exam of all recipes, and costs what its class says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from core.contract import Contract
from core.encoders.convnet import ConvNet, ConvNetSpec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.losses import masked_mean
from core.predictors.transformer import TransformerSpec
from core.predictors.u_decoder import UDecoderSpec
from core.recipes.mae import Mae
from core.recipes.spark import SparK
from core.testing.recipe_contract import RecipeContract
from core.testing.samples import INPUTS, SCENE, ragged_batch
from tests.parity.fixture import make_batch, make_input


def spec(*entries) -> SparK:
    contract = Contract(inputs=entries or tuple(INPUTS.values()))
    encoder = ConvNetSpec(contract=contract, widths=(8, 12, 16), depths=(1, 2, 1), kernel_2d=5, kernel_3d=3)
    return SparK(encoder=encoder, predictor=UDecoderSpec(width=16))


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return spec().build()


@pytest.fixture
def fresh(entry):
    def build():
        torch.manual_seed(0)
        return spec(entry).build()

    return build


class TestSparK(RecipeContract):
    pass


def test_the_loss_is_the_squared_error_of_normalised_hidden_patches():
    torch.manual_seed(0)
    recipe = spec(SCENE).build()
    batch, _ = recipe.encoder.prepare(ragged_batch(SCENE))
    plan = recipe.masker(batch, SCENE.grid(), batch.rng)
    prediction = recipe.predictors["image"](recipe.encoder(batch, plan, levels=(1, 2)), plan, batch)
    value, weight = recipe.branches["image"].terms["image"].target(batch, SCENE.grid())
    expected = masked_mean((prediction - value).square(), weight & plan.hide[..., None])
    assert recipe(batch, batch.rng).loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_an_encoder_that_cannot_leave_out_or_has_no_levels_is_refused(monkeypatch):
    swin = SwinV2Spec(contract=Contract(inputs=(SCENE,)), width=12, depths=(1, 1), heads=(2, 2), window=(2, 2))
    with pytest.raises(ConfigError, match="'spark' needs an encoder with the ability 'drop'"):
        SparK(encoder=swin, predictor=UDecoderSpec(width=16)).build()
    monkeypatch.setattr(ConvNet, "abilities", frozenset({"drop"}))
    with pytest.raises(ConfigError, match="'spark' needs an encoder with the ability 'levels'"):
        replace(spec(SCENE), predictor=TransformerSpec(width=16, depth=1, heads=2)).build()


@pytest.mark.slow
def test_it_costs_what_its_class_says():
    places = [make_input("photograph", 3, (side, side), (224, 224)) for side in (16, 32)]
    transformer = ViTSpec(contract=Contract(inputs=(places[0],)), width=768, depth=12, heads=12)
    convolutions = ConvNetSpec(
        contract=Contract(inputs=(places[1],)), widths=(128, 256, 512, 1024), depths=(3, 3, 27, 3)
    )
    recipes = (
        SparK(encoder=convolutions, predictor=UDecoderSpec(width=512)),
        Mae(encoder=transformer, predictor=TransformerSpec(width=512, depth=8, heads=16)),
    )
    costs = []
    for recipe in recipes:
        built, entry = recipe.build(), recipe.encoder.contract.inputs[0]
        batch = make_batch(torch.randn(1, 3, 224, 224), entry)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            built(batch, batch.rng)
        costs.append(counter.get_total_flops())
    assert costs[0] / costs[1] == pytest.approx(SparK.cost, abs=0.01)
