"""SimMIM against microsoft/SimMIM: Swin and both ViT variants through their original keys, masks, losses, gradients."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from core.contract import Contract
from core.encoders.cards.base import Layout
from core.encoders.relative_vit import RelativeViTSpec
from core.encoders.swin import SwinSpec
from core.errors import CheckpointError, ConfigError
from core.foreign import read_encoder
from core.layouts.simmim import encoder_weights, recipe_weights, resized_bias
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Plan
from core.recipes.simmim import Simmim
from core.shapes import unpatchify
from core.weights import place
from tests.parity.fixture import Fixture, grad_norms, make_batch, make_input, placed

pytestmark = pytest.mark.parity


@dataclass(frozen=True, kw_only=True, eq=False)
class Given(Masker):
    """The reference's mask in place of ours."""

    hide: Tensor
    ratio: float = 0.6

    def check(self, grid, spacing) -> None:
        pass

    def __call__(self, batch, grid, rng, guide=NO_GUIDE) -> Plan:
        return Plan(see=~self.hide, hide=self.hide)


def encoder_spec(config):
    entry = make_input("image", config["in_chans"], (config["patch_size"],) * 2, (config["img_size"],) * 2)
    contract = Contract(inputs=(entry,))
    if "window_size" in config:
        return SwinSpec(
            contract=contract,
            width=config["embed_dim"],
            depths=tuple(config["depths"]),
            heads=tuple(config["num_heads"]),
            window=(config["window_size"],) * 2,
        )
    side = config["img_size"] // config["patch_size"]
    return RelativeViTSpec(
        contract=contract,
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        extent=(side, side),
        bias="shared" if config["use_shared_rel_pos_bias"] else "per_block",
        tables={"image": (side, side)} if config["use_abs_pos_emb"] else {},
        norm_tokens=not config["use_mean_pooling"],
    )


@pytest.fixture(params=["simmim_swin", "simmim_vit_shared_rpb", "simmim_vit_ape_rpb"])
def built(request, parity):
    fixture = Fixture(parity / request.param)
    spec = encoder_spec(fixture.config)
    recipe = Simmim(encoder=spec, masker=Given(hide=fixture.io["in.mask"].flatten(1).bool())).build()
    placed(recipe, recipe_weights(fixture.weights, spec))
    (entry,) = spec.contract.inputs
    return fixture, spec, recipe, make_batch(fixture.io["in.imgs"], entry)


def as_map(tokens) -> Tensor:
    """(B, N, D) as the reference's (B, D, Y, X)."""
    return tokens.value.transpose(1, 2).unflatten(2, tokens.grid.tokens)


def test_tokens_prediction_and_loss(built):
    fixture, spec, recipe, batch = built
    grid = spec.contract.inputs[0].grid()
    plan = recipe.masker(batch, grid, batch.rng)
    tokens = recipe.encoder(batch, plan, mask_token=recipe.mask_token)
    fixture.close(as_map(tokens), "out.encoder_masked")
    fixture.close(unpatchify(recipe.predictors["image"](tokens, plan, batch), grid), "mid.decoder")
    fixture.close(recipe(batch, batch.rng).loss, "out.loss")


def test_gradients(built):
    fixture, spec, recipe, batch = built
    recipe(batch, batch.rng).loss.backward()
    ours, homes = dict(recipe.named_parameters()), defaultdict(list)
    keys = list(fixture.weights)
    marked = {key: torch.full_like(value, number) for number, (key, value) in enumerate(fixture.weights.items())}
    for name, value in recipe_weights(marked, spec).items():
        if not name.endswith("nodata"):
            homes[keys[int(value.flatten()[0])]].append(name)
    compared = 0
    for key, norm in fixture.grad_norms().items():
        (name,) = homes[key]
        if np.isnan(norm):
            assert ours[name].grad is None, key
            continue
        assert grad_norms(ours[name].grad) == pytest.approx(norm, rel=1e-3, abs=1e-9), key
        compared += 1
    assert compared >= 39


