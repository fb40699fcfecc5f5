"""LocalMIM against its released model: the normed stages, four decoders, fractional masks, loss and gradients."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from core.layouts.localmim import UNUSED, recipe_weights
from core.predictors.per_level import rescaled, scaled
from core.recipes.localmim import LocalMim
from core.targets.hog import Hog
from tests.parity.fixture import (
    Fixture,
    FromNoise,
    grad_norms,
    in_raster,
    make_batch,
    make_input,
    placed,
    transformer_spec,
    vit_spec,
)

pytestmark = pytest.mark.parity


@pytest.fixture
def built(parity):
    fixture = Fixture(parity / "localmim_multiscale_hog")
    c = fixture.config
    entry = make_input("image", c["in_chans"], (c["patch_size"],) * 2, (c["img_size"],) * 2)
    spec = LocalMim(
        encoder=vit_spec(c, entry),
        predictor=transformer_spec(c, entry),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
        target=Hog(pool=None, floor=1e-12),
        scales=tuple(c["scales"]),
        levels=(2, 4, 6, 8),  # counted from 1; theirs are [1, 3, depth - 3, depth - 1] from 0
        width=8,
    )
    recipe = spec.build()
    placed(recipe, recipe_weights(fixture.weights, entry, recipe.scales))
    return fixture, recipe, make_batch(fixture.io["in.imgs"], entry), entry


def test_stages_predictions_masks_and_loss(built):
    fixture, recipe, batch, entry = built
    grid = entry.grid()
    plan = recipe.masker(batch, grid, batch.rng)
    fixture.close(plan.hide.float(), "out.mask")
    tokens = recipe.encoder(batch, plan, levels=recipe.levels)
    for number, (name, scale) in enumerate(recipe.scales.items()):
        predictor = recipe.predictors[name]
        normed = tokens.value if predictor.norm is None else predictor.norm(tokens.levels[predictor.stage].value)
        fixture.close(normed, in_raster(fixture.io[f"out.latent_{number}"][:, 1:], fixture.io["in.noise"]))
        fixture.close(predictor(tokens, plan, batch), f"out.pred_{number}")
        score = rescaled(plan.hide.float()[..., None], grid, scaled(grid, scale))
        fixture.close(score[..., 0], f"out.mask_{number}")
    fixture.close(recipe(batch, batch.rng).loss, "out.loss")


def test_gradients(built):
    fixture, recipe, batch, entry = built
    recipe(batch, batch.rng).loss.backward()
    ours = dict(recipe.named_parameters())
    keys = list(fixture.weights)
    marks = {key: torch.full(value.shape, float(i)) for i, (key, value) in enumerate(fixture.weights.items())}
    homes = defaultdict(list)
    for name, mark in recipe_weights(marks, entry, recipe.scales).items():
        if not name.endswith("nodata"):
            homes[keys[int(mark.flatten()[0])]].append(name)
    compared = 0
    for key, norm in fixture.grad_norms().items():
        (name,) = homes[key]
        gradient = ours[name].grad
        shape = fixture.weights[key].shape
        if gradient.numel() != shape.numel():  # the bias that the children of a doubling share
            gradient = gradient.reshape(*shape, -1).sum(-1)
        assert grad_norms(gradient) == pytest.approx(norm, rel=1e-3), key
        compared += 1
    assert compared == 191
    assert {key for key in keys if not homes[key]} == {key for key in keys if key.startswith(UNUSED)}
