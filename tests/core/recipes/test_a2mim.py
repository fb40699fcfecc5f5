"""A2MIM on three architectures sits the exam of all recipes; its parts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.convnet import ConvNetSpec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.fills.drop import Drop
from core.losses import absolute, masked_mean
from core.losses.frequency import focal_frequency
from core.maskers.attention import AttentionGuided
from core.predictors.linear import LinearSpec
from core.predictors.u_decoder import UDecoderSpec
from core.recipes.a2mim import A2Mim
from core.targets.frequency import Frequency
from core.testing.recipe_contract import RecipeContract, loss_and_gradients
from core.testing.samples import INPUTS, SCENE, VOLUME, ragged_batch


def encoder(kind, *entries):
    contract = Contract(inputs=entries or tuple(INPUTS.values()))
    window = (2,) * max(entry.ndim for entry in contract.inputs)
    if kind == "convnet":
        return ConvNetSpec(contract=contract, widths=(8, 12, 16), depths=(1, 2, 1), kernel_2d=5, kernel_3d=3)
    if kind == "swinv2":
        return SwinV2Spec(contract=contract, width=12, depths=(2, 2), heads=(2, 2), window=window)
    return ViTSpec(contract=contract, width=24, depth=4, heads=2)


def spec(kind, *entries, **changes) -> A2Mim:
    return A2Mim(encoder=encoder(kind, *entries), predictor=LinearSpec(), **changes)


PAIRS = [("convnet", name) for name in INPUTS] + [("vit", "scene"), ("swinv2", "volume"), ("swinv2", "cube")]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request):
    return request.param


@pytest.fixture
def kind(pair):
    return pair[0]


@pytest.fixture
def entry(pair):
    return INPUTS[pair[1]]


@pytest.fixture
def recipe(kind):
    torch.manual_seed(0)
    return spec(kind).build()


@pytest.fixture
def fresh(kind, entry):
    def build():
        torch.manual_seed(0)
        return spec(kind, entry).build()

    return build


class TestA2Mim(RecipeContract):
    pass


@pytest.mark.parametrize("entry", [SCENE, VOLUME], ids=["2d", "3d"])
def test_the_loss_is_voxels_plus_weighted_spectrum(entry):
    torch.manual_seed(0)
    recipe = spec("convnet", entry, frequency_weight=0.25).build()
    batch, _ = recipe.encoder.prepare(ragged_batch(entry))
    plan = recipe.masker(batch, entry.grid(), batch.rng)
    filled = recipe.fill(batch, plan, entry.grid(), batch.rng)
    tokens = recipe.encoder(filled, plan, mask_token=recipe.mask_token, stage=2)
    prediction = recipe.predictor(tokens, plan, batch)
    value, weight = recipe.target(batch, entry.grid())
    scored = weight & plan.hide[..., None]
    image = masked_mean(absolute(prediction, value), scored)
    frequency = focal_frequency(prediction, value, scored, entry.grid())
    output = recipe(batch, batch.rng)
    assert output.loss.item() == pytest.approx((image + 0.25 * frequency).item(), rel=1e-6)
    assert output.terms["frequency"].item() == pytest.approx(frequency.item(), rel=1e-6)


def test_the_mask_token_enters_three_quarters_through():
    stages = {"vit": 3, "swinv2": 1, "convnet": 2}
    for kind, stage in stages.items():
        recipe = spec(kind, SCENE).build()
        assert recipe.stage == stage
        assert recipe.mask_token.shape[2] == recipe.encoder.level_width(stage)
    four = replace(encoder("convnet", SCENE), widths=(4, 6, 8, 10), depths=(1, 1, 1, 1))
    assert A2Mim(encoder=four, predictor=LinearSpec()).build().stage == 3


def test_the_encoder_is_shown_the_fill_and_not_the_token_alone():
    torch.manual_seed(0)
    recipe = spec("convnet", SCENE, stage=1).build()
    batch = ragged_batch(SCENE)
    shown = []
    hook = recipe.encoder.register_forward_pre_hook(lambda _, args: shown.append(args[0]))
    recipe(batch, batch.rng)
    hook.remove()
    prepared, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(prepared, SCENE.grid(), batch.rng)
    hidden = plan.hide.reshape(4, 1, 4, 6).repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 6, -1, -1)
    assert torch.equal(shown[0].image[~hidden], prepared.image[~hidden])
    assert float(shown[0].image[0, 0][hidden[0, 0]].std()) < 1e-6


def test_it_goes_with_the_u_decoder_too():
    torch.manual_seed(0)
    recipe = A2Mim(encoder=encoder("swinv2", SCENE), predictor=UDecoderSpec(width=16)).build()
    loss, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    assert loss > 0.0
    assert set(gradients) == {name for name, _ in recipe.named_parameters()}


def test_what_does_not_go_together_is_refused_with_a_sentence():
    with pytest.raises(ConfigError, match="such as 'mean', got Drop"):
        spec("vit", SCENE, fill=Drop())
    with pytest.raises(ConfigError, match="frequency weight above 0"):
        spec("vit", SCENE, frequency_weight=0.0)
    with pytest.raises(ConfigError, match="target of voxels"):
        spec("vit", SCENE, target=Frequency()).build()
    with pytest.raises(ConfigError, match="stage below 4"):
        spec("vit", SCENE, stage=4).build()
    with pytest.raises(ConfigError, match="hint 'attention'"):
        spec("vit", SCENE, masker=AttentionGuided()).build()
