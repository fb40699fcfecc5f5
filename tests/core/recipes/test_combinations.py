"""Recipes crossed with predictors, targets and fills: each pair trains the encoder, or is refused when it is built."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from core import registry
from core.errors import ConfigError
from core.fills.codeword import Codeword
from core.fills.drop import Drop
from core.fills.mask_token import MaskToken
from core.fills.mean import Mean
from core.fills.noise import Noise
from core.fills.other_sample import OtherSample
from core.fills.projection import Projection
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.linear import LinearSpec
from core.predictors.per_level import PerLevelSpec
from core.predictors.transformer import TransformerSpec
from core.predictors.u_decoder import UDecoderSpec
from core.recipes.localmim import LocalMim
from core.targets.band_mean import BandMean
from core.targets.codebook import Codebook, fit_codebook
from core.targets.fine_pixels import FinePixels
from core.targets.frequency import Frequency
from core.targets.gradient import Gradient
from core.targets.hog import Hog
from core.targets.indices import Indices
from core.targets.pixels import Pixels
from core.testing.samples import SCENE, batch_for, grouped, ragged_batch, recipe_spec

DECODER = TransformerSpec(width=16, depth=1, heads=2)
PREDICTORS = {
    "transformer": DECODER,
    "cross_attention": CrossAttentionSpec(width=16, depth=1, heads=2),
    "u_decoder": UDecoderSpec(width=16),
    "fused": LayerFusionSpec(inner=DECODER),
    "level": PerLevelSpec(inner=DECODER, level=1),
    "finer": PerLevelSpec(inner=DECODER, scale=2.0, width=8),
    "linear": LinearSpec(),
    "fused linear": LayerFusionSpec(inner=LinearSpec()),
    "level linear": PerLevelSpec(inner=LinearSpec(), level=1),
}
ONLY_SEEN = {"linear", "fused linear", "level linear"}
DROP = {"dbot", "dmae", "fg_mae", "hpm", "latent_mim", "localmim", "mae", "mff", "mr_mae", "mrm", "multimae", "uni4eye"}
REFUSED_PREDICTORS = {  # beside `finer`, which no recipe takes, and `ONLY_SEEN` where tokens are dropped
    "multimae": {"u_decoder"},  # of groups of bands
    "a2mim": {"level linear"},  # of two levels its mask token enters after the first, which is then alike everywhere
    "spark": {*ONLY_SEEN, "fused", "level"},  # stages of unequal maps
}

TARGETS = {
    "pixels": Pixels(),
    "band_mean": BandMean(),
    "codebook": "of a file",
    "fine_pixels": FinePixels(),
    "as_fine_pixels": FinePixels(detail=1),
    "frequency": Frequency(),
    "gradient": Gradient(),
    "hog": Hog(pool=None),
    "indices": Indices(),
}
SCORES_CODES = {"mae", "maskfeat"}
REFUSED_TARGETS = {  # beside codes and finer pixels
    "a2mim": {"band_mean", "frequency", "hog"},  # have no voxels for a spectrum
}
FILLS = {
    "mean": Mean(),
    "noise": Noise(),
    "other_sample": OtherSample(),
    "projection": Projection(),
    "codeword": "of a file",
    "codeword that is not there": Codeword(codebook="nowhere.safetensors"),
    "drop": Drop(),
    "mask_token": MaskToken(),
}


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("codes") / "codes.safetensors")
    books = [fit_codebook([ragged_batch(e)], e, size=4, seed=0, passes=1) for e in (SCENE, grouped(SCENE))]
    save_file(books[0] | books[1], path)
    return path


def _trains(spec):
    """Take a step and say whether the encoder learned from it; None = it was refused when it was built."""
    torch.manual_seed(0)
    try:
        recipe = spec().build()
    except ConfigError as refused:
        if not ("expected" in str(refused) or "choose" in str(refused)):
            raise AssertionError(f"a refusal that does not say what to do: {refused}") from refused
        return None
    batch = batch_for(recipe, SCENE).take([0, 1])
    loss = recipe(batch, batch.rng).loss
    loss.backward()
    gradients = [p.grad for p in recipe.encoder.parameters() if p.requires_grad]
    assert math.isfinite(float(loss.detach()))
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
    return any(g is not None and bool(g.any()) for g in gradients)


def _spec(name, **fields):
    spec = recipe_spec(name, SCENE)
    if isinstance(spec, LocalMim):
        fields = {"scales": (1.0,), "levels": (2,)} | fields
    return replace(spec, **fields)


@pytest.mark.parametrize("name", sorted({*DROP, "a2mim", "simmim", "spark"}))
def test_a_predictor_trains_the_encoder_or_is_refused(name):
    found = {each: _trains(lambda part=part: _spec(name, predictor=part)) for each, part in PREDICTORS.items()}
    refused = {"finer"} | (ONLY_SEEN if name in DROP else set()) | REFUSED_PREDICTORS.get(name, set())
    assert {each for each, trained in found.items() if trained is None} == refused
    assert {each for each, trained in found.items() if trained} == set(PREDICTORS) - refused


@pytest.mark.parametrize(
    "name", ["a2mim", "dmae", "hpm", "localmim", "mae", "maskfeat", "mr_mae", "multimae", "simmim"]
)
def test_a_target_trains_the_encoder_or_is_refused(name, codes):
    found = {}
    for each, part in TARGETS.items():
        target = Codebook(path=codes) if each == "codebook" else part
        found[each] = _trains(lambda target=target: _spec(name, target=target))
    refused = {"fine_pixels", *REFUSED_TARGETS.get(name, ())} | (set() if name in SCORES_CODES else {"codebook"})
    assert {each for each, trained in found.items() if trained is None} == refused
    assert {each for each, trained in found.items() if trained} == set(TARGETS) - refused


def test_a_fill_trains_the_encoder_or_is_refused(codes):
    found = {}
    for each, part in FILLS.items():
        fill = Codeword(codebook=codes) if each == "codeword" else part
        found[each] = _trains(lambda fill=fill: _spec("a2mim", fill=fill))
    refused = {"codeword that is not there", "drop", "mask_token"}
    assert {each for each, trained in found.items() if trained is None} == refused
    assert {each for each, trained in found.items() if trained} == set(FILLS) - refused


def test_every_target_and_fill_of_the_folder_is_crossed(codes):
    parts = {"targets": TARGETS, "fills": FILLS, "predictors": PREDICTORS}
    for kind, table in parts.items():
        crossed = {registry.name_of(part) for part in table.values() if part != "of a file"}
        assert crossed | {"codebook", "codeword"} >= set(registry.names(kind))


@pytest.mark.parametrize("name", sorted(DROP))
def test_the_refusal_of_a_predictor_of_seen_tokens_says_what_to_choose(name):
    with pytest.raises(ConfigError) as refused:
        _spec(name, predictor=LinearSpec()).build()
    predictor = "layer_fusion" if name == "mff" else "linear"
    assert str(refused.value) == (
        f"recipe '{name}' leaves hidden tokens out and predictor '{predictor}' predicts only seen tokens; choose "
        "'transformer', or a recipe with a mask token such as 'simmim'."
    )


def test_mae_learns_codes_by_their_cross_entropy(codes):
    torch.manual_seed(0)
    recipe = _spec("mae", target=Codebook(path=codes)).build()
    batch = ragged_batch(SCENE).take([0, 1])
    optimizer = torch.optim.AdamW(recipe.parameters(), lr=3e-3)
    ready, _ = recipe.encoder.prepare(batch)
    plan = recipe.masker(ready, SCENE.grid(), batch.rng)
    logits = recipe.predictors["image"](recipe.encoder(ready, plan), plan, ready)
    code, weight = Codebook(path=codes)(ready, SCENE.grid())
    scored = plan.hide & (weight[..., 0] > 0)
    expected = functional.cross_entropy(logits[scored], code[scored][:, 0].to(torch.int64))
    losses = []
    for _ in range(60):
        loss = recipe(batch, batch.rng).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert losses[-1] < 0.3 * losses[0]


def test_codes_and_finer_crops_are_refused_with_a_sentence(codes):
    with pytest.raises(ConfigError, match="recipe 'simmim' compares numbers, and target 'codebook' gives codes.*'mae'"):
        _spec("simmim", target=Codebook(path=codes)).build()
    sentence = (
        "recipe 'mae' loads crops at 1 times the encoder's size, and target 'fine_pixels' is of a detail of 2.*'mrm'"
    )
    with pytest.raises(ConfigError, match=sentence):
        _spec("mae", target=FinePixels()).build()
    with pytest.raises(ConfigError, match="'codebook' is of a detail of 2"):
        _spec("mae", target=Codebook(path=codes, of=FinePixels())).build()


def test_a_file_of_a_fill_is_read_when_the_recipe_is_built(codes):
    with pytest.raises(ConfigError, match=r"got 'nowhere.safetensors', which is no file\."):
        _spec("a2mim", fill=Codeword(codebook="nowhere.safetensors")).build()
    other = replace(SCENE, bands=("one", "two", "three", "four", "five", "six"))
    with pytest.raises(ConfigError, match="fit one for this input"):
        replace(recipe_spec("a2mim", other), fill=Codeword(codebook=codes)).build()


def test_indices_are_of_radiances_in_any_recipe_of_one_view():
    recipe = _spec("mae", target=Indices()).build()
    (term,) = recipe.branches["image"].terms.values()
    assert term.target == Indices().undoing(recipe.encoder.contract)
    assert term.target.mean["red"] == pytest.approx(0.1)
