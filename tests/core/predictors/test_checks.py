"""Widths that cannot be built are refused alike by every predictor with heads; and what wrappers pass on of another."""

from __future__ import annotations

import pytest

from core.errors import ConfigError
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.linear import LinearSpec
from core.predictors.per_level import PerLevelSpec
from core.predictors.transformer import TransformerSpec

SMALL = TransformerSpec(width=16, depth=1, heads=2)


@pytest.mark.parametrize("part", [TransformerSpec, CrossAttentionSpec])
@pytest.mark.parametrize(("width", "depth", "heads"), [(16, 1, 3), (15, 1, 3), (16, 0, 2), (16, 1, 0), (0, 1, 2)])
def test_a_width_that_cannot_be_built_is_refused(part, width, depth, heads):
    with pytest.raises(ConfigError, match=f"even predictor width .* got width {width}, {heads} heads, depth {depth}"):
        part(width=width, depth=depth, heads=heads)


def test_who_reads_hidden_tokens_is_passed_on():
    for inner, reads in ((SMALL, False), (LinearSpec(), True)):
        wrapped = (
            LayerFusionSpec(inner=inner),
            PerLevelSpec(inner=inner),
            PerLevelSpec(inner=LayerFusionSpec(inner=inner)),
        )
        assert [part.reads_hidden for part in (inner, *wrapped)] == [reads] * 4


def test_the_scale_is_passed_on_and_given_once():
    fine = PerLevelSpec(inner=SMALL, scale=2.0)
    assert (SMALL.scale, fine.scale, LayerFusionSpec(inner=fine).scale) == (1.0, 2.0, 2.0)
    for inner in (fine, LayerFusionSpec(inner=fine)):
        with pytest.raises(ConfigError, match=r"inner predictor on the tokens' own grid, got one at 2 times"):
            PerLevelSpec(inner=inner)
