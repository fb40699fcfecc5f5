"""The strict loader on the references' own files, with the cards' own layouts: what parity tests place, it places.

The numbers of these encoders are compared in the files of each reference; here their weights, bit for bit, so that both ways
in are one. SatVision, SatMAE, Scale-MAE, OpenCLIP and RETFound go through the loader in their own files.
"""

from __future__ import annotations

import argparse

import pytest
import torch

from core.contract import Contract
from core.encoders.cards import get_card
from core.errors import CheckpointError
from core.foreign import read_encoder, translate
from core.layouts import fgmae, mrm, uni4eye
from core.layouts.mae import encoder_weights
from tests.parity.fixture import Fixture, make_batch, make_input, placed, vit_spec

pytestmark = pytest.mark.parity

WRAPPED = ("module.", "model.", "_forward_module.", "_orig_mod.", "module._orig_mod.")


def part(weights, prefix="encoder."):
    """The encoder's share of a recipe's weights."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def plain(fixture, entry):
    return encoder_weights(fixture.weights, entry)


REFERENCES = {
    "mae_vit_normpix": ("mae-vit-base", plain),
    "mae_vit_finetune_gap": ("mae-vit-base", plain),
    "mae_vit_finetune_cls": ("imagenet-vit-base", plain),
    "retfound_encoder_gap": ("retfound-cfp", plain),
    "fgmae_hog_s1": ("fgmae-s1", lambda fixture, entry: part(fgmae.recipe_weights(fixture.weights, entry))),
    "fgmae_hog_ndi_s2": ("fgmae-s2-small", lambda fixture, entry: part(fgmae.recipe_weights(fixture.weights, entry))),
    "mrm_image_report": ("mrm", lambda fixture, entry: part(mrm.recipe_weights(fixture.weights, entry))),
    "urfound_visual": ("urfound", lambda fixture, entry: part(mrm.recipe_weights(fixture.weights, entry))),
    "uni4eye_2d": (
        "uni4eye",
        lambda fixture, entry: part(uni4eye.recipe_weights(fixture.weights, Contract(inputs=(entry,)))),
    ),
}


@pytest.fixture(params=REFERENCES)
def reference(request, parity):
    name, expected = REFERENCES[request.param]
    fixture, card = Fixture(parity / request.param), get_card(name)
    c = fixture.config
    size = (c["img_size"],) * 2
    entry = make_input("image", c.get("in_chans", 3), (c["patch_size"],) * 2, size)
    return fixture, card.layout, vit_spec(c, entry), expected(fixture, entry)


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_saved_file_gives_the_weights_of_the_parity_tests(reference, tmp_path):
    fixture, layout, spec, expected = reference
    path = tmp_path / "checkpoint-99.pth"
    torch.save({"model": fixture.weights, "args": argparse.Namespace(epochs=100), "epoch": 99}, path)
    found = read_encoder(path, spec, layout)
    assert same(found.weights, expected)
    assert sorted((*found.placed, *found.dropped)) == sorted(fixture.weights)
    placed(spec.build(), found.weights)


def test_every_wrapper_gives_the_same(reference):
    fixture, layout, spec, expected = reference
    for prefix in WRAPPED:
        file = {"state_dict": {f"{prefix}{key}": value for key, value in fixture.weights.items()}}
        assert same(translate(file, spec, layout, source=prefix).weights, expected)


@pytest.mark.slow
def test_every_key_that_goes_missing_or_by_another_name_is_named(reference):
    fixture, layout, spec, _ = reference
    needed = translate(fixture.weights, spec, layout, source="whole").placed
    assert len(needed) >= 30
    for key in needed:
        rest = {other: value for other, value in fixture.weights.items() if other != key}
        with pytest.raises(CheckpointError) as told:
            translate(rest | {f"{key}_2": fixture.weights[key]}, spec, layout, source="x")
        assert str(told.value).endswith(f"missing: {key}; unexpected: {key}_2.")


def test_an_encoder_file_of_fgmae_equals_its_full_file(parity):
    fixture = Fixture(parity / "fgmae_hog_ndi_s2")
    c, layout = fixture.config, get_card("fgmae-s2").layout
    entry = make_input("image", 13, (c["patch_size"],) * 2, (c["img_size"],) * 2)
    spec = vit_spec(c, entry)
    full = translate({"model": fixture.weights}, spec, layout, source="full")
    dropped = {"decoder_pred2.bias", "hog.gkern", "mask_token"}
    assert dropped <= set(full.dropped)
    alone = {key: value for key, value in fixture.weights.items() if key not in full.dropped}
    found = translate(alone, spec, layout, source="_enc")
    assert not found.dropped
    batch, encoders = make_batch(torch.rand(2, 13, 224, 224), entry), [spec.build().eval() for _ in range(2)]
    for encoder, weights in zip(encoders, (full.weights, found.weights), strict=True):
        placed(encoder, weights)
    assert torch.equal(encoders[0].features(batch, "mean"), encoders[1].features(batch, "mean"))
