"""Scale-MAE against the release: positions in metres, masked encoder, fine-tuned features on an image of another size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.plan import hide_share
from core.pos_embed import PositionRule, batch_positions, grid_positions
from core.shapes import Grid
from tests.parity.fixture import Fixture, in_raster, make_batch, make_input
from tests.parity.released import from_file

pytestmark = pytest.mark.parity

METRES = PositionRule(count="crop", unit=1.0)


def _entry(config):
    entry = make_input("scene", config["in_chans"], (config["patch_size"],) * 2, (config["img_size"],) * 2)
    return replace(entry, unit="m", spacing=(2.5, 2.5))


def _scene(fixture, entry):
    """Their ratio is our spacing in metres; where the crop lies in its scene must not matter."""
    batch = make_batch(fixture.io["in.imgs"], entry)
    spacing = fixture.io["in.res"][:, None].expand(-1, 2)
    return replace(batch, unit="m", spacing=spacing, origin=torch.tensor([[4e4, 7e3], [0.0, 1e3]]))


def _encoder(fixture, entry, folder):
    c = fixture.config
    spec = ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=c["embed_dim"],
        depth=c["depth"],
        heads=c["num_heads"],
        mlp_ratio=c["mlp_ratio"],
        positions=METRES,
    )
    return from_file(spec, fixture.weights, folder, "scalemae-large")


def test_positions_are_the_ground_distance(parity):
    fixture = Fixture(parity / "scalemae_gsd_pos_embed")
    grid, entry = Grid((6, 6), (8, 8)), make_input("scene", 3, (8, 8), (48, 48))
    scales = fixture.io["in.res"][:, None].expand(-1, 2)
    theirs = fixture.io["out.pos_14_res"]
    assert bool((theirs[:, 0] == 0).all())
    batch = replace(make_batch(torch.zeros(4, 3, 48, 48), entry), spacing=scales)
    ours = batch_positions(batch, replace(entry, spacing=(10.0, 10.0)), grid, 64, METRES)
    fixture.close(ours, theirs[:, 1:])
    fixture.close(grid_positions(grid, 64)[0], fixture.io["out.plain_mae"][1:])
    fixture.close(grid_positions(Grid((4, 4), (8, 8)), 32, scales), "out.pos_nocls")


def test_masked_encoder(parity, tmp_path):
    fixture = Fixture(parity / "scalemae_mae_encoder")
    entry = _entry(fixture.config)
    batch, noise = _scene(fixture, entry), fixture.io["in.noise"]
    plan = hide_share(noise, torch.ones_like(noise, dtype=torch.bool), 0.75)
    fixture.close(plan.hide.float(), "out.mask")
    tokens = _encoder(fixture, entry, tmp_path)(batch, plan)
    theirs = fixture.io["out.latent"]
    fixture.close(tokens.prefix, theirs[:, :1])
    fixture.close(tokens.value, in_raster(theirs[:, 1:], noise))


@pytest.mark.parametrize(("name", "pool"), [("gap", "mean_then_norm"), ("cls", "cls")])
def test_finetuned_features_of_an_image_of_another_size(parity, tmp_path, name, pool):
    fixture = Fixture(parity / f"scalemae_vit_{name}")
    entry = _entry(fixture.config)
    batch = _scene(fixture, entry)
    assert batch.size == (96, 96)
    encoder = _encoder(fixture, entry, tmp_path)
    features = encoder.features(batch, pool)
    fixture.close(features, "out.features")
    logits = functional.linear(features, fixture.weights["head.weight"], fixture.weights["head.bias"])
    fixture.close(logits, "out.logits")
    with pytest.raises(AssertionError):  # at one spacing for all the numbers are others: the scale is read
        fixture.close(encoder.features(replace(batch, spacing=torch.ones(2, 2)), pool), "out.features")
