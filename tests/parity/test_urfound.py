"""UrFound's image branch: the same layout as MRM's, without text in the reference numbers."""

from __future__ import annotations

import pytest
import torch

from core.layouts.mrm import recipe_weights
from core.resize import finer
from core.shapes import patchify
from core.testing.texts import write_tokenizer
from core.text.model import TextSpec
from core.weights import place
from tests.parity.fixture import Fixture, make_batch, make_input
from tests.parity.test_mrm import build, check_encoder

pytestmark = pytest.mark.parity


@pytest.fixture
def built(parity, tmp_path):
    fixture = Fixture(parity / "urfound_visual")
    entry = make_input("image", 3, (8, 8), (64, 64))
    text = TextSpec(tokenizer=str(write_tokenizer(tmp_path / "tokenizer.json")), depth=1)
    recipe = build(fixture, entry, text)
    weights = recipe_weights(fixture.weights, entry)
    placement = place(recipe, weights, source="urfound_visual", allow_missing=("text.",))
    assert {name.partition(".")[0] for name in placement.missing} == {"text"}
    assert len(placement.placed) == len(fixture.weights) + 1  # and the vector of missing data
    return fixture, recipe, make_batch(fixture.io["in.big_imgs"], entry), entry


def test_small_image_latent_and_mask(built):
    check_encoder(*built[:3])


def test_fine_patches_prediction_condition_and_loss(built):
    fixture, recipe, batch, entry = built
    seen = {}
    recipe.to_text.register_forward_hook(lambda _, __, out: seen.update(condition=out))
    recipe.predictor.register_forward_hook(lambda _, __, out: seen.update(prediction=out))
    output = recipe(batch, batch.rng)
    fixture.close(patchify(batch.image, finer(entry, 2).patch), _band_major(fixture.io["out.patchify_big"]))
    fixture.close(seen["prediction"], _band_major(fixture.io["out.pred"]))
    fixture.close(seen["condition"], "out.text_condition")
    fixture.close(output.loss, "out.loss")
    assert float(output.terms["report"]) == 0.0  # no report came along


def _band_major(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(2, 64, 16, 16, 3).permute(0, 1, 4, 2, 3).flatten(2)
