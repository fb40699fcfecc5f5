"""LocalMIM: which stage predicts which scale, what is scored there, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.predictors.per_level import scaled
from core.predictors.transformer import TransformerSpec
from core.recipes.localmim import LocalMim
from core.shapes import patchify
from core.targets.hog import Hog
from core.targets.pixels import Pixels
from core.testing.samples import CUBE, SCENE, VOLUME, grouped, ragged_batch

PREDICTOR = TransformerSpec(width=16, depth=1, heads=2)


def _built(*inputs, depth=6, **options):
    torch.manual_seed(0)
    encoder = ViTSpec(contract=Contract(inputs=inputs), width=24, depth=depth, heads=2)
    return LocalMim(encoder=encoder, predictor=PREDICTOR, width=8, **options).build()


@pytest.mark.parametrize(
    ("depth", "stages"), [(12, (2, 4, 10, 12)), (24, (4, 8, 20, 24)), (8, (1, 3, 7, 8)), (2, (1, 1, 2, 2))]
)
def test_stages_are_the_papers_shares_of_the_depth(depth, stages):
    encoder = ViTSpec(contract=Contract(inputs=(SCENE,)), width=24, depth=depth, heads=2)
    assert LocalMim(encoder=encoder, predictor=PREDICTOR).chosen(depth) == stages


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE], ids=lambda entry: entry.name)
@pytest.mark.parametrize("target", [Hog(pool=None), Pixels()], ids=["hog", "pixels"])
def test_each_scale_is_scored_where_its_windows_are_hidden(entry, target):
    recipe = _built(entry, target=target)
    batch, _ = recipe.encoder.prepare(ragged_batch(entry))
    plan = recipe.masker(batch, entry.grid(), batch.rng)
    tokens = recipe.encoder(batch, plan, levels=recipe.levels)
    output = recipe(batch, batch.rng)
    hidden = plan.hide.reshape(-1, *entry.grid().tokens)
    for axis, edge in enumerate(entry.patch, start=1):
        hidden = hidden.repeat_interleave(edge, dim=axis)  # voxel by voxel
    for name, scale in recipe.scales.items():
        window = scaled(entry.grid(), scale)
        value, weight = target(batch, window)
        share = patchify(hidden[:, None].float(), window.patch).mean(-1, keepdim=True)
        error = (recipe.predictors[name](tokens, plan, batch) - value).square() * weight * share
        expected = error.sum() / (weight * share).sum()
        assert float(output.terms[name]) == pytest.approx(expected.item(), rel=1e-4), name
    assert output.loss.item() == pytest.approx(float(sum(output.terms.values())), rel=1e-6)


def test_a_token_counts_as_far_as_it_is_covered_at_every_scale():
    recipe, batch = _built(SCENE, target=Pixels()), ragged_batch(SCENE)
    plan = recipe.masker(batch, SCENE.grid(), batch.rng)
    covered = torch.linspace(0.0, 1.0, SCENE.grid().num_tokens).expand(4, -1)
    losses = []
    for given in (
        replace(plan, covered=covered),
        replace(plan, score={name: plan.hide * covered for name in recipe.scales}),
        plan,
    ):
        recipe.masker = lambda *_, given=given: given
        losses.append(recipe(batch, batch.rng).loss.item())
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_windows_of_sixteen_voxel_patches_are_the_papers():
    entry = replace(SCENE, patch=(16, 16), size=(64, 64))
    recipe = _built(entry)
    assert [scaled(entry.grid(), scale).patch for scale in recipe.scales.values()] == [
        (4, 4),
        (8, 8),
        (16, 16),
        (32, 32),
    ]
    assert [p.inner.heads["scene"][0].out_features for p in recipe.predictors.values()] == [8 * 4, 8 * 4, 54, 54]
    assert [p.stage for p in recipe.predictors.values()] == [1, 2, 5, None]


def test_band_groups_are_predicted_group_by_group():
    entry = grouped(SCENE)
    recipe, batch = _built(entry), ragged_batch(SCENE)
    output = recipe(batch, batch.rng)
    output.loss.backward()
    assert 0 < output.loss.item() < 100
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in recipe.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (4.0, 2.0)}, "a stage of the encoder for each"),
        ({"scales": (4.0, 4.0, 1.0, 0.5)}, "expected different scales"),
        ({"scales": (3.0, 2.0, 1.0, 0.5)}, "power of two"),
        ({"levels": (1, 2, 3, 4)}, "expected the encoder's last stage, 6"),
        ({"levels": (1, 2, 9, 6)}, "expected stages from 1 to 6"),
        ({"scales": (16.0, 2.0, 1.0, 0.5)}, "can be brought to 16"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        _built(SCENE, **options)


def test_fewer_scales_with_stages_of_their_own():
    recipe = _built(SCENE, scales=(2.0, 1.0), levels=(3, 6))
    batch = ragged_batch(SCENE)
    assert list(recipe(batch, batch.rng).terms) == ["scale_2", "scale_1"]


def test_every_scale_is_drawn():
    batch = ragged_batch(VOLUME)
    pictures = _built(VOLUME)(batch, batch.rng, pictures=True).pictures
    assert list(pictures.reconstructions) == ["scale_4", "scale_2", "scale_1", "scale_0_5"]
    assert all(image.shape == batch.image.shape for image in pictures.reconstructions.values())
