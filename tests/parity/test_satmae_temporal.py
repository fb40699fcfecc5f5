"""SatMAE's temporal model against the release: `mae` on series of dated frames, each patch of one frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.errors import CheckpointError, ConfigError, DataError, ShapeError
from core.layouts.satmae import encoder_weights, predictor_weights
from core.maskers.random import Random
from core.maskers.tube import Tube
from core.pos_embed import PositionRule, batch_positions, grid_positions
from core.predictors.transformer import TransformerSpec
from core.recipes.mae import Mae
from core.shapes import Grid
from core.targets.pixels import Pixels
from tests.parity.fixture import Fixture, FromNoise, make_batch, make_input, placed
from tests.parity.released import from_file

pytestmark = pytest.mark.parity

RULE = PositionRule(count="index", shares=(1, 1, 2), frames="time")
"""12, 12 and 24 of 48 channels; the release's 320, 320 and 384 of 1024 are shares of 5, 5 and 6."""


def _batch(fixture, entry):
    """Their frames are an axis before the bands, their times count from January 2002."""
    batch = make_batch(fixture.io["in.imgs"].movedim(1, 2).contiguous(), entry)
    return replace(batch, times=fixture.io["in.timestamps"] + torch.tensor([2002.0, 1.0, 0.0]))


def _masker(fixture):
    same = fixture.io["in.noise_third"].repeat(1, 3)  # one draw for all frames
    noise = same if fixture.config["same_mask"] else fixture.io["in.noise"]
    return FromNoise(noise=noise, ratio=fixture.config["mask_ratio"])


@pytest.fixture(params=["indepmask", "samemask"])
def built(parity, request):
    fixture = Fixture(parity / f"satmae_temporal_{request.param}")
    c = fixture.config
    entry = make_input(
        "series", c["in_chans"], (1, c["patch_size"], c["patch_size"]), (3, c["img_size"], c["img_size"])
    )
    spec = Mae(
        encoder=ViTSpec(
            contract=Contract(inputs=(entry,)),
            width=c["embed_dim"],
            depth=c["depth"],
            heads=c["num_heads"],
            mlp_ratio=c["mlp_ratio"],
            positions=RULE,
        ),
        predictor=TransformerSpec(
            width=c["decoder_embed_dim"],
            depth=c["decoder_depth"],
            heads=c["decoder_num_heads"],
            mlp_ratio=c["mlp_ratio"],
        ),
        masker=_masker(fixture),
        target=Pixels(normalise="joint"),
    )
    recipe = spec.build()
    weights = {f"encoder.{k}": v for k, v in encoder_weights(fixture.weights, entry).items()}
    weights |= {f"predictors.image.{k}": v for k, v in predictor_weights(fixture.weights, entry).items()}
    assert len(weights) == 50 - 2 + 1  # ours computes two tables, and has a vector for missing data
    placed(recipe, weights)
    return fixture, recipe, _batch(fixture, entry), entry


def test_mask_prediction_and_loss(built):
    fixture, recipe, batch, entry = built
    plan = recipe.masker(batch, entry.grid(), batch.rng)
    fixture.close(plan.hide.float(), "out.mask")
    found = recipe.predictors["image"](recipe.encoder(batch, plan), plan, batch)
    theirs = found.unflatten(2, (len(entry.bands), -1)).transpose(2, 3).flatten(2)  # a pixel's bands side by side
    fixture.close(theirs, "out.pred")
    fixture.close(recipe(batch, batch.rng).loss, "out.loss")


def test_the_positions_that_files_store_are_those_that_are_computed(built):
    fixture, _, batch, entry = built
    for theirs, width, rule in (("pos_embed", 48, RULE), ("decoder_pos_embed", 32, None)):
        stored = fixture.weights[theirs]
        assert not stored[:, 0].any()
        ours = batch_positions(batch, entry, entry.grid(), width, rule).unflatten(1, (3, 16))
        assert ours.shape[0] == 2
        for frame in ours.unbind(1):
            fixture.close(frame[..., : stored.shape[2]], stored[:, 1:].expand(2, -1, -1))


def test_the_pretraining_file_gives_the_encoder_alone(built, tmp_path):
    fixture, recipe, batch, _ = built
    encoder = from_file(recipe.encoder.spec, fixture.weights, tmp_path, "satmae-temporal-large")
    assert torch.equal(encoder(batch).value, recipe.encoder(batch).value)
    tuned = fixture.weights | {"pos_embed": fixture.weights["pos_embed"] + 1e-4}
    with pytest.raises(CheckpointError, match=r"pos_embed: expected the sines and cosines of \(4, 4\) patches"):
        from_file(recipe.encoder.spec, tuned, tmp_path, "satmae-temporal-large")


