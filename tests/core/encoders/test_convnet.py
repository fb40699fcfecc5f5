"""Sparse convolution for every rank: equal to masking by hand, equal to ConvNeXt where nothing is hidden, refused inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timm.models.convnext import ConvNeXt
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from core.contract import Contract
from core.encoders._masked_conv import Merge, at_grid
from core.encoders.convnet import ConvNetSpec, stage_strides
from core.engine.optim import layer_of
from core.errors import ConfigError, ShapeError
from core.maskers.random import Random
from core.shapes import Grid, patchify
from core.testing.samples import CUBE, INPUTS, SCENE, VOLUME, grouped, ragged_batch
from tests.parity.fixture import make_batch, make_input

BOTH = pytest.mark.parametrize("entry", [SCENE, VOLUME], ids=["2d", "3d"])


def spec(*entries, **changes) -> ConvNetSpec:
    sizes = {"widths": (8, 12, 16), "depths": (1, 2, 1), "kernel_2d": 5, "kernel_3d": 3} | changes
    return ConvNetSpec(contract=Contract(inputs=entries or tuple(INPUTS.values())), **sizes)


def planned(encoder, entry, ratio=0.6):
    batch, _ = encoder.prepare(ragged_batch(entry))
    return batch, Random(ratio=ratio)(batch, entry.grid(), batch.rng)


def test_equals_the_reference_convnext_where_nothing_is_hidden():
    torch.manual_seed(0)
    reference = ConvNeXt(in_chans=3, num_classes=0, depths=(1, 2, 2, 1), dims=(8, 16, 24, 32), ls_init_value=0.3).eval()
    entry = make_input("photograph", 3, (32, 32), (64, 96))
    ours = spec(entry, widths=(8, 16, 24, 32), depths=(1, 2, 2, 1), kernel_2d=7).build().eval()
    theirs, renamed, number = reference.state_dict(), {}, 0
    for part, at in (("embed.weight", "0.weight"), ("embed.bias", "0.bias"), ("norm.weight", "1.weight")):
        renamed[f"stems.photograph.{part}"] = theirs[f"stem.{at}"]
    renamed["stems.photograph.norm.bias"] = theirs["stem.1.bias"]
    renamed["stems.photograph.embed.nodata"] = ours.stems["photograph"].embed.nodata
    names = {"depthwise.2d": "conv_dw", "norm": "norm", "widen": "mlp.fc1", "narrow": "mlp.fc2"}
    for stage, depth in enumerate((1, 2, 2, 1)):
        if stage:
            for part, at in (("norm.weight", "0.weight"), ("norm.bias", "0.bias"), ("bias", "1.bias")):
                renamed[f"blocks.{number}.merge.{part}"] = theirs[f"stages.{stage}.downsample.{at}"]
            renamed[f"blocks.{number}.merge.kernel.2d"] = theirs[f"stages.{stage}.downsample.1.weight"]
        for block in range(depth):
            for own, their in names.items():
                for kind in ("weight", "bias"):
                    renamed[f"blocks.{number}.{own}.{kind}"] = theirs[f"stages.{stage}.blocks.{block}.{their}.{kind}"]
            renamed[f"blocks.{number}.scale"] = theirs[f"stages.{stage}.blocks.{block}.gamma"]
            number += 1
    renamed |= {f"norm.{kind}": theirs[f"head.norm.{kind}"] for kind in ("weight", "bias")}
    ours.load_state_dict(renamed)
    image = torch.randn(2, 3, 64, 96)
    batch, _ = ours.prepare(make_batch(image, entry))
    levels = ours(batch, levels=(1, 2, 3, 4)).levels
    for number, expected in enumerate(reference.forward_intermediates(image, intermediates_only=True), start=1):
        torch.testing.assert_close(levels[number].value, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.features(batch, "mean_then_norm"), reference(image), rtol=1e-4, atol=1e-5)


@BOTH
def test_equals_masking_by_hand_after_every_operation(entry):
    encoder = spec().build().eval()
    torch.nn.init.ones_(encoder.norm.bias)  # what is not there must not be normed into something
    batch, plan = planned(encoder, entry)
    grid, convolve = entry.grid(), functional.conv2d if entry.ndim == 2 else functional.conv3d
    cells, number = encoder.stems[entry.name](batch), 0
    cells = cells.unflatten(1, encoder.level_grid(0, grid).tokens).movedim(-1, 1)

    def normed(norm, image):
        return norm(image.movedim(1, -1)).movedim(-1, 1)

    def masked(image):
        mask = plan.see.reshape(len(plan.see), 1, *grid.tokens).float()
        return image * functional.interpolate(mask, size=image.shape[2:], mode="nearest")

    cells = masked(cells)
    found = encoder(batch, plan, levels=(1, 2, 3))
    for level, (depth, strides) in enumerate(zip((1, 2, 1), stage_strides(entry.patch, 3), strict=True), start=1):
        for i in range(depth):
            block = encoder.blocks[number]
            if block.merge is not None:
                assert i == 0
                kernel = block.merge.kernel[f"{entry.ndim}d"]
                for axis, stride in enumerate(strides, start=2):
                    kernel = kernel if stride == 2 else kernel.sum(axis, keepdim=True)
                cells = masked(convolve(masked(normed(block.merge.norm, cells)), kernel, block.merge.bias, strides))
            depthwise = block.depthwise[f"{entry.ndim}d"]
            mixed = convolve(cells, depthwise.weight, depthwise.bias, padding="same", groups=cells.shape[1])
            hidden = masked(normed(block.norm, masked(mixed))).movedim(1, -1)
            added = block.scale * block.narrow(functional.gelu(block.widen(hidden)))
            cells, number = cells + masked(added.movedim(-1, 1)), number + 1
        torch.testing.assert_close(found.levels[level].value, cells.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-6)
    rows = encoder.norm(cells.flatten(2).transpose(1, 2))
    for sample in range(4):
        count = int(plan.see[sample].sum())
        torch.testing.assert_close(found.value[sample, :count], rows[sample, plan.see[sample]], rtol=1e-4, atol=1e-5)
        assert not bool(found.value[sample, count:].any())


@BOTH
def test_hidden_content_reaches_no_level_and_hidden_places_hold_nothing(entry):
    encoder = spec().build()
    batch, plan = planned(encoder, entry)
    for level in (1, 2, 3):
        image = batch.image.clone().requires_grad_()
        given = encoder(replace(batch, image=image), plan, levels=(level,)).levels[level]
        active = at_grid(plan.see, entry.grid(), given.grid).flatten(1)
        assert torch.equal(given.ok, active)
        assert bool((given.value[~active] == 0.0).all())
        assert bool((given.value[active].abs().amax(1) > 0.0).all())
        given.value.square().sum().backward()
        reached = patchify(image.grad, entry.patch).abs().amax(2)
        assert bool((reached[~plan.see] == 0.0).all())
        assert bool((reached[plan.see] > 0.0).all())


@BOTH
def test_a_visible_token_reads_its_visible_neighbours(entry):
    encoder = spec().build()
    batch, plan = planned(encoder, entry, ratio=0.3)
    image = batch.image.clone().requires_grad_()
    encoder(replace(batch, image=image), plan).value[0, 0].square().sum().backward()
    reached = patchify(image.grad, entry.patch).abs().amax(2)[0] > 0.0
    assert int(reached.sum()) > 1
    assert bool(plan.see[0][reached].all())


def test_patches_are_factored_late_stages_first():
    assert stage_strides((32, 32), 4) == ((4, 4), (2, 2), (2, 2), (2, 2))
    assert stage_strides((2, 8, 8), 3) == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert stage_strides((1, 16, 4), 4) == ((1, 2, 1), (1, 2, 1), (1, 2, 2), (1, 2, 2))
    for patch, stages in (((12, 12), 3), ((32, 32), 3), ((2, 14, 14), 4)):
        with pytest.raises(ConfigError, match="powers of two up to"):
            stage_strides(patch, stages)
    with pytest.raises(ConfigError, match="powers of two up to 16 for 3 stages"):
        spec(make_input("photograph", 3, (14, 14), (28, 28)))


def test_levels_are_finer_than_the_tokens_until_the_last():
    encoder, grid = spec().build(), VOLUME.grid()
    patches = [encoder.level_grid(level, grid).patch for level in range(4)]
    assert patches == [(1, 2, 2), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
    assert encoder.level_grid(3, grid) == grid
    assert [encoder.level_width(level) for level in range(4)] == [8, 8, 12, 16]


def test_an_axis_that_is_not_strided_is_merged_as_if_each_slice_were_two_equal_ones():
    merge, thick = Merge(4, 6, (3,)), torch.randn(2, 3, 4, 6, 4)
    thin = thick.repeat_interleave(2, dim=1)
    torch.testing.assert_close(merge(thick, (1, 2, 2), None), merge(thin, (2, 2, 2), None), rtol=1e-4, atol=1e-6)


@BOTH
def test_hidden_tokens_cost_no_more_than_their_share_of_the_depthwise_convolution(entry):
    encoder = spec(widths=(24, 48, 96)).build()
    batch, _ = encoder.prepare(ragged_batch(entry).take([0]))
    plan = Random(ratio=0.75)(batch, entry.grid(), batch.rng)
    costs = []
    for given in (None, plan):
        with FlopCounterMode(display=False) as counter:
            encoder(batch, given)
        costs.append(counter.get_total_flops())
    assert costs[1] < 0.4 * costs[0]


def test_ranks_share_all_but_kernels_and_have_only_those_they_need():
    flat = {n for n, _ in spec(SCENE).build().named_parameters() if n.startswith("blocks")}
    deep = {n for n, _ in spec(VOLUME).build().named_parameters() if n.startswith("blocks")}
    both = {n for n, _ in spec().build().named_parameters() if n.startswith("blocks")}
    assert both == flat | deep
    assert flat & deep == {n for n in both if ".2d" not in n and ".3d" not in n}
    assert not [n for n in flat if ".3d" in n]


@BOTH
def test_a_mask_token_replaces_hidden_places_after_its_stage(entry):
    encoder = spec().build()
    batch, plan = planned(encoder, entry)
    for stage in (1, 2):
        token = torch.randn(1, 1, encoder.level_width(stage))
        given = encoder(batch, plan, mask_token=token, stage=stage, levels=(stage,))
        hidden = at_grid(plan.hide, entry.grid(), given.levels[stage].grid).flatten(1)
        assert bool((given.levels[stage].value[hidden] == token[0, 0]).all())
        assert not bool((given.levels[stage].value[~hidden] == token[0, 0]).all(-1).any())
        assert torch.equal(given.ok, plan.see | plan.hide)
        assert given.value.shape == (4, entry.grid().num_tokens, 16)


@BOTH
def test_a_mask_token_at_the_entrance_lets_nothing_through(entry):
    encoder = spec().build()
    batch, plan = planned(encoder, entry)
    image = batch.image.clone().requires_grad_()
    given = encoder(replace(batch, image=image), plan, mask_token=torch.ones(1, 1, 8), stage=0)
    given.value.square().sum().backward()
    reached = patchify(image.grad, entry.patch).abs().amax(2)
    assert bool((reached[~plan.see] == 0.0).all())
    assert bool((reached[plan.see] > 0.0).all())


def test_missing_is_not_mistaken_for_zero_and_all_missing_stays_finite():
    encoder = spec().build()
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    filled = replace(batch, valid=torch.ones_like(batch.valid))  # what is missing holds 0 already
    with torch.no_grad():
        assert float((encoder(batch).value[2] - encoder(filled).value[2]).abs().max()) > 1e-3
    features = encoder.features(batch, "mean_std")
    assert features.shape == (4, 32)
    assert bool((features[3, :16] == 0.0).all())
    features.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in encoder.parameters() if p.grad is not None)
    with pytest.raises(ConfigError, match="class token for pool='cls'"):
        encoder.features(batch, "cls")


def test_pools_count_valid_tokens_only():
    encoder = spec().build()
    batch, _ = encoder.prepare(ragged_batch(VOLUME))
    tokens = encoder(batch)
    for sample in (0, 1, 2):
        own = tokens.value[sample, tokens.ok[sample]]
        torch.testing.assert_close(encoder.features(batch, "mean")[sample], own.mean(0), rtol=1e-4, atol=1e-5)


def test_paths_are_dropped_in_training_only():
    encoder = spec(SCENE, drop_path=0.9, depths=(2, 2, 2)).build()
    batch, _ = encoder.prepare(ragged_batch(SCENE))
    torch.manual_seed(0)
    assert not torch.equal(encoder(batch).value, encoder(batch).value)
    encoder.eval()
    assert torch.equal(encoder(batch).value, encoder(batch).value)


def test_layer_wise_rates_count_blocks_with_their_merging():
    encoder = spec(SCENE).build()
    layers = {name: layer_of(name, encoder.spec.depth) for name, _ in encoder.named_parameters()}
    assert encoder.spec.depth == 4
    assert layers["stems.scene.embed.weight"] == 0
    assert layers["blocks.1.merge.kernel.2d"] == layers["blocks.1.widen.weight"] == 2
    assert layers["norm.weight"] == 5


def test_what_it_cannot_do_is_refused_with_a_sentence():
    encoder = spec().build()
    batch, _ = encoder.prepare(ragged_batch(CUBE))
    with pytest.raises(ConfigError, match="choose 'vit'"):
        encoder(batch, attention=True)
    with pytest.raises(ConfigError, match="choose the encoder 'vit'"):
        spec(grouped(SCENE))
    with pytest.raises(ConfigError, match="odd kernels"):
        spec(kernel_2d=4)
    with pytest.raises(ConfigError, match="at least two stages"):
        spec(depths=(1, 1))


def test_choices_are_carried_between_grids_of_which_one_divides_the_other():
    tokens, grid = torch.tensor([[True, False, False, False, True, True]]), Grid((2, 3), (4, 4))
    finer = at_grid(tokens, grid, Grid((4, 3), (2, 4)))
    assert finer[0].tolist() == [[True, False, False]] * 2 + [[False, True, True]] * 2
    assert at_grid(tokens, grid, Grid((1, 3), (8, 4)))[0].tolist() == [[True, True, True]]
    with pytest.raises(ShapeError, match="one divides the other"):
        at_grid(tokens, grid, Grid((3, 3), (4, 4)))
