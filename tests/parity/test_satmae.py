"""SatMAE's group-channel models against the release: `mae` on an input with band groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.layouts.satmae import encoder_weights, predictor_weights
from core.losses import masked_mean, squared
from core.plan import Plan
from core.pos_embed import PositionRule
from core.predictors.transformer import TransformerSpec
from core.recipes.mae import Mae
from core.shapes import patchify
from core.targets.pixels import Pixels
from tests.parity.fixture import Fixture, FromNoise, grad_norms, make_batch, make_input, placed
from tests.parity.released import from_file

pytestmark = pytest.mark.parity


def _entry(config):
    entry = make_input("scene", config["in_chans"], (config["patch_size"],) * 2, (config["img_size"],) * 2)
    return replace(entry, groups=tuple(tuple(f"band{i}" for i in group) for group in config["channel_groups"]))


def _encoder(config, entry):
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        tables={entry.name: (4, 4)},
    )


@pytest.fixture(params=["independent", "spatial"])
def built(parity, request):
    fixture = Fixture(parity / f"satmae_group_{request.param}")
    c = fixture.config
    entry = _entry(c)
    spec = Mae(
        encoder=_encoder(c, entry),
        predictor=TransformerSpec(
            width=c["decoder_embed_dim"],
            depth=c["decoder_depth"],
            heads=c["decoder_num_heads"],
            mlp_ratio=c["mlp_ratio"],
            tables={entry.name: (4, 4)},
        ),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
    )
    recipe = spec.build()
    weights = {f"encoder.{k}": v for k, v in encoder_weights(fixture.weights, entry).items()}
    weights |= {f"predictors.image.{k}": v for k, v in predictor_weights(fixture.weights, entry).items()}
    placed(recipe, weights)
    return fixture, recipe, make_batch(fixture.io["in.imgs"], entry), entry


def _prediction(built):
    """Plan, tokens and the prediction laid out as theirs: (B, C, places, voxels), bands in the order of the groups."""
    _, recipe, batch, entry = built
    grid = entry.grid(batch.size)
    plan = recipe.masker(batch, grid, batch.rng)
    tokens = recipe.encoder(batch, plan)
    found = recipe.predictors["image"](tokens, plan, batch)
    parts = found.reshape(len(batch), grid.num_groups, grid.num_places, -1, grid.voxels).unbind(1)
    bands = [part[:, :, : len(group)].movedim(2, 1) for part, group in zip(parts, entry.groups, strict=True)]
    return plan, tokens, torch.cat(bands, dim=1)


def _target(built):
    """Their target (B, C, places, voxels), bands in their own order; normalised over all bands of a patch together."""
    fixture, _, batch, entry = built
    target = Pixels(normalise="joint" if fixture.config["norm_pix_loss"] else "none")
    value, _ = target(batch, entry.grid(batch.size).plain)
    return value.reshape(*value.shape[:2], len(entry.bands), -1).movedim(2, 1)


def _loss(prediction, value, hide, groups):
    """Each hidden token counts the same, however many bands its group has."""
    error = squared(prediction, value).mean(-1)  # (B, C, places)
    tokens = torch.cat([error[:, list(group)].mean(1) for group in groups], dim=1)
    return masked_mean(tokens, hide)


def test_embedding_mask_and_encoder(built):
    fixture, recipe, batch, entry = built
    plan, tokens, _ = _prediction(built)
    stem = recipe.encoder.stems[entry.name](batch)
    fixture.close(stem[:, :16], "mid.patch_embed.0")
    fixture.close(stem[:, 32:], "mid.patch_embed.2")
    fixture.close(plan.hide.float().reshape(2, 3, 16), "out.mask")
    fixture.close(patchify(batch.image, entry.patch), "out.patchify")
    # their order of visible tokens is that of the noise, within each group where the mask is spatial
    theirs = fixture.io["mid.norm"]
    noise = fixture.io["in.noise"]
    if noise.shape[1] == 48:
        kept = noise.argsort(1)[:, :12]
    else:
        kept = torch.cat([noise.argsort(1)[:, :4] + 16 * group for group in range(3)], dim=1)
    raster = kept.argsort(1)
    fixture.close(tokens.prefix, theirs[:, :1])
    fixture.close(tokens.value, theirs[:, 1:].gather(1, raster[..., None].expand_as(tokens.value)))


def test_the_pretraining_file_gives_the_encoder_alone(built, tmp_path):
    fixture, recipe, batch, _ = built
    encoder = from_file(recipe.encoder.spec, fixture.weights, tmp_path, "satmae-base")
    assert torch.equal(encoder(batch).value, recipe.encoder(batch).value)


def test_positions_and_group_codes_stand_side_by_side(built):
    """What a pretrained file stores is what a rule computes: no table is needed to train as SatMAE does."""
    fixture, recipe, batch, entry = built
    rule = PositionRule(count="index", group_channels=fixture.config["channel_embed"])
    spec = replace(recipe.encoder.spec, tables={}, positions=rule)
    encoder = spec.build()
    stored = recipe.encoder.state_dict()
    fixture.close(encoder._positions(entry, entry.grid(), batch)[1], stored.pop("tables.scene")[:, 1:])
    encoder.load_state_dict(stored)
    fixture.close(encoder(batch).value, recipe.encoder(batch).value)
    fresh = replace(spec, tables={"scene": (4, 4)}).build()
    fixture.close(fresh.tables["scene"][:, 1:], recipe.encoder.tables["scene"][:, 1:])


def test_prediction(built):
    fixture, *_ = built
    fixture.close(_prediction(built)[2], "out.pred")


def test_loss_with_bands_that_meet_their_own(built):
    fixture, _, _, entry = built
    plan, _, prediction = _prediction(built)
    order = [entry.bands.index(band) for group in entry.groups for band in group]
    starts = torch.tensor([len(group) for group in entry.groups]).cumsum(0).tolist()
    groups = [range(end - len(group), end) for end, group in zip(starts, entry.groups, strict=True)]
    loss = _loss(prediction, _target(built)[:, order], plan.hide, groups)
    fixture.close(loss, "out.loss_if_channels_aligned")


def test_loss_of_the_release_compares_other_bands(built):
    """The release sets predictions, ordered by group, against targets in file order; gradients follow that loss."""
    fixture, recipe, *_ = built
    plan, _, prediction = _prediction(built)
    loss = _loss(prediction, _target(built), plan.hide, fixture.config["channel_groups"])
    fixture.close(loss, "out.loss")
    assert abs(float(loss.detach()) - float(fixture.io["out.loss_if_channels_aligned"])) > 1e-3
    loss.backward()
    ours = dict(recipe.named_parameters())
    norms = fixture.grad_norms()
    assert len(norms) == 56
    for key, norm in norms.items():
        assert grad_norms(ours[_ours(key)].grad) == pytest.approx(norm, rel=1e-3), key
    assert ours["encoder.tables.scene"].grad is None


def _ours(key):
    for theirs, ours in {
        "cls_token": "encoder.class_token",
        "patch_embed.": "encoder.stems.scene.embeddings.",
        "blocks.": "encoder.blocks.",
        "norm.": "encoder.norm.",
        "mask_token": "predictors.image.mask_token",
        "decoder_embed.": "predictors.image.embed.",
        "decoder_blocks.": "predictors.image.blocks.",
        "decoder_norm.": "predictors.image.norm.",
        "decoder_pred.": "predictors.image.heads.scene.",
    }.items():
        if key.startswith(theirs):
            return (ours + key[len(theirs) :]).replace(".proj.", "." if "embeddings" in ours else ".proj.")
    raise KeyError(key)


def test_finetuned_features_and_logits(parity, tmp_path):
    fixture = Fixture(parity / "satmae_group_vit_gap")
    entry = _entry(fixture.config)
    encoder = from_file(_encoder(fixture.config, entry), fixture.weights, tmp_path, "satmae-large-finetuned")
    features = encoder.features(make_batch(fixture.io["in.imgs"], entry), "mean_then_norm")
    fixture.close(features, "out.features")
    logits = functional.linear(features, fixture.weights["head.weight"], fixture.weights["head.bias"])
    fixture.close(logits, "out.logits")


def test_a_group_that_is_absent_counts_as_one_that_is_not_seen(parity, tmp_path):
    fixture = Fixture(parity / "satmae_group_vit_gap")
    entry = _entry(fixture.config)
    encoder = from_file(_encoder(fixture.config, entry), fixture.weights, tmp_path, "satmae-large-finetuned")
    batch = make_batch(fixture.io["in.imgs"], entry)
    there = batch.valid.clone()
    there[:, 8:] = False
    lacking = encoder(replace(batch, valid=there, image=torch.where(there, batch.image, torch.nan)).normalised())
    see = torch.arange(48).expand(2, -1) < 32
    unseen = encoder(batch, Plan(see=see, hide=~see))
    fixture.close(lacking.value[:, :32], unseen.value)
    fixture.close(lacking.prefix, unseen.prefix)
    assert float((encoder(batch).prefix - unseen.prefix).detach().abs().max()) > 0.01
