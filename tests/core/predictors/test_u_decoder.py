"""The U-decoder: hidden places are filled at every stage, values lie voxel by voxel, unfit encoders are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.convnet import ConvNetSpec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.random import Random
from core.plan import Plan
from core.predictors.u_decoder import UDecoderSpec
from core.shapes import patchify, unpatchify
from core.testing.samples import SCENE, VOLUME, ragged_batch

BOTH = pytest.mark.parametrize("entry", [SCENE, VOLUME], ids=["2d", "3d"])


def built(entry, values=None, **changes):
    torch.manual_seed(0)
    contract = Contract(inputs=(entry,))
    encoder = ConvNetSpec(contract=contract, widths=(8, 12, 16), depths=(1, 1, 1), kernel_2d=3, kernel_3d=3).build()
    values = values or len(entry.bands) * entry.grid().voxels
    decoder = UDecoderSpec(width=16, **changes).build(encoder, {entry.name: values})
    batch, _ = encoder.prepare(ragged_batch(entry))
    plan = Random(ratio=0.6)(batch, entry.grid(), batch.rng)
    return encoder, decoder, batch, plan


@BOTH
def test_each_place_of_the_finest_stage_predicts_its_own_voxels(entry):
    encoder, decoder, batch, plan = built(entry)
    prediction = decoder(encoder(batch, plan, levels=(1, 2)), plan, batch)
    fine = encoder.level_grid(1, entry.grid())
    block = [slice(t // 2 * p, (t // 2 + 1) * p) for t, p in zip(fine.tokens, fine.patch, strict=True)]
    changed, head = unpatchify(prediction.detach(), entry.grid()).clone(), decoder.heads[entry.name]
    with torch.no_grad():
        head.bias += torch.arange(float(len(head.bias)))
    again = unpatchify(decoder(encoder(batch, plan, levels=(1, 2)), plan, batch).detach(), entry.grid())
    ramp = torch.arange(float(len(head.bias))).reshape(len(entry.bands), *fine.patch)
    for sample in range(4):
        added = (again - changed)[sample][(slice(None), *block)]
        torch.testing.assert_close(added, ramp, rtol=1e-4, atol=1e-4)


@BOTH
def test_voxels_within_a_hidden_token_differ_by_more_than_their_place_in_the_finest_cell(entry):
    encoder, decoder, batch, plan = built(entry)
    prediction = decoder(encoder(batch, plan, levels=(1, 2)), plan, batch).detach()
    cells = patchify(unpatchify(prediction, entry.grid()), encoder.level_grid(1, entry.grid()).patch)
    first = unpatchify(cells[:1], encoder.level_grid(1, entry.grid()))
    tokens = patchify(first, entry.grid().patch)[0, plan.hide[0]]
    per_band = tokens.unflatten(1, (len(entry.bands), *entry.patch))
    corners = per_band[(slice(None), 0, *(slice(None, None, s) for s in encoder.level_grid(1, entry.grid()).patch))]
    assert (
        float(corners.flatten(1).std(1).min()) > 1e-3
    )  # the first voxel of each cell: only context can tell them apart


@BOTH
def test_hidden_places_are_filled_at_every_stage_and_missing_ones_are_not(entry):
    encoder, decoder, batch, plan = built(entry)
    tokens = encoder(batch, plan, levels=(1, 2))
    before = decoder(tokens, plan, batch).detach()
    for name in ("0", "1", "2"):
        with torch.no_grad():
            decoder.mask_tokens[name] += 3.0 * torch.randn(decoder.mask_tokens[name].shape)
        after = decoder(tokens, plan, batch).detach()
        assert float((after - before)[plan.hide].abs().amax(1).min()) > 1e-3
        assert torch.equal(after[3], before[3])  # the sample without data
        before = after


@BOTH
def test_missing_data_is_as_the_end_of_the_image(entry):
    encoder, decoder, batch, _ = built(entry)
    half = entry.size[-1] // 2
    small = replace(batch.take([0]), image=batch.image[:1, ..., :half], valid=batch.valid[:1, ..., :half])
    valid = batch.valid[:1].clone()
    valid[..., half:] = False
    large = replace(batch.take([0]), valid=valid).normalised()
    plan, tokens = Random(ratio=0.6)(small, entry.grid(small.size), small.rng), entry.grid().tokens
    ends = [torch.zeros(1, *tokens, dtype=torch.bool) for _ in range(2)]
    for whole, part in zip(ends, (plan.see, plan.hide), strict=True):
        whole[..., : tokens[-1] // 2] = part.reshape(1, *tokens[:-1], -1)
    wide = Plan(see=ends[0].flatten(1), hide=ends[1].flatten(1))
    expected = decoder(encoder(small, plan, levels=(1, 2)), plan, small)
    found = decoder(encoder(large, wide, levels=(1, 2)), wide, large)
    known = wide.see | wide.hide
    torch.testing.assert_close(found[known], expected[0], rtol=1e-3, atol=1e-4)
    assert float(found[~known].detach().std(0).max()) == 0.0


@BOTH
def test_what_the_encoder_made_of_hidden_and_missing_tokens_is_not_read(entry):
    encoder, decoder, batch, plan = built(entry)
    tokens = encoder(batch, plan, mask_token=torch.ones(1, 1, 8), levels=(1, 2))
    other = replace(tokens, value=torch.where(plan.see[..., None], tokens.value, 1e3))
    assert torch.equal(decoder(other, plan, batch), decoder(tokens, plan, batch))


def test_tokens_of_an_encoder_that_drops_go_back_to_their_places():
    torch.manual_seed(0)
    encoder = ViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=2, heads=2).build().eval()
    decoder = UDecoderSpec(width=16).build(encoder, {"scene": 384}).eval()
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    see = torch.zeros(4, 24, dtype=torch.bool)
    see[0, 7] = True
    plan = Plan(see=see, hide=~see)
    image = batch.image.clone().requires_grad_()
    own = replace(batch, image=image)
    prediction = decoder(encoder(own, plan, levels=(1,)), plan, own)[0]
    reached = torch.stack([torch.autograd.grad(p.sum(), image, retain_graph=True)[0].abs().sum() for p in prediction])
    near = torch.zeros(4, 6, dtype=torch.bool)
    near[0:4, 0:4] = True  # token 7 is at row 1, column 1, and two convolutions of 3 reach two tokens
    assert torch.equal(reached > 0.0, near.flatten())


def test_merging_encoders_are_read_on_the_way_up_and_filled_at_the_mask_s_own_grid():
    torch.manual_seed(0)
    spec = SwinV2Spec(contract=Contract(inputs=(SCENE,)), width=12, depths=(1, 1), heads=(2, 2), window=(2, 2))
    encoder = spec.build().eval()
    decoder = UDecoderSpec(width=16).build(encoder, {"scene": 384})
    assert list(decoder.mask_tokens) == ["1"]
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    plan = Random(ratio=0.6)(batch, SCENE.grid(), batch.rng)
    tokens = encoder(batch, plan, mask_token=torch.ones(1, 1, 12), levels=(1,))
    assert tokens.grid.tokens == (2, 3)
    prediction = decoder(tokens, plan, batch)
    assert prediction.shape == (4, 24, 384)
    coarse = replace(tokens, value=tokens.value + 1.0)
    assert not torch.equal(decoder(coarse, plan, batch)[plan.hide], prediction[plan.hide])


def test_values_that_are_no_voxels_come_from_all_places_of_a_token():
    encoder, decoder, batch, plan = built(VOLUME, values=7)
    assert decoder.heads["volume"].weight.shape == (7, 4 * 2 * 4 * 4)
    assert decoder(encoder(batch, plan, levels=(1, 2)), plan, batch).shape == (4, VOLUME.grid().num_tokens, 7)


def test_named_stages_only_are_read():
    encoder, decoder, batch, plan = built(SCENE, stages=(1,))
    tokens = encoder(batch, plan, levels=(1,))
    assert decoder(tokens, plan, batch).shape == (4, 24, 384)
    assert UDecoderSpec(width=16, stages=(3, 1)).levels(4) == (1, 3)
    assert UDecoderSpec(width=16).levels(4) == (1, 2, 3)


def test_what_does_not_suit_is_refused_with_a_sentence():
    encoder = built(SCENE)[0]
    with pytest.raises(ConfigError, match="halved 2 times"):
        UDecoderSpec(width=10).build(encoder, {"scene": 384})
    with pytest.raises(ConfigError, match="below its last, 3"):
        UDecoderSpec(width=16, stages=(3,)).build(encoder, {"scene": 384})
    with pytest.raises(ConfigError, match="different stages from 1 on"):
        UDecoderSpec(width=16, stages=(1, 1))
    entry = replace(SCENE, size=(24, 48))
    odd = SwinV2Spec(contract=Contract(inputs=(entry,)), width=12, depths=(1, 1), heads=(2, 2), window=(2, 2))
    with pytest.raises(ConfigError, match="grids nest"):
        UDecoderSpec(width=16).build(odd.build(), {"scene": 384})
    deep = SwinV2Spec(contract=Contract(inputs=(SCENE,)), width=12, depths=(1, 1, 1), heads=(2, 2, 2), window=(2, 2))
    with pytest.raises(ConfigError, match="name a finer stage"):
        UDecoderSpec(width=16, stages=(2,)).build(deep.build(), {"scene": 384})
    shallow = ViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=1, heads=2).build()
    with pytest.raises(ConfigError, match="inner stages below its last, 1"):
        UDecoderSpec(width=16).build(shallow, {"scene": 384})
