"""MAE against facebookresearch/mae: pretraining step, fine-tuning features, position tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from core.layouts.mae import ENCODER_KEYS, band_major, encoder_weights, predictor_weights, renamed
from core.plan import hide_share
from core.pos_embed import grid_positions, resample_table
from core.recipes.mae import Mae
from core.shapes import Grid, patchify, unpatchify
from core.targets.pixels import Pixels
from core.weights import place
from tests.parity.fixture import (
    Fixture,
    FromNoise,
    grad_norms,
    in_raster,
    mae_name,
    make_batch,
    make_input,
    placed,
    transformer_spec,
    vit_spec,
)

pytestmark = pytest.mark.parity


@pytest.fixture
def pretrain(parity):
    fixture = Fixture(parity / "mae_vit_normpix")
    c = fixture.config
    entry = make_input("image", c["in_chans"], (c["patch_size"],) * 2, (c["img_size"],) * 2)
    spec = Mae(
        encoder=vit_spec(c, entry),
        predictor=transformer_spec(c, entry),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
        target=Pixels(normalise="joint"),
    )
    recipe = spec.build()
    weights = {f"encoder.{k}": v for k, v in encoder_weights(fixture.weights, entry).items()}
    weights |= {f"predictors.image.{k}": v for k, v in predictor_weights(fixture.weights, entry).items()}
    placement = placed(recipe, weights)
    # one tensor of ours for each of theirs, and the nodata vector
    assert len(placement.placed) == len(fixture.weights) + 1
    return fixture, recipe, make_batch(fixture.io["in.imgs"], entry), entry


def test_mask_follows_the_reference_noise(pretrain):
    fixture, recipe, batch, entry = pretrain
    plan = recipe.masker(batch, batch.grid(entry.patch), batch.rng)
    fixture.close(plan.hide.float(), "out.mask")


def test_target_equals_norm_pix(pretrain):
    fixture, recipe, batch, entry = pretrain
    value, weight = recipe.branches["image"].terms["image"].target(batch, batch.grid(entry.patch))
    theirs = fixture.io["mid.target_normed"]
    fixture.close(value, band_major(theirs.permute(2, 0, 1), entry).permute(1, 2, 0))
    assert bool((weight == 1).all())


def test_latent_prediction_and_loss(pretrain):
    fixture, recipe, batch, entry = pretrain
    grid = batch.grid(entry.patch)
    plan = recipe.masker(batch, grid, batch.rng)
    tokens = recipe.encoder(batch, plan)
    theirs = fixture.io["out.latent"]
    fixture.close(tokens.prefix, theirs[:, :1])
    fixture.close(tokens.value, in_raster(theirs[:, 1:], fixture.io["in.noise"]))
    prediction = recipe.predictors["image"](tokens, plan, batch)
    fixture.close(unpatchify(prediction, grid), "out.unpatchify_pred")
    fixture.close(recipe(batch, batch.rng).loss, "out.loss")


def test_gradients(pretrain):
    fixture, recipe, batch, entry = pretrain
    recipe(batch, batch.rng).loss.backward()
    ours = dict(recipe.named_parameters())
    for key, norm in fixture.grad_norms().items():
        assert grad_norms(ours[mae_name(key, entry, "predictors.image")].grad) == pytest.approx(norm, rel=1e-3), key
    assert ours["encoder.tables.image"].grad is None
    assert ours["encoder.stems.image.nodata"].grad.abs().max() == 0.0


def test_all_tokens_equal_mask_ratio_zero(pretrain):
    fixture, recipe, batch, _ = pretrain
    tokens = recipe.encoder(batch)
    order = fixture.io["in.noise"].argsort(1)
    theirs = fixture.io["out.latent_mask_ratio_0"]
    fixture.close(tokens.value.gather(1, order[..., None].expand_as(tokens.value)), theirs[:, 1:])
    fixture.close(tokens.prefix, theirs[:, :1])


def test_patchify_order(pretrain):
    fixture, _, batch, entry = pretrain
    theirs = fixture.io["mid.patchify"]
    fixture.close(patchify(batch.image, entry.patch), band_major(theirs.permute(2, 0, 1), entry).permute(1, 2, 0))


@pytest.mark.parametrize(("name", "pool"), [("gap", "mean_then_norm"), ("cls", "cls")])
def test_finetune_features(parity, name, pool):
    fixture = Fixture(parity / f"mae_vit_finetune_{name}")
    c = fixture.config
    entry = make_input("image", c["in_chans"], (c["patch_size"],) * 2, (c["img_size"],) * 2)
    encoder = vit_spec(c, entry, train_tables=True).build()
    weights = {k: v for k, v in fixture.weights.items() if not k.startswith("head.")}
    place(encoder, encoder_weights(weights, entry), source=name)
    head = torch.nn.Linear(c["embed_dim"], c["num_classes"])
    place(head, {k.removeprefix("head."): v for k, v in fixture.weights.items() if k.startswith("head.")}, source=name)

    features = encoder.features(make_batch(fixture.io["in.imgs"], entry), pool)
    logits = head(features)
    loss = functional.cross_entropy(logits, fixture.io["in.labels"])
    fixture.close(features, "out.features")
    fixture.close(logits, "out.logits")
    fixture.close(loss, "out.ce_loss")
    loss.backward()
    ours = dict(encoder.named_parameters()) | {f"head.{k}": v for k, v in head.named_parameters()}
    compared = 0
    for key, norm in fixture.grad_norms().items():
        if np.isnan(norm):
            continue
        (mapped,) = renamed({key: key}, ENCODER_KEYS, name="image") or (key,)
        assert grad_norms(ours[mapped].grad) == pytest.approx(norm, rel=1e-3), key
        compared += 1
    assert compared >= 30


@pytest.mark.parametrize("size", [7, 16])
def test_table_resampling(parity, size):
    fixture = Fixture(parity / "mae_pos_embed_interpolation")
    fixture.close(resample_table(fixture.io["in.pos_embed"], (10, 10), (size, size)), f"out.pos_embed_to_{size}")


def test_sincos_table(parity):
    fixture = Fixture(parity / "mae_pos_embed_interpolation")
    theirs = fixture.io["out.sincos_24_grid14_cls"]
    assert bool((theirs[0] == 0).all())
    fixture.close(grid_positions(Grid((14, 14), (1, 1)), 24)[0], theirs[1:])


def test_ratio_counts_as_the_reference_floors(parity):
    """Reference: keep int(N (1 - r)); ours hides ceil(N r): the same for the ratios that papers use."""
    for tokens in (49, 64, 196, 216, 400):
        for ratio in (0.5, 0.6, 0.7, 0.75, 0.9):
            plan = hide_share(torch.rand(1, tokens), torch.ones(1, tokens, dtype=torch.bool), ratio)
            assert int(plan.see.sum()) == int(round(tokens * (1 - ratio) * 1e6) // 1e6)
