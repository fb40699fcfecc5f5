"""Scales finer and coarser than the tokens: grids, order of the predictions, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.random import Random
from core.predictors.per_level import PerLevelSpec, rescaled, scaled
from core.predictors.transformer import TransformerSpec
from core.shapes import Grid, patchify, unpatchify
from core.testing.samples import INPUTS, SCENE, VOLUME, grouped, ragged_batch

INNER = TransformerSpec(width=16, depth=1, heads=2)


def _built(spec, *entries, values=5):
    torch.manual_seed(0)
    encoder = ViTSpec(contract=Contract(inputs=entries), width=24, depth=3, heads=2).build()
    return encoder, spec.build(encoder, {entry.name: values for entry in entries})


def _predicted(encoder, predictor, spec, entry):
    batch, _ = encoder.prepare(ragged_batch(entry))
    plan = Random()(batch, entry.grid(), batch.rng)
    tokens = encoder(batch, plan, levels=spec.levels(encoder.num_levels))
    return predictor(tokens, plan, batch), tokens, plan, batch


@pytest.mark.parametrize(
    ("grid", "scale", "tokens", "patch"),
    [
        (Grid((4, 6), (8, 8)), 4.0, (16, 24), (2, 2)),
        (Grid((4, 6), (8, 8)), 2.0, (8, 12), (4, 4)),
        (Grid((4, 6), (8, 8)), 1.0, (4, 6), (8, 8)),
        (Grid((4, 6), (8, 8)), 0.5, (2, 3), (16, 16)),
        (Grid((4, 4, 4), (2, 8, 8)), 4.0, (8, 16, 16), (1, 2, 2)),  # the thin axis can be halved once
        (Grid((3, 4, 4), (2, 8, 8)), 0.5, (3, 2, 2), (2, 16, 16)),  # three tokens cannot be paired
        (Grid((14, 14), (14, 14)), 2.0, (28, 28), (7, 7)),
    ],
)
def test_a_grid_is_brought_to_a_scale(grid, scale, tokens, patch):
    assert scaled(grid, scale) == Grid(tokens, patch)
    assert scaled(grid, scale).size == grid.size


@pytest.mark.parametrize(
    ("grid", "scale"), [(Grid((4, 4), (14, 14)), 4.0), (Grid((7, 7), (8, 8)), 0.5), (Grid((2, 2), (1, 1)), 2.0)]
)
def test_a_scale_that_no_axis_can_take_is_refused(grid, scale):
    with pytest.raises(ConfigError, match="expected a grid that can be brought to"):
        scaled(grid, scale)


@pytest.mark.parametrize("scale", [3.0, 0.0, -2.0, 0.75])
def test_a_scale_that_is_no_power_of_two_is_refused(scale):
    with pytest.raises(ConfigError, match="power of two"):
        PerLevelSpec(inner=INNER, scale=scale)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scale", [4.0, 2.0, 0.5])
def test_token_values_go_to_the_same_place_at_every_scale(scale, groups):
    grid = Grid((4, 6), (8, 8), ((("a",), ("b",)) if groups == 2 else ()))
    other = scaled(grid, scale)
    value = torch.randn(2, grid.num_tokens, 1)
    ours = rescaled(value, grid, other)
    for part, carried in zip(value.chunk(groups, 1), ours.chunk(groups, 1), strict=True):
        image = unpatchify(part.expand(-1, -1, 64), grid.plain)  # every voxel holds its token's value
        expected = patchify(image, other.patch).mean(-1, keepdim=True)
        torch.testing.assert_close(carried, expected)


@pytest.mark.parametrize("scale", [4.0, 2.0, 1.0, 0.5])
@pytest.mark.parametrize("name", INPUTS)
def test_predicts_every_token_of_the_scale(name, scale):
    entry = INPUTS[name]
    spec = PerLevelSpec(inner=INNER, level=1, scale=scale, width=8)
    encoder, predictor = _built(spec, entry)
    prediction, _, _, batch = _predicted(encoder, predictor, spec, entry)
    assert prediction.shape == (len(batch), scaled(entry.grid(), scale).num_tokens, 5)
    assert bool(prediction.isfinite().all())


@pytest.mark.parametrize("entry", [SCENE, VOLUME], ids=["scene", "volume"])
def test_a_fine_token_depends_on_the_coarse_token_that_it_lies_in(entry):
    """The doublings lay tokens out in raster order: changing one token's hidden vector changes its own block alone."""
    spec = PerLevelSpec(inner=INNER, level=1, scale=4.0, width=8)
    encoder, predictor = _built(spec, entry)
    seen = []
    predictor.inner.register_forward_hook(lambda *call: seen.append(call[2]) or call[2])
    before, tokens, plan, batch = _predicted(encoder, predictor, spec, entry)
    changed = seen[0].clone()
    changed[:, 5] += torch.randn(changed.shape[2])
    predictor.inner.register_forward_hook(lambda *_: changed)
    moved = (predictor(tokens, plan, batch) - before).abs().amax(2) > 0
    mark = torch.zeros(len(batch), entry.grid().num_tokens, 1)
    mark[:, 5] = 1.0
    assert torch.equal(moved, rescaled(mark, entry.grid(), scaled(entry.grid(), 4.0))[..., 0] > 0)


def test_the_last_stage_passes_the_encoders_own_norm():
    spec = PerLevelSpec(inner=INNER)
    encoder, predictor = _built(spec, SCENE)
    prediction, tokens, plan, batch = _predicted(encoder, predictor, spec, SCENE)
    assert predictor.norm is None
    assert spec.levels(3) == PerLevelSpec(inner=INNER, level=3).levels(3) == ()
    assert torch.equal(prediction, predictor.inner(tokens, plan, batch))


def test_an_inner_stage_is_read_with_a_norm_of_its_own():
    spec = PerLevelSpec(inner=INNER, level=2)
    encoder, predictor = _built(spec, SCENE)
    prediction, tokens, plan, batch = _predicted(encoder, predictor, spec, SCENE)
    assert spec.levels(3) == (2,)
    level = tokens.levels[2]
    normed = replace(tokens, value=predictor.norm(level.value), prefix=predictor.norm(level.prefix))
    assert torch.equal(prediction, predictor.inner(normed, plan, batch))
    assert not torch.equal(prediction, predictor.inner(tokens, plan, batch))


@pytest.mark.parametrize("scale", [4.0, 0.5])
def test_band_groups_share_the_doublings_and_have_heads_of_their_own(scale):
    entry = grouped(SCENE)
    spec = PerLevelSpec(inner=INNER, level=1, scale=scale, width=8)
    encoder, predictor = _built(spec, entry)
    prediction, _, _, batch = _predicted(encoder, predictor, spec, entry)
    assert prediction.shape == (len(batch), scaled(entry.grid(), scale).num_tokens, 5)
    if scale > 1:
        assert len(predictor.heads[entry.name]) == 2


@pytest.mark.parametrize("scale", [4.0, 2.0, 1.0, 0.5])
def test_every_parameter_learns(scale):
    spec = PerLevelSpec(inner=INNER, level=1, scale=scale, width=8)
    encoder, predictor = _built(spec, SCENE)
    prediction, *_ = _predicted(encoder, predictor, spec, SCENE)
    prediction.square().sum().backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
