"""Parameter groups: what decays, layer numbers, and the reference's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core.contract import Contract
from core.encoders.base import EncoderSpec
from core.encoders.convnet import ConvNetSpec
from core.encoders.relative_vit import RelativeViTSpec
from core.encoders.swin import SwinSpec
from core.encoders.swinv2 import SwinV2Spec
from core.engine.config import Optim
from core.engine.optim import decay_groups, decays, layer_groups, layer_of, make_optimizer, set_learning_rate
from core.testing.samples import SCENE

MATRIX, VECTOR = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
TOKEN = nn.Parameter(torch.ones(1, 1, 2))


@pytest.mark.parametrize(
    ("name", "parameter", "expected"),
    [
        ("blocks.0.mlp.fc1.weight", MATRIX, True),
        ("stems.photograph.weight", MATRIX, True),
        ("blocks.0.mlp.fc1.bias", VECTOR, False),
        ("heads.photograph.bias", MATRIX, False),
        ("norm.weight", VECTOR, False),
        ("encoder.class_token", TOKEN, False),
        ("predictor.mask_token", TOKEN, False),
        ("register_tokens", TOKEN, False),
        ("pos_embed", TOKEN, False),
        ("encoder.tables.photograph", TOKEN, False),
        ("tokenizer.weight", MATRIX, True),
    ],
)
def test_weight_decay_spares_vectors_tokens_and_positions(name: str, parameter: nn.Parameter, expected: bool) -> None:
    assert decays(name, parameter) is expected


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("cls_token", 0),
        ("class_token", 0),
        ("pos_embed", 0),
        ("tables.volume", 0),
        ("patch_embed.proj.weight", 0),
        ("stems.volume.weight", 0),
        ("backbone.blocks.0.norm1.weight", 1),
        ("blocks.11.attn.qkv.weight", 12),
        ("blocks.3.pos_bias", 4),
        ("blocks.3.merge.kernel.2d", 4),
        ("pos_bias", 0),
        ("stems.photograph.norm.weight", 0),
        ("backbone.merges.5.reductions.2.weight", 6),
        ("norm.weight", 13),
        ("fc_norm.weight", 13),
        ("head.weight", 13),
    ],
)
def test_layer_number(name: str, layer: int) -> None:
    assert layer_of(name, depth=12) == layer


def _staged_encoders() -> dict[str, EncoderSpec]:
    contract, depths = Contract(inputs=(SCENE,)), (1, 2)
    shape = {"contract": contract, "depths": depths}
    return {
        "swin": SwinSpec(**shape, width=8, heads=(1, 2), window=(4, 4)),
        "swinv2": SwinV2Spec(**shape, width=8, heads=(1, 2), window=(4, 4)),
        "convnet": ConvNetSpec(**shape, widths=(8, 8)),
        "relative_vit": RelativeViTSpec(contract=contract, width=8, depth=3, heads=1, extent=(4, 6)),
    }


@pytest.mark.parametrize("name", ["swin", "swinv2", "convnet", "relative_vit"])
def test_layers_of_every_encoder_go_from_its_stem_to_its_last_norm(name: str) -> None:
    encoder = _staged_encoders()[name].build()
    depth = encoder.spec.depth  # type: ignore[attr-defined]
    of = {parameter: layer_of(parameter, depth) for parameter, _ in encoder.named_parameters()}
    assert set(of.values()) == {0, 1, 2, 3, 4}
    assert {parameter.split(".")[0] for parameter, layer in of.items() if layer == depth + 1} == {"norm"}
    assert {parameter.split(".")[0] for parameter, layer in of.items() if layer == 0} <= {
        "stems",
        "class_token",
        "pos_bias",
    }
    merging = {layer for parameter, layer in of.items() if "merge" in parameter}
    assert merging == {"swin": {1}, "swinv2": {1}, "convnet": {2}, "relative_vit": set()}[name]


def test_groups_hold_every_trainable_parameter_once() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    named = [("stems.a.weight", MATRIX), ("norm.bias", VECTOR), ("tables.a", frozen), ("class_token", TOKEN)]
    for groups in (decay_groups(named, 0.1), layer_groups(named, 2, 0.5, 0.1)):
        assert sorted(name for group in groups for name in group["names"]) == [
            "class_token",
            "norm.bias",
            "stems.a.weight",
        ]
        assert {group["weight_decay"] for group in groups if MATRIX in set(group["params"])} == {0.1}
        assert {group["weight_decay"] for group in groups if VECTOR in set(group["params"])} == {0.0}


def test_learning_rate_is_scaled_per_group() -> None:
    groups = layer_groups(
        [("class_token", TOKEN), ("blocks.0.weight", MATRIX), ("head.weight", MATRIX)][:2], 1, 0.5, 0.0
    )
    optimizer = make_optimizer(groups, Optim(lr=1.0), torch.device("cpu"))
    set_learning_rate(optimizer, 0.8)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.4]


@pytest.mark.parity
def test_layer_groups_equal_the_reference(shared: Path) -> None:
    folder = shared / "parity/mae_layer_decay"
    facts = json.loads((folder / "meta.json").read_text())["config"]
    weights, stored = load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors")
    names = facts["parameter_order"]
    named = [(name, nn.Parameter(weights[name])) for name in names]
    groups = layer_groups(named, facts["depth"], facts["layer_decay"], facts["weight_decay"])
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert [layer_of(name, facts["depth"]) for name in names] == stored["out.layer_id"].tolist()
    assert torch.allclose(torch.tensor([scale[name] for name in names]).double(), stored["out.lr_scale"].double())
    assert torch.allclose(torch.tensor([decay[name] for name in names]).double(), stored["out.weight_decay"].double())
