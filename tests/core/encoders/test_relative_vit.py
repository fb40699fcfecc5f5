"""The ViT with relative positions: dropped tokens, other spacings, class attention, groups, refused options."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.relative_vit import RelativeViTSpec
from core.errors import ConfigError
from core.plan import Plan, visible_index
from core.testing.samples import SCENE, VOLUME, ragged_batch

SPEC = RelativeViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=2, heads=2, extent=(4, 6))


def scattered(spec):
    torch.manual_seed(0)
    encoder = spec.build()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return encoder


@pytest.mark.parametrize("bias", ["shared", "per_block"])
@pytest.mark.parametrize("class_token", [True, False])
def test_left_out_tokens_equal_tokens_that_are_no_keys(bias, class_token):
    encoder = scattered(replace(SPEC, bias=bias, class_token=class_token, tables={"scene": (4, 6)}))
    batch, entry = encoder.prepare(ragged_batch(SCENE).take([0, 2]))
    see = torch.rand(2, 24, generator=torch.Generator().manual_seed(0)) > 0.4
    dropped = encoder(batch, Plan(see=see, hide=~see))
    valid = see.reshape(2, 1, 4, 6).repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(batch.valid)
    masked = encoder(replace(batch, valid=valid & batch.valid))
    index, ok = visible_index(see)
    kept = masked.value.gather(1, index[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(dropped.value[ok], kept[ok], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dropped.prefix, masked.prefix, rtol=1e-4, atol=1e-4)
    assert entry.name == "scene"


def test_another_spacing_gives_other_tokens():
    encoder = scattered(SPEC)
    batch, _ = encoder.prepare(ragged_batch(SCENE).take([0, 0]))
    nominal = encoder(batch).value
    apart = encoder(replace(batch, spacing=batch.spacing * torch.tensor([[1.0], [0.5]]))).value
    torch.testing.assert_close(apart[0], nominal[0], rtol=1e-5, atol=1e-5)
    assert float((apart[1] - nominal[1]).detach().abs().max()) > 1e-3


def test_class_attention_is_what_the_last_block_mixes():
    encoder = scattered(replace(SPEC, depth=1))
    batch, _ = encoder.prepare(ragged_batch(SCENE).take([0]))
    shares = encoder(batch, attention=True).attention
    read: list[torch.Tensor] = []
    encoder.blocks[0].proj.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    values: list[torch.Tensor] = []
    encoder.blocks[0].norm1.register_forward_hook(lambda *call: values.append(call[2]))
    encoder(batch)
    block = encoder.blocks[0]
    value = (values[0] @ block.qkv.weight[48:].T + block.v_bias).unflatten(2, (2, 12))
    own = 1.0 - shares.sum(2)
    whole = torch.cat([own[..., None], shares], dim=2)
    torch.testing.assert_close(torch.einsum("bhl,blhd->bhd", whole, value).flatten(1), read[0][:, 0])
    with pytest.raises(ConfigError, match="class token for attention"):
        replace(SPEC, class_token=False).build()(batch, attention=True)


def test_band_groups_share_the_bias_of_their_place():
    groups = (SCENE.bands[:3], SCENE.bands[3:])
    spec = replace(SPEC, contract=Contract(inputs=(replace(SCENE, groups=groups),)))
    encoder = scattered(spec)
    batch, entry = encoder.prepare(ragged_batch(SCENE))
    tokens = encoder(batch)
    assert tokens.value.shape == (4, 48, 24)
    assert bool(torch.isfinite(tokens.value).all())
    pairs = encoder._pairs(entry.grid(), None, (torch.zeros(1), torch.zeros(1)))[1:, 1:]
    assert torch.equal(pairs[:24, :24], pairs[24:, :24])


def test_a_volume_shares_the_tables_of_images():
    spec = replace(SPEC, contract=Contract(inputs=(SCENE, VOLUME)), extent=(4, 4, 6))
    encoder = spec.build()
    for entry in (SCENE, VOLUME):
        batch, _ = encoder.prepare(ragged_batch(entry))
        assert encoder.features(batch, "cls").shape == (4, 24)
    assert encoder.pos_bias.shape == (7 * 7 * 11 + 3, 2)


def test_the_last_norm_may_be_left_to_the_pooled_vector():
    encoder = scattered(replace(SPEC, norm_tokens=False))
    batch, _ = encoder.prepare(ragged_batch(SCENE).take([0]))
    tokens = encoder(batch, levels=(2,))
    assert torch.equal(tokens.value, tokens.levels[2].value)
    expected = encoder.norm(tokens.value.mean(1))
    torch.testing.assert_close(encoder.features(batch, "mean_then_norm"), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "width that the heads divide"),
        ({"depth": 0}, "at least one block"),
        ({"extent": (4, 4, 6)}, "extent of 2 axes.*: set --recipe.encoder.extent, to 4,6 for example"),
        ({"extent": (4, 5)}, r"at least the \(4, 6\) tokens of these inputs, got \(4, 5\)"),
        ({"tables": {"elsewhere": (4, 6)}}, r"got tables for \['elsewhere'\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        replace(SPEC, **options)


def test_the_extent_that_is_proposed_holds_inputs_of_either_rank():
    with pytest.raises(ConfigError, match=r"at least the \(4, 4, 6\) tokens .* to 4,4,6 for example"):
        replace(SPEC, contract=Contract(inputs=(SCENE, VOLUME)), extent=(4, 4, 4))
