"""Uni4Eye against the released two-decoder model, 2D and 3D, and its gradient map."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.layouts.uni4eye import UNUSED, recipe_weights
from core.losses import masked_mean, squared
from core.predictors.transformer import TransformerSpec
from core.recipes.uni4eye import Uni4Eye
from core.shapes import patchify
from core.targets.gradient import uni4eye_gradient_map
from core.targets.pixels import Pixels
from tests.parity.fixture import Fixture, FromNoise, grad_norms, make_batch, make_input, placed

pytestmark = pytest.mark.parity

FLAT = make_input("photograph", 1, (8, 8), (32, 32))
SOLID = make_input("volume", 1, (8, 8, 8), (32, 16, 32))


@pytest.fixture(params=["2d", "3d"])
def built(parity, request):
    fixture = Fixture(parity / f"uni4eye_{request.param}")
    c = fixture.config
    entry = FLAT if request.param == "2d" else SOLID
    contract = Contract(inputs=(FLAT, SOLID))
    spec = Uni4Eye(
        encoder=ViTSpec(
            contract=contract,
            width=c["embed_dim"],
            depth=c["depth"],
            heads=c["num_heads"],
            tables={"photograph": (4, 4), "volume": (4, 2, 4)},
        ),
        predictor=TransformerSpec(
            width=c["decoder_embed_dim"],
            depth=c["decoder_depth"],
            heads=c["decoder_num_heads"],
            tables={"photograph": (4, 4), "volume": (4, 2, 4)},
        ),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
        image=Pixels(normalise="joint" if c["norm_pix_loss"] else "none"),
    )
    recipe = spec.build()
    placed(recipe, recipe_weights(fixture.weights, contract))
    return fixture, recipe, make_batch(fixture.io["in.imgs"], entry), entry


def _step(fixture, recipe, batch, entry):
    """The recipe's step with the fixture's given gradient target in place of the computed one."""
    grid = batch.grid(entry.patch)
    plan = recipe.masker(batch, grid, batch.rng)
    tokens = recipe.encoder(batch, plan)
    given = patchify(fixture.io["in.grad_target"], entry.patch)
    values = {"image": recipe.branches["image"].terms["image"].target(batch, grid)[0], "gradient": given}
    predictions = {name: recipe.predictors[name](tokens, plan, batch) for name in values}
    loss = sum(
        masked_mean(squared(predictions[n], values[n]), plan.hide[..., None].expand_as(values[n])) for n in values
    )
    return plan, predictions, loss


def test_embedding_masks_predictions_and_loss(built):
    fixture, recipe, batch, entry = built
    plan, predictions, loss = _step(*built)
    fixture.close(recipe.encoder.stems[entry.name](batch), "out.patch_embed")
    fixture.close(patchify(batch.image, entry.patch), "out.patchify_img")
    fixture.close(plan.hide.float(), "out.mask")
    fixture.close(predictions["image"], "out.pred_img")
    fixture.close(predictions["gradient"], "out.pred_grad")
    fixture.close(loss, "out.loss")


def test_both_branches_reach_the_encoder_with_the_reference_gradients(built):
    fixture, recipe, *_ = built
    _, _, loss = _step(*built)
    loss.backward()
    ours = dict(recipe.named_parameters())
    # one reference key may stand for two of ours (the shared last norm): its gradient is the sum of both
    homes = defaultdict(list)
    marked = recipe_weights(
        {key: torch.full_like(value, i) for i, (key, value) in enumerate(fixture.weights.items())},
        recipe.encoder.contract,
    )
    keys = list(fixture.weights)
    for name, value in marked.items():
        if not name.endswith("nodata"):
            homes[keys[int(value.flatten()[0])]].append(name)
    compared = 0
    for key, norm in fixture.grad_norms().items():
        if np.isnan(norm) or key in UNUSED:
            continue
        total = sum(ours[name].grad for name in homes[key])
        assert grad_norms(total) == pytest.approx(norm, rel=1e-3), key
        compared += 1
    assert compared >= 60


def test_gradient_map_of_the_release(parity):
    fixture = Fixture(parity / "uni4eye_gradient_target")
    gray = fixture.io["out.u8_gray"][None, None]
    assert torch.equal(uni4eye_gradient_map(gray)[0, 0], fixture.io["out.u8_gradient_map"])
    assert torch.equal(
        uni4eye_gradient_map(fixture.io["out.gray"][None, None])[0, 0], fixture.io["out.grad_2decoder_v_gray"]
    )
    # the other class feeds (C, Y, X) where OpenCV reads (Y, X, channels): rows are C, columns Y, channels X
    wrong = fixture.io["in.img_chw"].permute(2, 0, 1)[None]
    assert torch.equal(uni4eye_gradient_map(wrong)[0].permute(1, 2, 0), fixture.io["out.grad_2decoder_chw"])


def test_sobel_equals_opencv(parity):
    from core.targets.gradient import sobel

    fixture = Fixture(parity / "uni4eye_gradient_target")
    gray = fixture.io["out.gray"][None, None]
    fixture.close(sobel(gray, 1, 5)[0, 0], "out.sobel5_x_float")
    fixture.close(sobel(gray, 0, 5)[0, 0], "out.sobel5_y_float")
