"""AttMask: what the teacher attends to is what is hidden."""

from __future__ import annotations

import pytest
import torch

from core.config import from_dict, to_dict
from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.maskers.attention import AttentionGuided
from core.maskers.random import Random
from core.projection import ProjectionSpec
from core.recipes.attmask import AttMask
from core.recipes.base import RecipeSpec
from core.testing.recipe_contract import watched
from core.testing.samples import CUBE, SCENE, VOLUME, ragged_batch


def _spec(**fields):
    vit = ViTSpec(contract=Contract(inputs=(SCENE, VOLUME, CUBE)), width=24, depth=2, heads=2)
    return AttMask(**({"encoder": vit, "head": ProjectionSpec(hidden=16, bottleneck=8, num_prototypes=12)} | fields))


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE], ids=lambda entry: entry.name)
@pytest.mark.parametrize("mode", ["high", "low"])
def test_what_is_hidden_of_each_view_follows_the_teachers_mean_attention(entry, mode):
    recipe = _spec(masker=AttentionGuided(ratio=0.3, mode=mode)).build()
    for own in recipe.teacher.parameters():  # attention of its own, far from even
        own.add_(torch.randn_like(own) * 0.2)
    plans = watched(recipe, ragged_batch(entry)).plans
    assert len(plans) == 2
    for view, _, plan in plans:
        attention = recipe.teacher.observe(view, attention=True).attention.mean(1)
        for sample in range(3):
            hidden, seen = attention[sample][plan.hide[sample]], attention[sample][plan.see[sample]]
            if len(hidden):
                assert (
                    float(hidden.min()) >= float(seen.max())
                    if mode == "high"
                    else float(hidden.max()) <= float(seen.min())
                )


def test_the_students_attention_is_not_asked_for():
    recipe = _spec().build()
    for tokens in watched(recipe, ragged_batch(SCENE)).tokens:
        assert tokens.attention is None


def test_a_masker_that_asks_for_no_attention_is_refused():
    with pytest.raises(ConfigError, match="recipe 'ibot'"):
        _spec(masker=Random())


def test_it_is_a_config():
    spec = _spec(masker=AttentionGuided(mode="hint", applied=0.5))
    assert from_dict(RecipeSpec, to_dict(spec)) == spec
