"""SatVision-TOA against pytorch-caney: 14 bands, Swin V2 with extra norms, from the published layout."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.cards.satvision import CARDS, satvision_spec
from core.encoders.swinv2 import SwinV2Spec
from core.errors import CheckpointError
from core.foreign import read_encoder
from core.layouts.simmim import recipe_weights
from core.predictors.linear import LinearSpec
from core.recipes.simmim import Simmim
from core.shapes import unpatchify
from tests.parity.fixture import Fixture, grad_norms, make_batch, make_input, placed
from tests.parity.test_simmim import Given, as_map

pytestmark = pytest.mark.parity

STORED = {"_forward_module.": "module", "module.": "module", "model.": "state_dict", "": "module"}


LAYOUT = CARDS[0].layout


def loaded(state, spec, folder, layout=LAYOUT):
    """Fill an encoder from a file of these weights, as `load_encoder` does."""
    path = folder / "weights.pt"
    torch.save(state, path)
    foreign = read_encoder(path, spec, layout)
    encoder = spec.build()
    placed(encoder, foreign.weights)
    return encoder


def encoder_spec(config, **changes):
    entry = make_input("toa", config["in_chans"], (config["patch_size"],) * 2, (config["img_size"],) * 2)
    options = {
        "contract": Contract(inputs=(entry,)),
        "width": config["embed_dim"],
        "depths": tuple(config["depths"]),
        "heads": tuple(config["num_heads"]),
        "window": (config["window_size"],) * 2,
        "mlp_ratio": config["mlp_ratio"],
        "extra_norm_period": config["norm_period"],
        "pretrained_windows": tuple((w, w) for w in config["pretrained_window_sizes"] if w),
    }
    return SwinV2Spec(**(options | changes))


@pytest.fixture
def pretrained(parity):
    fixture = Fixture(parity / "simmim_swinv2_satvision")
    spec = encoder_spec(fixture.config)
    recipe = Simmim(encoder=spec, masker=Given(hide=fixture.io["in.mask"].flatten(1).bool())).build()
    placed(recipe, recipe_weights(fixture.weights, spec))
    return fixture, spec, recipe, make_batch(fixture.io["in.imgs"], spec.contract.inputs[0])


def stage_outputs(encoder, batch):
    """Every stage as the reference gives it: merged at its end, without the last norm."""
    found = []
    hooks = [m.register_forward_hook(lambda *call: found.append(call[2])) for m in encoder.merges.values()]
    tokens = encoder(batch, levels=(encoder.num_levels,))
    for hook in hooks:
        hook.remove()
    last = tokens.levels[encoder.num_levels].value
    return [value.transpose(1, 2).unflatten(2, (round(value.shape[1] ** 0.5), -1)) for value in (*found, last)]


def test_tokens_prediction_and_loss(pretrained):
    fixture, spec, recipe, batch = pretrained
    grid = spec.contract.inputs[0].grid()
    plan = recipe.masker(batch, grid, batch.rng)
    fixture.close(recipe.encoder.stems["toa"](batch), "mid.encoder.patch_embed")
    tokens = recipe.encoder(batch, plan, mask_token=recipe.mask_token, levels=(4,))
    fixture.close(tokens.levels[4].value, "mid.encoder.layers.3")
    fixture.close(as_map(tokens), "out.encoder_masked")
    fixture.close(unpatchify(recipe.predictors["image"](tokens, plan, batch), grid), "mid.decoder")
    fixture.close(recipe(batch, batch.rng).loss, "out.loss")


def test_stages_and_pooled_features_without_a_mask(pretrained):
    fixture, _, recipe, batch = pretrained
    for stage, ours in enumerate(stage_outputs(recipe.encoder, batch)):
        fixture.close(ours, f"out.extra_feature_{stage}")
    fixture.close(recipe.encoder.features(batch, "mean"), "out.pooled_unmasked")


def test_gradients(pretrained):
    fixture, spec, recipe, batch = pretrained
    recipe(batch, batch.rng).loss.backward()
    ours = dict(recipe.named_parameters())
    keys = list(fixture.weights)
    marked = {key: torch.full_like(value, number) for number, (key, value) in enumerate(fixture.weights.items())}
    homes = {
        keys[int(v.flatten()[0])]: name for name, v in recipe_weights(marked, spec).items() if "nodata" not in name
    }
    norms = fixture.grad_norms()
    assert len(norms) == 179
    for key, norm in norms.items():
        assert grad_norms(ours[homes[key]].grad) == pytest.approx(norm, rel=1e-3, abs=1e-9), key


def test_offsets_measured_by_the_windows_of_pretraining(parity, tmp_path):
    fixture = Fixture(parity / "satvision_encoder_pretrained_window")
    spec = encoder_spec(fixture.config, extra_norm_period=0)  # the authors' class for fine-tuning never has them
    encoder = loaded(fixture.weights, spec, tmp_path)
    batch = make_batch(fixture.io["in.imgs"], spec.contract.inputs[0])
    for stage, ours in enumerate(stage_outputs(encoder, batch)):
        fixture.close(ours, f"out.extra_feature_{stage}")
    fixture.close(encoder.features(batch, "mean"), "out.forward_features")
    other = loaded(fixture.weights, replace(spec, pretrained_windows=()), tmp_path)
    assert float((stage_outputs(other, batch)[3] - fixture.io["out.forward"]).detach().abs().max()) > 0.01


def test_a_file_without_the_extra_norms_fails_and_so_does_an_encoder_without_them(pretrained, tmp_path):
    fixture, spec, *_ = pretrained
    without = {key: value for key, value in fixture.weights.items() if "norm3" not in key}
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layers\.0\.blocks\.1\.norm3\.bias"):
        loaded({"module": without}, spec, tmp_path)
    plain = encoder_spec(fixture.config, extra_norm_period=0)
    with pytest.raises(CheckpointError, match=r"unexpected: encoder\.layers\.0\.blocks\.1\.norm3\.bias"):
        loaded({"module": fixture.weights}, plain, tmp_path)


def test_the_authors_own_fine_tuning_loses_the_extra_norms(parity, tmp_path):
    fixture = Fixture(parity / "satvision_encoder_repo_loader")
    plain = encoder_spec(fixture.config, extra_norm_period=0)
    careless = replace(LAYOUT, drop=(*LAYOUT.drop, "*.norm3.*"))
    encoder = loaded(fixture.weights, plain, tmp_path, careless)
    batch = make_batch(fixture.io["in.imgs"], plain.contract.inputs[0])
    fixture.close(stage_outputs(encoder, batch)[3], "out.extra_feature_3")


@pytest.mark.parametrize("prefix", STORED)
def test_files_of_every_wrapper_load_alike(pretrained, prefix, tmp_path):
    fixture, spec, *_ = pretrained
    inner = {
        f"{prefix}{key}": value.bfloat16() if value.is_floating_point() else value
        for key, value in fixture.weights.items()
    }
    file = {STORED[prefix]: inner, "shapes": {"a": torch.Size((1, 2))}, "names": {"b", "c"}, "step": 3}
    encoder = loaded(file, spec, tmp_path)
    batch = make_batch(fixture.io["in.imgs"], spec.contract.inputs[0])
    torch.testing.assert_close(
        stage_outputs(encoder, batch)[3], fixture.io["out.extra_feature_3"], rtol=0.05, atol=0.05
    )


@pytest.mark.parametrize(
    ("size", "encoder_count", "whole_count"),
    [
        ("giant", 2_595_048_416, 2_653_783_008),
        ("huge", 654_944_120, 695_328_632),
    ],
)
def test_released_sizes_have_the_published_number_of_parameters(size, encoder_count, whole_count):
    contract = Contract(inputs=(make_input("toa", 14, (4, 4), (128, 128)),))
    with torch.device("meta"):
        encoder = satvision_spec(size, contract).build()
        predictor = LinearSpec().build(encoder, {"toa": 14 * 16})
    ours = sum(p.numel() for name, p in encoder.named_parameters() if not name.endswith("nodata"))
    theirs = ours + encoder.level_width(0)  # the mask token, which lies in our recipe
    assert theirs == encoder_count
    assert theirs + sum(p.numel() for p in predictor.parameters()) == whole_count


def test_every_key_of_the_giant_has_its_place(parity):
    layout = json.loads((parity / "key_layouts" / "satvision_toa_giant_mim.json").read_text())["keys"]
    spec = satvision_spec("giant", Contract(inputs=(make_input("toa", 14, (4, 4), (128, 128)),)))
    with torch.device("meta"):
        weights = recipe_weights({key: torch.empty(shape) for key, shape in layout.items()}, spec)
        recipe = Simmim(encoder=spec).build()
        have = {key: value.shape for key, value in recipe.state_dict().items()}
    assert {key: value.shape for key, value in weights.items()} == have
