"""MFF: MAE with fused stages."""

from __future__ import annotations

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.predictors.transformer import TransformerSpec
from core.recipes.mff import Mff
from core.testing.samples import SCENE, ragged_batch


def _spec(depth=4, **options):
    encoder = ViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=depth, heads=2)
    return Mff(encoder=encoder, predictor=TransformerSpec(width=16, depth=1, heads=2), **options)


def test_the_encoder_is_asked_for_the_fused_stages():
    recipe, batch = _spec().build(), ragged_batch(SCENE)
    found = []
    recipe.encoder.register_forward_hook(lambda _, __, tokens: found.append(sorted(tokens.levels)))
    recipe(batch, batch.rng)
    assert found == [[1]]
    assert _spec(fused=(1, 3)).build().levels == (1, 3)


def test_a_fused_stage_gets_gradient_past_the_last_block():
    """With the last two blocks cut off from the loss, the first still learns through the fusion."""
    torch.manual_seed(0)
    recipe, batch = _spec().build(), ragged_batch(SCENE)
    with torch.no_grad():
        recipe.predictors["image"].shares.copy_(torch.tensor([0.0, -200.0]))
    recipe(batch, batch.rng).loss.backward()
    reached = [float(block.attn.qkv.weight.grad.abs().max()) for block in recipe.encoder.blocks]
    assert reached[0] > 0
    assert max(reached[1:]) == 0.0


def test_an_encoder_without_inner_stages_is_refused():
    with pytest.raises(ConfigError, match="expected different inner stages"):
        _spec(depth=1).build()
