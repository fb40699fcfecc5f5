"""What released ViTs do otherwise, each an option: all of them sit the exam together, and each changes what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.engine.optim import layer_of
from core.errors import ConfigError, ShapeError
from core.pos_embed import PositionRule
from core.testing.encoder_contract import EncoderContract
from core.testing.samples import INPUTS, SCENE, ragged_batch
from tests.parity.fixture import make_batch, make_input

ALL = Contract(inputs=tuple(INPUTS.values()))


def _spec(contract, **options):
    return ViTSpec(contract=contract, width=32, depth=2, heads=2, **options)


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return lambda contract: _spec(
        contract,
        activation="swiglu",
        layer_scale=0.1,
        norm_first=True,
        norm_eps=1e-5,
        positions=PositionRule(count="crop", unit=0.5, shares=(6, 6, 4)),
    ).build()


@pytest.fixture
def encoder(fresh):
    return fresh(ALL)


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestEveryOptionAtOnce(EncoderContract):
    pass


@pytest.mark.parametrize(
    "option", [{"activation": "quick_gelu"}, {"norm_first": True}, {"norm_eps": 1e-2}, {"layer_scale": 0.5}]
)
def test_each_option_alone_changes_what_the_encoder_gives(option):
    contract = Contract(inputs=(SCENE,))
    torch.manual_seed(0)
    plain = _spec(contract).build()
    other = _spec(contract, **option).build()
    assert not other.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    batch, _ = plain.prepare(ragged_batch(SCENE))
    before, after = plain.features(batch, "mean"), other.features(batch, "mean")
    assert float((before - after).detach().abs().max()) > 1e-4


def test_the_first_norm_is_of_the_first_layer_where_rates_differ_by_layer():
    names = [name for name, _ in _spec(Contract(inputs=(SCENE,)), norm_first=True).build().named_parameters()]
    assert {name: layer_of(name, 2) for name in names if "norm" in name and "blocks" not in name} == {
        "stem.norm.weight": 0,
        "stem.norm.bias": 0,
        "norm.weight": 3,
        "norm.bias": 3,
    }


def test_swiglu_counts_gate_and_value():
    block = _spec(Contract(inputs=(SCENE,)), activation="swiglu", mlp_ratio=6.0).build().blocks[0]
    assert block.mlp.fc1.weight.shape == (192, 32)
    assert block.mlp.fc2.weight.shape == (32, 96)


def _encoded(rule, spacing, origin):
    entry = replace(make_input("scene", 2, (4, 4), (16, 16)), unit="m", spacing=(10.0, 10.0))
    torch.manual_seed(0)
    encoder = _spec(Contract(inputs=(entry,)), positions=rule).build()
    batch = make_batch(torch.randn(1, 2, 16, 16), entry)
    batch = replace(batch, unit="m", spacing=torch.full((1, 2), spacing), origin=torch.full((1, 2), origin))
    return encoder(batch).value


@pytest.mark.parametrize(
    ("count", "by_spacing", "by_origin"), [("image", True, True), ("crop", True, False), ("index", False, False)]
)
def test_rules_read_spacing_and_origin_or_do_not(count, by_spacing, by_origin):
    rule = PositionRule(count=count)
    plain = _encoded(rule, 10.0, 0.0)
    assert torch.equal(plain, _encoded(rule, 20.0, 0.0)) is not by_spacing
    assert torch.equal(plain, _encoded(rule, 10.0, 130.0)) is not by_origin


def test_the_unit_of_length_is_another_spacing():
    """At 2.5 m a unit of 1 m counts 2.5 patches per patch, as a nominal spacing of 10 m does at 25 m."""
    metres = _encoded(PositionRule(count="crop", unit=1.0), 2.5, 0.0)
    assert torch.equal(metres, _encoded(PositionRule(count="crop"), 25.0, 0.0))
    assert not torch.equal(metres, _encoded(PositionRule(count="crop"), 2.5, 0.0))


def test_options_that_cannot_be_are_refused():
    contract = Contract(inputs=(SCENE,))
    with pytest.raises(ConfigError, match="none where patches are counted, got 1.0 with count 'index'"):
        PositionRule(count="index", unit=1.0)
    with pytest.raises(ConfigError, match=r"a positive share for each of x, y and perhaps z, got \(6,\)"):
        PositionRule(shares=(6,))
    with pytest.raises(ConfigError, match="an even number of channels for the band groups, got 3"):
        PositionRule(group_channels=3)
    with pytest.raises(ShapeError, match="an even width of at least 4 for 2D positions, got 0"):
        _spec(contract, positions=PositionRule(group_channels=32))
    with pytest.raises(ConfigError, match=r"positive norm_eps and layer_scale, got 1e-06 and 0\.0"):
        _spec(contract, layer_scale=0.0)
    with pytest.raises(ShapeError, match=r"\(5, 6\) shares out evenly to 2 axes, got 32"):
        _spec(contract, positions=PositionRule(shares=(5, 6)))
    with pytest.raises(ShapeError, match=r"\(1, 1\) shares out evenly to 3 axes, got 32"):
        _spec(Contract(inputs=(INPUTS["volume"],)), positions=PositionRule(shares=(1, 1)))
