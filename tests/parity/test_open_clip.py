"""OpenCLIP's image tower, which RemoteCLIP is distributed as, against the library, with either activation."""

from __future__ import annotations

import math

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.layouts.open_clip import encoder_weights, joint_projection
from tests.parity.fixture import Fixture, grad_norms, make_batch, make_input
from tests.parity.released import from_file

pytestmark = pytest.mark.parity


def _built(fixture, activation, folder):
    c = fixture.config["vision"]
    entry = make_input("scene", 3, (c["patch_size"],) * 2, (c["image_size"],) * 2)
    spec = ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=c["width"],
        depth=c["layers"],
        heads=c["width"] // c["head_width"],
        tables={"scene": (3, 3)},
        train_tables=True,
        activation=activation,
        norm_first=True,
        norm_eps=1e-5,
    )
    encoder = from_file(spec, fixture.weights, folder, "remoteclip-vit-b-32", outer=None)
    return encoder, make_batch(fixture.io["in.imgs"], entry), joint_projection(fixture.weights)


@pytest.mark.parametrize(("name", "activation"), [("gelu", "gelu"), ("quickgelu", "quick_gelu")])
def test_image_features_logits_and_gradients(parity, tmp_path, name, activation):
    fixture = Fixture(parity / f"open_clip_vit_{name}")
    assert fixture.config["quick_gelu"] is (activation == "quick_gelu")
    encoder, batch, projection = _built(fixture, activation, tmp_path)
    features = encoder.features(batch, "cls") @ projection
    fixture.close(features, "out.image_features")
    image, text = (torch.nn.functional.normalize(f, dim=1) for f in (features, fixture.io["out.text_features"]))
    logits = fixture.weights["logit_scale"].exp() * image @ text.T
    fixture.close(logits, "out.logits_per_image")
    labels = torch.arange(len(logits))
    loss = sum(torch.nn.functional.cross_entropy(each, labels) for each in (logits, logits.T)) / 2
    fixture.close(loss, "out.clip_loss")

    loss.backward()
    norms = {key: norm for key, norm in fixture.grad_norms().items() if key.startswith("visual.")}
    norms.pop("visual.proj")
    numbered = {k: torch.full_like(fixture.weights[k], i) for i, k in enumerate(norms, start=1)}
    numbers = {ours: int(value.max()) for ours, value in encoder_weights(numbered, encoder.spec).items()}
    theirs = dict(enumerate(norms, start=1))
    compared = {
        theirs[numbers[key]]: grad_norms(p.grad) for key, p in encoder.named_parameters() if numbers[key]
    }  # 0 = what ours adds
    assert compared == pytest.approx(norms, rel=1e-3)
    assert len(norms) == 2 * 12 + 7


def test_the_other_activation_loads_and_gives_other_features(parity, tmp_path):
    """Nothing in a file tells the activation: a card must say it."""
    fixture = Fixture(parity / "open_clip_vit_quickgelu")
    encoder, batch, projection = _built(fixture, "gelu", tmp_path)
    wrong = encoder.features(batch, "cls") @ projection
    difference = float((wrong - fixture.io["out.image_features"]).detach().abs().max())
    assert 1e-3 < difference < math.inf
