"""Prithvi's layout against modules of torch that were written from its description: frames, places, one file for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.layouts.prithvi import encoder_keys, encoder_weights
from core.pos_embed import PositionRule, grid_positions
from core.shapes import Grid
from tests.parity.fixture import make_batch, make_input, placed
from tests.parity.released import from_file

WIDTH, DEPTH, BANDS, PATCH = 48, 2, 6, 8


@pytest.fixture
def state():
    """Weights under their released names, of a normal distribution."""
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, BANDS, 1, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for n in range(DEPTH):
        for name, (rows, columns) in {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items():
            shapes |= {f"blocks.{n}.{name}.weight": (rows, columns), f"blocks.{n}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{name}.weight": (WIDTH,), f"blocks.{n}.{name}.bias": (WIDTH,)}
    return {key: torch.randn(shape, generator=draw) * 0.2 for key, shape in shapes.items()}


@pytest.fixture
def spec():
    scene = make_input("scene", BANDS, (PATCH, PATCH), (32, 32))
    series = make_input("series", BANDS, (1, PATCH, PATCH), (4, 32, 32))
    return ViTSpec(
        contract=Contract(inputs=(scene, series)),
        width=WIDTH,
        depth=DEPTH,
        heads=4,
        positions=PositionRule(count="index", shares=(6, 6, 4)),
    )


@pytest.fixture
def encoder(spec, state):
    assert encoder_keys(spec, state) == set(state)
    encoder = spec.build().eval()
    placed(encoder, encoder_weights(state, spec))
    return encoder


@pytest.mark.parametrize(
    ("card", "prefix", "beside"),
    [
        ("prithvi-eo-1.0", "", ("pos_embed", "mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.bias")),
        ("prithvi", "encoder.", ("encoder.pos_embed", "decoder.mask_token", "decoder.decoder_embed.weight")),
        (
            "prithvi-eo-2.0-300m-tl",
            "encoder.",
            ("encoder.temporal_embed_enc.scale", "decoder.location_embed_dec.scale"),
        ),
        ("prithvi", "_timm_module.", ("_timm_module.pos_embed",)),
    ],
)
def test_every_way_the_files_are_written_gives_the_same_encoder(encoder, spec, state, tmp_path, card, prefix, beside):
    file = {f"{prefix}{key}": value for key, value in state.items()} | {key: torch.zeros(1) for key in beside}
    loaded = from_file(spec, file, tmp_path, card, outer=None).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in encoder.state_dict().items())


def _places(frames, rows, columns):
    """Write down their positions: 6/16 of the channels for the column, 6/16 for the row, 4/16 for the frame."""

    def code(index, width):
        angle = index / 10000 ** (np.arange(width // 2) / (width // 2))
        return np.concatenate([np.sin(angle), np.cos(angle)])

    return torch.tensor(
        np.array(
            [
                np.concatenate([code(x, WIDTH * 6 // 16), code(y, WIDTH * 6 // 16), code(t, WIDTH * 4 // 16)])
                for t in range(frames)
                for y in range(rows)
                for x in range(columns)
            ]
        ),
        dtype=torch.float32,
    )


def _reference(state, image):
    """Encode (B, C, T, Y, X) by torch's own convolution and transformer layers."""
    kernel = state["patch_embed.proj.weight"]
    tokens = nn.functional.conv3d(image, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[2:])
    tokens = tokens.flatten(2).transpose(1, 2) + _places(*tokens.shape[2:])
    tokens = torch.cat([state["cls_token"].expand(len(image), -1, -1), tokens], dim=1)
    for n in range(DEPTH):
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        names = {
            "self_attn.in_proj_": "attn.qkv.",
            "self_attn.out_proj.": "attn.proj.",
            "linear1.": "mlp.fc1.",
            "linear2.": "mlp.fc2.",
            "norm1.": "norm1.",
            "norm2.": "norm2.",
        }
        own = {
            f"{ours}{part}": state[f"blocks.{n}.{theirs}{part}"]
            for ours, theirs in names.items()
            for part in ("weight", "bias")
        }
        layer.load_state_dict(own)
        tokens = layer.train()(tokens)  # not torch's shortcut for evaluation
    return nn.functional.layer_norm(tokens, (WIDTH,), state["norm.weight"], state["norm.bias"], 1e-6)


@pytest.mark.parametrize("frames", [1, 3, 4])
def test_one_file_serves_any_number_of_frames(encoder, state, frames):
    image = torch.randn(2, BANDS, frames, 32, 16)
    expected = _reference(state, image)
    tokens = encoder(make_batch(image, encoder.contract.inputs[1]))
    torch.testing.assert_close(torch.cat([tokens.prefix, tokens.value], 1), expected, rtol=1e-4, atol=1e-5)


def test_a_scene_is_a_series_of_one_frame(encoder):
    image = torch.randn(2, BANDS, 32, 32)
    scene, series = encoder.contract.inputs
    flat = encoder(make_batch(image, scene))
    solid = encoder(make_batch(image[:, :, None], series))
    torch.testing.assert_close(flat.value, solid.value)
    torch.testing.assert_close(flat.prefix, solid.prefix)
    plain = grid_positions(Grid((2, 3), (1, 1)), 48, shares=(6, 6, 4))
    torch.testing.assert_close(plain[0], _places(1, 2, 3))


def test_the_file_is_read_whatever_the_spacing(encoder):
    scene = encoder.contract.inputs[0]
    batch = make_batch(torch.randn(1, BANDS, 32, 32), scene)
    coarse = make_batch(batch.image, scene)
    coarse.spacing.mul_(3.0)
    assert torch.equal(encoder(batch).value, encoder(coarse).value)