def test_stages_of_swin(parity):
    fixture = Fixture(parity / "simmim_swin")
    spec = encoder_spec(fixture.config)
    recipe = Simmim(encoder=spec, masker=Given(hide=fixture.io["in.mask"].flatten(1).bool())).build()
    place(recipe, recipe_weights(fixture.weights, spec), source="simmim_swin")
    batch = make_batch(fixture.io["in.imgs"], spec.contract.inputs[0])
    fixture.close(recipe.encoder.stems["image"](batch), "mid.encoder.patch_embed")
    plan = recipe.masker(batch, None, batch.rng)
    seen = []
    recipe.encoder.blocks[0].register_forward_hook(lambda *call: seen.append(call[2]))
    merged = [m.register_forward_hook(lambda *call: seen.append(call[2])) for m in recipe.encoder.merges.values()]
    tokens = recipe.encoder(batch, plan, mask_token=recipe.mask_token, levels=(1, 3))
    assert len(merged) == 2
    fixture.close(seen[0], "mid.encoder.layers.0.blocks.0")
    fixture.close(tokens.levels[1].value, "mid.encoder.layers.0.blocks.1")
    fixture.close(seen[1], "mid.encoder.layers.0")
    fixture.close(seen[2], "mid.encoder.layers.1")
    fixture.close(tokens.levels[3].value, "mid.encoder.layers.2")


@pytest.mark.parametrize("change", ["deleted", "renamed", "added", "foreign"])
def test_a_key_without_a_place_fails(built, change):
    fixture, spec, recipe, _ = built
    key = next(key for key in reversed(fixture.weights) if key.startswith("encoder.") and key.endswith("norm2.weight"))
    weights = dict(fixture.weights)
    if change in ("deleted", "renamed"):
        value = weights.pop(key)
    if change == "renamed":
        weights[key.replace("norm2", "norm9")] = value
    if change == "added":
        weights["encoder.head.weight"] = weights[key]
    if change == "foreign":
        weights["head.weight"] = weights[key]
    place(recipe, recipe_weights(fixture.weights, spec), source="whole")
    with pytest.raises(CheckpointError, match=r"norm2|norm9|head\.weight"):
        place(recipe, recipe_weights(weights, spec), source="changed")


def test_every_tensor_of_the_reference_is_placed_or_computed(built):
    fixture, spec, *_ = built
    computed = [key for key in fixture.weights if key.endswith(("_index", "attn_mask"))]
    placed = recipe_weights(fixture.weights, spec)
    assert len(placed) - 1 == len(fixture.weights) - len(computed)  # ours alone: the vector of missing data


def test_bias_tables_resampled_to_other_windows(parity):
    fixture = Fixture(parity / "simmim_relpos_interpolation")
    fixture.close(resized_bias(fixture.io["in.swin_w6"], 6, 7), "out.swin_w6_to_w7")
    fixture.close(resized_bias(fixture.io["in.swin_w7"], 7, 12), "out.swin_w7_to_w12")
    assert torch.equal(resized_bias(fixture.io["in.swin_w6"], 6, 6), fixture.io["in.swin_w6"])


LAYOUT = Layout(
    prefixes=("encoder.",),
    drop=("decoder.*", "mask_token", "*.relative_position_index", "*.attn_mask"),
    convert="core.layouts.simmim",
    given="spec",
)


def test_every_encoder_is_found_in_a_saved_file(built, tmp_path):
    fixture, spec, recipe, batch = built
    path = tmp_path / "ckpt.pth"
    torch.save({"model": {f"module.{key}": value for key, value in fixture.weights.items()}, "epoch": 3}, path)
    encoder = spec.build()
    placed(encoder, read_encoder(path, spec, LAYOUT).weights)
    assert torch.equal(encoder.features(batch, "mean"), recipe.encoder.features(batch, "mean"))


def test_a_contract_that_these_weights_cannot_serve_is_refused():
    volume = make_input("volume", 1, (2, 2, 2), (16, 16, 16))
    wrong = SwinSpec(contract=Contract(inputs=(volume,)), width=8, depths=(1,), heads=(1,), window=(4, 4, 4))
    with pytest.raises(ConfigError, match="one 2D input"):
        encoder_weights({}, wrong)
