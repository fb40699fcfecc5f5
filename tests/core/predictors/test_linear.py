"""The linear predictor: pixel shuffle of any rank, dropped tokens, groups, and encoders whose tokens do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.contract import Contract
from core.encoders.base import Tokens
from core.encoders.swin import SwinSpec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError, ShapeError
from core.layouts.simmim import tokens_first
from core.plan import Plan
from core.predictors.linear import LinearSpec
from core.shapes import Grid, unpatchify
from core.testing.encoder_contract import tiny_spec
from core.testing.samples import CUBE, INPUTS, SCENE, VOLUME, ragged_batch
from tests.parity.fixture import make_batch, make_input


def everything(grid: Grid, count: int = 1) -> Plan:
    see = torch.ones(count, grid.num_tokens, dtype=torch.bool)
    return Plan(see=see, hide=~see)


def test_it_equals_a_convolution_and_a_pixel_shuffle():
    torch.manual_seed(0)
    entry = make_input("image", 3, (2, 2), (16, 16))
    spec = SwinSpec(contract=Contract(inputs=(entry,)), width=8, depths=(1, 1, 1), heads=(1, 1, 1), window=(4, 4))
    encoder = spec.build()
    predictor = LinearSpec().build(encoder, {"image": 12})
    weight, bias = torch.randn(3 * 64, 32), torch.randn(3 * 64)
    head = predictor.heads["image"][0]
    head.load_state_dict({"weight": tokens_first(weight, entry), "bias": tokens_first(bias, entry)})
    batch = make_batch(torch.randn(2, 3, 16, 16), entry)
    tokens = encoder(batch)
    found = unpatchify(predictor(tokens, everything(entry.grid(), 2), batch), entry.grid())
    image = tokens.value.transpose(1, 2).unflatten(2, (2, 2))
    expected = functional.pixel_shuffle(functional.conv2d(image, weight[..., None, None], bias), 8)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("entry", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("kind", ["swin", "vit", "convnet"])
def test_each_token_predicts_the_tokens_below_it_alone(entry, kind):
    encoder = tiny_spec(kind, Contract(inputs=(entry,))).build()
    grid = entry.grid()
    coarse = encoder.level_grid(encoder.num_levels, grid)
    predictor = LinearSpec().build(encoder, {entry.name: 5})
    value = torch.randn(1, coarse.num_tokens, encoder.num_features, requires_grad=True)
    tokens = Tokens(value, None, value[:, :0], coarse, True)
    found = predictor(tokens, everything(grid), ragged_batch(entry).take([0]))
    assert found.shape == (1, grid.num_tokens, 5)
    place = torch.stack(torch.meshgrid(*map(torch.arange, grid.tokens), indexing="ij"), -1).flatten(0, -2)
    ratio = torch.tensor([f // c for f, c in zip(grid.tokens, coarse.tokens, strict=True)])
    chosen = grid.num_tokens // 2 + 1
    found[0, chosen].sum().backward()
    above = torch.stack(torch.meshgrid(*map(torch.arange, coarse.tokens), indexing="ij"), -1).flatten(0, -2)
    reached = value.grad[0].abs().amax(1) > 0
    assert above[reached].tolist() == [(place[chosen] // ratio).tolist()]


@pytest.mark.parametrize("groups", [(), (SCENE.bands[:4], SCENE.bands[4:])], ids=["plain", "groups"])
def test_seen_tokens_alone_are_predicted_and_the_rest_is_zero(groups):
    entry = replace(SCENE, groups=groups)
    encoder = ViTSpec(contract=Contract(inputs=(entry,)), width=24, depth=1, heads=2).build()
    predictor = LinearSpec().build(encoder, {"scene": 7})
    for head in predictor.heads["scene"]:
        torch.nn.init.ones_(head.bias)
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    grid = entry.grid()
    see = torch.rand(4, grid.num_tokens, generator=torch.Generator().manual_seed(0)) > 0.6
    tokens = encoder(batch, Plan(see=see, hide=~see))
    found = predictor(tokens, Plan(see=see, hide=~see), batch)
    assert bool((found[~see] == 0).all())
    for sample in range(4):
        places = see[sample].nonzero().flatten()
        for slot, place in enumerate(places.tolist()):
            head = predictor.heads["scene"][place // grid.num_places]
            torch.testing.assert_close(found[sample, place], head(tokens.value[sample, slot]))
    assert len(predictor.heads["scene"]) == max(len(groups), 1)


def test_tokens_that_do_not_cover_whole_numbers_are_refused():
    entry = make_input("image", 1, (2, 2), (10, 16))
    spec = SwinSpec(contract=Contract(inputs=(entry,)), width=8, depths=(1, 1), heads=(1, 1), window=(4, 4))
    with pytest.raises(ConfigError, match=r"input 'image': expected an encoder whose tokens cover whole numbers"):
        LinearSpec().build(spec.build(), {"image": 4})


def test_another_image_size_serves_where_the_ratio_stays():
    entry = make_input("image", 1, (2, 2), (16, 16))
    spec = SwinSpec(contract=Contract(inputs=(entry,)), width=8, depths=(1, 1), heads=(1, 1), window=(4, 4))
    encoder = spec.build()
    predictor = LinearSpec().build(encoder, {"image": 4})
    for size, fits in (((24, 16), True), ((10, 16), False)):
        batch = make_batch(torch.randn(1, 1, *size), entry)
        tokens, plan = encoder(batch), everything(entry.grid(size))
        if fits:
            assert predictor(tokens, plan, batch).shape == (1, 96, 4)
        else:
            with pytest.raises(ShapeError, match=r"merges \(2, 2\) at a time"):
                predictor(tokens, plan, batch)


def test_thick_slices_keep_their_own_ratio():
    thin = replace(VOLUME, size=(2, 32, 32))  # one token of depth, which no merging shrinks
    encoder = tiny_spec("swinv2", Contract(inputs=(thin,))).build()
    predictor = LinearSpec().build(encoder, {"volume": 3})
    assert predictor.ratios == {"volume": (1, 2, 2)}


def test_it_reads_no_inner_levels():
    assert LinearSpec().levels(12) == ()
    assert CUBE.grid().num_tokens == 16
