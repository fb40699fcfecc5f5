"""Cards of the satellite peers: value spaces by hand-made numbers, and what each encoder reads, at the size of the smallest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.contract import Contract
from core.encoders.cards import get_card
from core.encoders.cards.prithvi import BANDS
from core.encoders.cards.satmae import sentinel2_input
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.errors import BandError
from core.pos_embed import grid_positions
from core.preprocess import prepare
from core.shapes import Grid
from core.weights import Placement
from datasets import open_image


def _encoder(spec):
    torch.manual_seed(0)
    return Encoder(spec.build().eval(), pool="mean", report=Placement(()))


def test_satmae_scales_two_deviations_to_one_and_cuts_off_the_rest():
    entry = sentinel2_input()
    mean, std = 1184.382e-4, 650.284e-4  # B02
    levels = np.array([mean, mean - std, mean + 2 * std, mean + 9 * std], dtype=np.float32)
    image = np.zeros((10, 96, 96), dtype=np.float32)
    image[0] = np.repeat(levels, 24)
    ready = prepare(image, entry.bands, entry)
    value = (ready.image[0] - ready.offset[0]) * ready.scale[0]
    np.testing.assert_allclose(value[0, ::24], [0.5, 0.25, 1.0, 1.0], atol=1e-6)


def test_satmae_reads_ten_of_thirteen_bands_by_name_and_does_without_a_group():
    entry = sentinel2_input()
    encoder = _encoder(ViTSpec(contract=Contract(inputs=(entry,)), width=32, depth=1, heads=2))
    order = ("B12", "B11", "B10", "B09", "B8A", "B08", "B07", "B06", "B05", "B04", "B03", "B02", "B01")
    image = np.random.default_rng(0).uniform(0.05, 0.4, (13, 96, 96)).astype(np.float32)
    batch = encoder.preprocess(image, bands=order)
    tokens = encoder.backbone(batch)
    assert tokens.value.shape == (1, 3 * 144, 32)
    first = [order.index(band) for band in entry.bands]
    assert torch.equal(encoder(batch), encoder(encoder.preprocess(image[first], bands=entry.bands)))
    changed = image.copy()
    changed[order.index("B10")] += 0.3
    assert torch.equal(encoder(batch), encoder(encoder.preprocess(changed, bands=order)))
    image[:2] = np.nan  # B12 and B11 make the last group
    lacking = encoder.backbone(encoder.preprocess(image, bands=order))
    assert lacking.ok.reshape(3, 144).all(dim=1).tolist() == [True, True, False]
    with pytest.raises(BandError, match="B8A"):
        encoder.preprocess(image[5:], bands=order[5:])


def test_prithvi_reads_scenes_and_series_of_reflectance():
    card = get_card("prithvi-eo-2.0-tiny-tl")
    encoder = _encoder(card.spec())
    assert sum(p.numel() for name, p in encoder.named_parameters() if "nodata" not in name) - 6 * 256 * 192 - 192 == (
        card.parameters
    )
    mean = np.array([1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0], dtype=np.float32) / 10000
    scene = np.broadcast_to(mean[:, None, None], (6, 224, 224)).copy()
    batch = encoder.preprocess(scene, bands=BANDS)
    assert float(batch.image.abs().max()) < 1e-5
    assert encoder.tokens(batch).shape == (1, 196, 192)
    finer = replace(batch, spacing=batch.spacing / 3, origin=torch.full((1, 2), 9e4))
    assert torch.equal(encoder(finer), encoder(batch))  # the release counts patches, wherever and however fine
    for frames in (1, 3):
        series = np.broadcast_to(mean[:, None, None, None], (6, frames, 32, 32)).copy()
        entry = replace(encoder.contract.inputs[1], size=(frames, 32, 32))
        ready = torch.from_numpy(prepare(series, entry.bands, entry).image)[None]
        assert encoder.tokens(ready).shape == (1, frames * 4, 192)
    with pytest.raises(BandError, match=r"'nir_narrow', 'swir1', 'swir2'.*B06"):  # numbers differ between satellites
        encoder.preprocess(scene, bands=("B02", "B03", "B04", "B05", "B06", "B07"))


@pytest.mark.parametrize("name", ["scalemae", "satmae-rgb", "remoteclip", "remoteclip-rn50", "retfound-dinov2"])
def test_colour_encoders_read_the_three_bands_that_rgb_files_have(name):
    contract = get_card(name).spec().contract
    assert [entry.bands for entry in contract.inputs] == [("red", "green", "blue")]
    assert contract.inputs[0].size == (224, 224)


@pytest.fixture
def scalemae():
    return _encoder(replace(get_card("scalemae").spec(), width=32, depth=1, heads=2))


def test_scalemae_counts_metres_and_is_asked_at_its_reference_where_none_are_known(scalemae):
    image = np.random.default_rng(0).random((3, 224, 224)).astype(np.float32)
    places = (None, (2.5, 2.5), (10.0, 10.0))
    unknown, reference, coarse = (scalemae(scalemae.preprocess(image, spacing=spacing)) for spacing in places)
    assert torch.equal(unknown, reference)
    assert float((unknown - coarse).detach().abs().max()) > 1e-3


def _places(encoder, batch):
    (entry,) = encoder.contract.inputs
    return encoder.backbone._positions(entry, entry.grid(batch.size), batch)[1].unflatten(1, (14, 14))


def test_scalemae_reads_the_ground_distance_of_a_geotiff(scalemae, shared):
    image = open_image(shared / "data" / "satellite" / "misc_geotiff" / "RGB.byte.tif")
    batch = scalemae.preprocess(image)
    assert batch.spacing[0].tolist() == pytest.approx([300.0418, 300.0379], abs=1e-3)
    expected = grid_positions(Grid((14, 14), (16, 16)), 32, torch.tensor([[300.0418, 300.0379]]))
    torch.testing.assert_close(_places(scalemae, batch).flatten(1, 2), expected, rtol=0.0, atol=1e-2)


def test_every_second_place_of_a_picture_is_a_place_of_one_half_as_fine(scalemae):
    image = np.zeros((3, 224, 224), np.float32)
    fine, coarse = (_places(scalemae, scalemae.preprocess(image, spacing=(metres, metres))) for metres in (2.5, 5.0))
    torch.testing.assert_close(fine[:, ::2, ::2], coarse[:, :7, :7])
