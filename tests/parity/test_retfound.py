"""RETFound's encoders: the MAE one against the release, the DINOv2 layout against timm's model of that name."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import CheckpointError
from core.pos_embed import resample_table
from tests.parity.fixture import Fixture, make_batch, make_input, vit_spec
from tests.parity.released import from_file

pytestmark = pytest.mark.parity


def test_features_and_logits_of_the_finetuned_encoder(parity, tmp_path):
    fixture = Fixture(parity / "retfound_encoder_gap")
    c = fixture.config
    entry = make_input("photograph", 3, (c["patch_size"],) * 2, (c["img_size"],) * 2)
    encoder = from_file(vit_spec(c, entry), fixture.weights, tmp_path, "retfound")
    batch = make_batch(fixture.io["in.imgs"], entry)
    fixture.close(encoder.stems["photograph"](batch), "mid.patch_embed")
    tokens = encoder(batch, levels=(1, 2)).levels
    for level in (1, 2):
        theirs = fixture.io[f"mid.blocks.{level - 1}"]
        fixture.close(torch.cat([tokens[level].prefix, tokens[level].value], dim=1), theirs)
    features = encoder.features(batch, "mean_then_norm")
    fixture.close(features[:, None], "out.features")
    # the release norms twice before its head; ours once, as MAE does
    twice = functional.linear(encoder.norm(features), fixture.weights["head.weight"], fixture.weights["head.bias"])
    fixture.close(twice, "out.logits")


@pytest.fixture(params=["gelu", "swiglu"])
def teacher(request):
    """A DINOv2 backbone as timm builds it, at a table of 5 x 5 for an image of 4 x 4 patches, and its released names."""
    from timm.layers import SwiGLUPacked

    torch.manual_seed(0)
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if request.param == "swiglu" else {}
    theirs = VisionTransformer(
        70, 14, embed_dim=48, depth=4, num_heads=4, num_classes=0, init_values=1e-5, global_pool="token", **gated
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = theirs.state_dict()
    released = {}
    for key, value in state.items():
        if request.param == "swiglu":
            key = key.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")
        released[key] = value.clone()
    return theirs.eval(), released, request.param


def _spec(edge, activation):
    entry = make_input("photograph", 3, (14, 14), (14 * edge,) * 2)
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=48,
        depth=4,
        heads=4,
        tables={"photograph": (edge, edge)},
        activation=activation,
        layer_scale=1e-5,
    )


def _training_file(state):
    """Put the backbone among what a training run holds beside it."""
    beside = {"dino_head.mlp.0.weight": torch.zeros(3, 48), "ibot_head.last_layer.weight_g": torch.ones(3, 1)}
    return {f"backbone.{key}": value for key, value in (state | {"mask_token": torch.zeros(1, 48)}).items()} | beside


@pytest.mark.parametrize("chunks", [False, True])
def test_dinov2_layout_equals_timm(teacher, tmp_path, chunks):
    theirs, state, activation = teacher
    if chunks:
        state = {
            key.replace("blocks.", f"blocks.{int(key.split('.')[1]) // 2}.") if "blocks" in key else key: value
            for key, value in state.items()
        }
        assert "blocks.1.3.norm1.weight" in state
    spec = _spec(4, activation)
    encoder = from_file(spec, _training_file(state), tmp_path, "retfound-dinov2", outer="teacher").eval()
    image = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        theirs.pos_embed = torch.nn.Parameter(resample_table(theirs.pos_embed, (5, 5), (4, 4)))
        theirs.patch_embed.img_size = (56, 56)
        expected = theirs.forward_features(image)
        tokens = encoder(make_batch(image, spec.contract.inputs[0]))
    torch.testing.assert_close(torch.cat([tokens.prefix, tokens.value], 1), expected, rtol=1e-4, atol=1e-5)


def test_a_dinov2_file_with_registers_is_not_taken_for_one_without(teacher, tmp_path):
    _, state, activation = teacher
    file = _training_file(state | {"register_tokens": torch.zeros(1, 4, 48)})
    with pytest.raises(CheckpointError, match=r"unexpected: backbone\.register_tokens\.$"):
        from_file(_spec(5, activation), file, tmp_path, "retfound-dinov2", outer="teacher")
