"""Hierarchical encoders: spacing, padding, validity, merged hidden tokens, ranks that share blocks, refused options."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.swin import SwinSpec
from core.encoders.swinv2 import SwinV2Spec
from core.errors import ConfigError
from core.plan import Plan
from core.testing.encoder_contract import tiny_spec
from core.testing.samples import INPUTS, SCENE, VOLUME, ragged_batch
from tests.parity.fixture import make_batch, make_input

KINDS = ["swin", "swinv2"]


@pytest.fixture(params=KINDS)
def kind(request):
    torch.manual_seed(0)
    return request.param


def image_spec(kind, size=(16, 16), **changes):
    entry = make_input("image", 2, (2, 2), size)
    part = {"swin": SwinSpec, "swinv2": SwinV2Spec}[kind]
    options = {"contract": Contract(inputs=(entry,)), "width": 8, "depths": (2, 2), "heads": (2, 2), "window": (4, 4)}
    return part(**(options | changes))


def scattered(spec):
    """Fresh biases are too small to see."""
    encoder = spec.build()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return encoder


def test_volumes_and_images_share_the_blocks(kind):
    together = tiny_spec(kind, Contract(inputs=(SCENE, VOLUME))).build()
    used: list[int] = []
    for block in together.blocks:
        block.register_forward_hook(lambda module, *_: used.append(id(module)))
    for entry in (SCENE, VOLUME):
        used.clear()
        assert together.features(together.prepare(ragged_batch(entry))[0], "mean").shape == (4, 32)
        assert used == [id(block) for block in together.blocks]
    own = {name for name, _ in together.merges.named_parameters() if ".2." in name or ".3." in name}
    assert own == {name.replace(".2.", ".3.") for name in own} | {name.replace(".3.", ".2.") for name in own}


def test_an_image_is_one_plane_of_a_volume(kind):
    flat = scattered(tiny_spec(kind, Contract(inputs=(SCENE,))))
    both = scattered(tiny_spec(kind, Contract(inputs=(SCENE, VOLUME))))
    weights = both.state_dict()
    for name, value in flat.state_dict().items():
        if name.endswith("pos_bias"):
            weights[name].reshape(5, *value.shape)[2] = value  # a window of 3 planes: 5 offsets, 0 in the middle
        elif name.endswith("pos_mlp.0.weight"):
            weights[name][:, 1:] = value
        else:
            weights[name].copy_(value)
    batch, _ = flat.prepare(ragged_batch(SCENE))
    torch.testing.assert_close(both(batch).value, flat(batch).value)


@pytest.mark.parametrize("entry", [SCENE, VOLUME])
def test_another_spacing_gives_other_tokens_and_the_nominal_one_the_same(kind, entry):
    encoder = scattered(tiny_spec(kind, Contract(inputs=(entry,))))
    batch, _ = encoder.prepare(ragged_batch(entry).take([0, 0]))
    nominal = encoder(batch).value
    torch.testing.assert_close(nominal[0], nominal[1])
    apart = encoder(replace(batch, spacing=batch.spacing * torch.tensor([[1.0], [2.0]]))).value
    torch.testing.assert_close(apart[0], nominal[0], rtol=1e-5, atol=1e-5)
    assert float((apart[1] - nominal[1]).detach().abs().max()) > 1e-3


def test_invalid_tokens_are_no_keys_and_hold_zeros(kind):
    encoder = image_spec(kind, depths=(1, 1)).build()
    torch.nn.init.ones_(encoder.norm.bias)  # which makes something of zeros
    batch = make_batch(torch.randn(1, 2, 16, 16), encoder.contract.inputs[0])
    valid = torch.ones_like(batch.valid)
    valid[..., 6:, :] = False
    part, _ = encoder.prepare(replace(batch, valid=valid))
    tokens = encoder(part, levels=(1,))
    assert torch.equal(tokens.ok[0], torch.arange(16) < 8)
    assert bool((tokens.value[0, 8:] == 0).all())
    assert bool((tokens.levels[1].value[0, 24:] == 0).all())
    # the data end within a window: a picture of that part alone has smaller windows, and the same tokens
    upper, _ = encoder.prepare(make_batch(batch.image[..., :6, :], encoder.contract.inputs[0]))
    alone = encoder(upper, levels=(1,))
    torch.testing.assert_close(alone.levels[1].value, tokens.levels[1].value[:, :24])
    torch.testing.assert_close(alone.value, tokens.value[:, :8])


def test_a_grid_that_windows_do_not_divide_equals_the_larger_one_without_data(kind):
    encoder = image_spec(kind, size=(16, 16)).build()
    entry = encoder.contract.inputs[0]
    small = make_batch(torch.randn(1, 2, 16, 12), entry)
    image, valid = torch.full((1, 2, 16, 16), torch.nan), torch.zeros(1, 2, 16, 16, dtype=torch.bool)
    image[..., :12], valid[..., :12] = small.image, True
    padded, _ = encoder.prepare(replace(make_batch(image, entry), valid=valid))
    one = encoder(encoder.prepare(small)[0], levels=(1,)).levels[1].value.unflatten(1, (8, 6))
    two = encoder(padded, levels=(1,)).levels[1].value.unflatten(1, (8, 8))
    torch.testing.assert_close(one, two[:, :, :6])


def test_a_merged_token_is_hidden_where_none_of_its_own_is_seen(kind):
    encoder = image_spec(kind).build()
    batch, entry = encoder.prepare(make_batch(torch.randn(1, 2, 16, 16), encoder.contract.inputs[0]))
    hide = torch.zeros(8, 8, dtype=torch.bool)
    hide[:2, :2] = True  # one merged token whole
    hide[4, 4] = True  # a quarter of another
    plan = Plan(see=~hide.flatten()[None], hide=hide.flatten()[None])
    token = torch.full((1, 1, encoder.level_width(2)), 7.0)
    replaced = (encoder(batch, plan, mask_token=token, stage=2, levels=(2,)).levels[2].value == 7.0).all(-1)
    assert replaced[0].nonzero().flatten().tolist() == [0]
    assert entry.name == "image"


def test_a_shift_reaches_the_neighbouring_window(kind):
    for depth, reach in ((1, 8), (2, 16)):
        encoder = image_spec(kind, size=(32, 32), depths=(depth,), heads=(2,)).build()
        batch = make_batch(torch.randn(1, 2, 32, 32), encoder.contract.inputs[0])
        image = batch.image.clone().requires_grad_()
        encoder(replace(batch, image=image)).value[0, 3 * 16 + 3, 0].backward()
        reached = image.grad[0].abs().amax(0) > 0
        assert bool(reached[:reach, :reach].all())
        assert int(reached.sum()) == reach * reach


def test_extra_norms_follow_their_period_within_each_stage():
    encoder = image_spec("swinv2", depths=(3, 4), extra_norm_period=2).build()
    assert [block.norm3 is not None for block in encoder.blocks] == [False, True, False, False, True, False, True]


def test_the_sharpest_attention_is_a_hundredfold():
    encoder = image_spec("swinv2").build()
    batch = make_batch(torch.randn(1, 2, 16, 16), encoder.contract.inputs[0])
    found = []
    for sharpness in (100.0, 1e4, 50.0):
        for block in encoder.blocks:
            torch.nn.init.constant_(block.attn.logit_scale, math.log(sharpness))
        found.append(encoder(batch).value)
    torch.testing.assert_close(found[0], found[1])
    assert float((found[0] - found[2]).detach().abs().max()) > 1e-3


def test_offsets_are_measured_by_the_window_or_by_that_of_pretraining():
    entry = make_input("image", 2, (2, 2), (16, 16))
    offsets = (torch.tensor([[-3.0, 0.0, 3.0]]), torch.zeros(1, 1))
    encoder = image_spec("swinv2").build()
    whole = math.log2(1 + 8) / 3  # an offset of the window less one is 8
    for stage in (0, 1):
        assert encoder.positions(stage, entry, offsets)[0][0, :, 0].tolist() == pytest.approx([-whole, 0.0, whole])
    rescaled = image_spec("swinv2", pretrained_windows=((7, 7), (4, 4))).build()
    assert float(rescaled.positions(0, entry, offsets)[0][0, 2, 0]) == pytest.approx(math.log2(1 + 4) / 3)
    small = image_spec("swinv2", window=(8, 8)).build()  # the second stage has 4 x 4 tokens: one window of 4
    assert float(small.positions(1, entry, offsets)[0][0, 2, 0]) == pytest.approx(whole)


def test_drop_path_acts_in_training_alone(kind):
    encoder = image_spec(kind, drop_path=0.5).build()
    batch = make_batch(torch.randn(4, 2, 16, 16), encoder.contract.inputs[0])
    assert not torch.equal(encoder.train()(batch).value, encoder(batch).value)
    assert torch.equal(encoder.eval()(batch).value, encoder(batch).value)


def test_tokens_are_the_same_under_autocast_but_for_rounding(kind):
    encoder = image_spec(kind).build()
    batch = make_batch(torch.randn(2, 2, 16, 16), encoder.contract.inputs[0])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(batch).value
    torch.testing.assert_close(rounded.float(), encoder(batch).value, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (2,)}, "blocks and heads for each stage.*--recipe.encoder.depths=2,2,6,2"),
        ({"depths": (2, 0)}, "blocks and heads for each stage"),
        ({"heads": (2, 3)}, "heads that divide the widths.* --recipe.encoder.heads or"),
        ({"window": (4, 4, 4)}, "window of 2 axes.*: set --recipe.encoder.window=4,4 for example"),
        ({"window": (0, 4)}, "at least 1 token"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        image_spec(kind, **options)


def test_options_of_the_second_version_are_checked():
    with pytest.raises(ConfigError, match="each of 2 stages"):
        image_spec("swinv2", pretrained_windows=((8, 8),))
    with pytest.raises(
        ConfigError, match=r"window of 2 axes.*: set --recipe.encoder.pretrained_windows=\[\[8,8\],\[8,8\]\] "
    ):
        image_spec("swinv2", pretrained_windows=((8,), (8,)))
    with pytest.raises(ConfigError, match="0 or more"):
        image_spec("swinv2", extra_norm_period=-1)


def test_the_window_that_is_proposed_has_the_axes_of_the_largest_input(kind):
    with pytest.raises(ConfigError, match=r"window of 3 axes .* got \(8, 8\): set --recipe.encoder.window=8,8,8 "):
        replace(tiny_spec(kind, Contract(inputs=(SCENE, VOLUME))), window=(8, 8))


def test_band_groups_are_refused(kind):
    grouped = replace(SCENE, groups=(SCENE.bands[:3], SCENE.bands[3:]))
    with pytest.raises(ConfigError, match="input 'scene': expected no band groups"):
        tiny_spec(kind, Contract(inputs=(grouped,)))


def test_depth_counts_all_blocks(kind):
    spec = tiny_spec(kind, Contract(inputs=tuple(INPUTS.values())))
    assert spec.depth == len(spec.build().blocks) == 4
