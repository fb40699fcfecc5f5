"""Fusing stages: the formula, which stages, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.random import Random
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.transformer import TransformerSpec
from core.testing.samples import INPUTS, SCENE, ragged_batch

INNER = TransformerSpec(width=16, depth=1, heads=2)


def _built(spec, depth=4):
    torch.manual_seed(0)
    encoder = ViTSpec(contract=Contract(inputs=tuple(INPUTS.values())), width=24, depth=depth, heads=2).build()
    return encoder, spec.build(encoder, dict.fromkeys(INPUTS, 5))


@pytest.mark.parametrize(
    ("depth", "stages"), [(12, (1, 3, 5, 7, 9)), (24, tuple(range(1, 23, 2))), (3, (1,)), (2, (1,))]
)
def test_every_other_stage_joins_by_default(depth, stages):
    assert LayerFusionSpec(inner=INNER).levels(depth) == stages


def test_fuses_by_shares_that_sum_to_one():
    spec = LayerFusionSpec(inner=INNER, fused=(1, 2))
    encoder, fusion = _built(spec)
    with torch.no_grad():
        fusion.shares.copy_(torch.tensor([0.0, 1.0, 2.0]))
    batch, entry = encoder.prepare(ragged_batch(SCENE))
    plan = Random()(batch, entry.grid(), batch.rng)
    tokens = encoder(batch, plan, levels=spec.levels(4))
    given = []
    fusion.inner.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    fusion(tokens, plan, batch)
    total = 1.0 + torch.e + torch.e**2
    for part in ("value", "prefix"):
        first, second = (
            projection(norm(getattr(tokens.levels[stage], part)))
            for stage, norm, projection in zip((1, 2), fusion.norms, fusion.projections, strict=True)
        )
        fused = (first + torch.e * second + torch.e**2 * getattr(tokens, part)) / total
        torch.testing.assert_close(getattr(given[0], part), fusion.norm(fused), rtol=1e-4, atol=1e-5)


def test_what_inner_stages_know_reaches_the_prediction():
    spec = LayerFusionSpec(inner=INNER)
    encoder, fusion = _built(spec)
    batch, entry = encoder.prepare(ragged_batch(SCENE))
    plan = Random()(batch, entry.grid(), batch.rng)
    tokens = encoder(batch, plan, levels=spec.levels(4))
    level = replace(tokens.levels[1], value=torch.randn_like(tokens.levels[1].value))
    changed = replace(tokens, levels=tokens.levels | {1: level})
    assert not torch.allclose(fusion(tokens, plan, batch), fusion(changed, plan, batch))


@pytest.mark.parametrize(("fused", "depth"), [((4,), 4), ((0, 1), 4), ((1, 1), 4), ((), 1)])
def test_stages_that_are_no_inner_ones_are_refused(fused, depth):
    with pytest.raises(ConfigError, match="expected different inner stages"):
        _built(LayerFusionSpec(inner=INNER, fused=fused), depth)


def test_stages_between_which_tokens_are_merged_are_refused(monkeypatch):
    spec = LayerFusionSpec(inner=INNER, fused=(1,))
    encoder, _ = _built(spec)
    merged = lambda level, grid: replace(grid, tokens=tuple(t // 2 for t in grid.tokens)) if level == 4 else grid  # noqa: E731
    monkeypatch.setattr(encoder, "level_grid", merged)
    with pytest.raises(ConfigError, match="expected stages with the same tokens to fuse"):
        spec.build(encoder, dict.fromkeys(INPUTS, 5))