def test_frames_are_a_set_whose_order_their_times_tell(built):
    _, recipe, batch, _ = built
    order = [2, 0, 1]
    moved = replace(batch, image=batch.image[:, :, order], valid=batch.valid[:, :, order], times=batch.times[:, order])
    ours, theirs = recipe.encoder(batch), recipe.encoder(moved)
    torch.testing.assert_close(theirs.value.unflatten(1, (3, 16)), ours.value.unflatten(1, (3, 16))[:, order])
    torch.testing.assert_close(theirs.prefix, ours.prefix)
    later = recipe.encoder(replace(batch, times=batch.times + torch.tensor([0.0, 1.0, 0.0])))
    assert float((later.prefix - ours.prefix).detach().abs().max()) > 1e-3


def test_frames_without_times_are_refused(built):
    _, recipe, batch, _ = built
    with pytest.raises(DataError, match=r"expected the year, month and hour of each frame.*give the batch its `times`"):
        recipe.encoder(replace(batch, times=None))


def test_masks_of_the_release_are_maskers_of_the_house(built):
    """Each frame on its own, or the same places in all: `random` and `tube`."""
    fixture, _, batch, entry = built
    masker = Tube() if fixture.config["same_mask"] else Random()
    hidden = masker(batch, entry.grid(), batch.rng).hide.reshape(2, 3, 16)
    assert hidden.sum().item() == 2 * 36
    assert bool((hidden == hidden[:, :1]).all()) == fixture.config["same_mask"]


def test_the_published_width_is_shared_as_the_release_shares_it():
    rule = PositionRule(count="index", shares=(5, 5, 6), frames="time")
    plane = grid_positions(Grid((14, 14), (16, 16)), 640)
    entry = make_input("series", 3, (1, 16, 16), (3, 224, 224))
    batch = replace(make_batch(torch.zeros(1, 3, 3, 224, 224), entry), times=torch.tensor([[[2014.0, 7, 12]] * 3]))
    codes = batch_positions(batch, entry, entry.grid(), 1024, rule)
    assert torch.equal(codes[:, :196, :640], plane)
    since = torch.tensor([12.0, 6.0, 12.0])
    assert torch.equal(codes[0, 0, [640, 768, 896]], since.double().sin().float())  # the fastest sine of each
    assert torch.equal(codes[0, 0, [704, 832, 960]], since.double().cos().float())


def test_times_go_with_their_samples_and_fit_the_frames():
    entry = make_input("series", 3, (1, 8, 8), (3, 32, 32))
    times = torch.arange(18.0).reshape(2, 3, 3)
    batch = replace(make_batch(torch.rand(2, 3, 3, 32, 32), entry), times=times)
    assert torch.equal(batch.take([1]).times, times[1:])
    assert batch.normalised().times is times
    with pytest.raises(ShapeError, match=r"expected times \(2, 3, 3\), year, month and hour.*got \(2, 2, 3\)"):
        replace(batch, times=times[:, :2])
    scene = make_input("scene", 3, (8, 8), (32, 32))
    one = replace(make_batch(batch.image[:, :, 0], scene), times=times[:, :1])
    first = batch_positions(batch, entry, entry.grid(), 48, RULE)[:, :16]
    assert torch.equal(batch_positions(one, scene, scene.grid(), 48, RULE), first)  # a scene is a series of one frame


def test_an_encoder_that_counts_frames_does_not_look_at_their_times():
    entry = make_input("series", 3, (1, 8, 8), (3, 32, 32))
    plain = make_batch(torch.rand(2, 3, 3, 32, 32), entry)
    dated = replace(plain, times=torch.arange(18.0).reshape(2, 3, 3))
    for rule in (PositionRule(count="index", shares=(1, 1, 2)), PositionRule()):
        ours, theirs = (batch_positions(batch, entry, entry.grid(), 48, rule) for batch in (plain, dated))
        assert torch.equal(ours, theirs)
    thick = make_input("series", 3, (3, 8, 8), (3, 32, 32))  # a predictor of patches that no one time has
    assert torch.equal(*(batch_positions(batch, thick, thick.grid(), 48) for batch in (plain, dated)))


def test_inputs_that_no_time_fits_are_refused():
    def spec(patch=(1, 8, 8), width=48, **options):
        entry = make_input("series", 3, patch, (3, 32, 32))
        return ViTSpec(contract=Contract(inputs=(entry,)), width=width, depth=1, heads=2, positions=RULE, **options)

    assert spec().positions is RULE
    with pytest.raises(ConfigError, match=r"input 'series': expected patches of one frame.*got \(3, 8, 8\)"):
        spec(patch=(3, 8, 8))
    with pytest.raises(ConfigError, match="expected no position tables where frames are told apart by time"):
        spec(tables={"series": (3, 4, 4)})
    with pytest.raises(ShapeError, match="expected an even width of at least 6 for 3D positions, got 4"):
        spec(width=8)
    with pytest.raises(ConfigError, match=r"expected a share for x, y and time, or none of them, got \(1, 1\)"):
        PositionRule(shares=(1, 1), frames="time")
