"""MaskFeat: histograms are scored where the mask token stands."""

from __future__ import annotations

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.recipes.maskfeat import MaskFeat
from core.targets.hog import Hog
from core.testing.samples import SCENE, ragged_batch

ENCODER = ViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=2, heads=2)


def test_loss_is_the_mean_square_over_hidden_histograms():
    torch.manual_seed(0)
    recipe = MaskFeat(encoder=ENCODER).build()
    batch, entry = recipe.encoder.prepare(ragged_batch(SCENE))
    plan = recipe.masker(batch, entry.grid(), batch.rng)
    tokens = recipe.encoder(batch, plan, mask_token=recipe.mask_token)
    prediction = recipe.predictors["hog"](tokens, plan, batch)
    value, weight = Hog()(batch, entry.grid())
    scored = weight & plan.hide[..., None]
    expected = (prediction - value)[scored].square().mean()
    assert recipe(batch, batch.rng).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_papers_numbers_are_the_defaults():
    spec = MaskFeat(encoder=ENCODER)
    assert spec.masker.ratio == 0.4
    assert spec.target == Hog(pool=8, bins=9)
    assert spec.target.num_values(SCENE) == 9 * 6


def test_cells_that_do_not_divide_the_patch_are_refused_when_built():
    with pytest.raises(ConfigError, match="expected cells that divide the patch"):
        MaskFeat(encoder=ENCODER, target=Hog(pool=3)).build()
