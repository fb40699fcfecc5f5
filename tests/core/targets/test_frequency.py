"""Amplitudes per patch and band: the transform's own numbers, no weight where a voxel is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.errors import ConfigError
from core.groups import by_group
from core.shapes import patchify
from core.targets.frequency import Frequency
from core.testing.samples import CUBE, SCENE, VOLUME, grouped, ragged_batch
from tests.parity.fixture import make_batch, make_input

BOTH = pytest.mark.parametrize("entry", [SCENE, VOLUME], ids=["2d", "3d"])


@BOTH
def test_equals_the_transform_of_each_patch_and_band(entry):
    batch = ragged_batch(entry).normalised()
    value, weight = Frequency(scale="none")(batch, entry.grid())
    assert value.shape == weight.shape == (4, entry.grid().num_tokens, Frequency().num_values(entry))
    patches = patchify(batch.image, entry.patch).numpy().reshape(4, -1, len(entry.bands), *entry.patch)
    for token, band in ((0, 0), (5, len(entry.bands) - 1)):
        expected = np.abs(np.fft.rfftn(patches[0, token, band])) / math.sqrt(entry.grid().voxels)
        found = value[0, token].reshape(len(entry.bands), -1)[band].numpy()
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Frequency()(batch, entry.grid())[0], torch.log1p(value))


def test_a_wave_has_one_amplitude_wherever_it_begins():
    entry = make_input("photograph", 1, (8, 8), (8, 8))
    x = torch.arange(8.0).expand(8, 8)
    waves = torch.stack([3.0 * torch.cos(2 * math.pi * (2 * x + shift) / 8) for shift in (0.0, 1.0, 2.5)])[:, None]
    value, weight = Frequency(scale="none")(make_batch(waves, entry), entry.grid())
    spectrum = value.reshape(3, 8, 5)
    torch.testing.assert_close(spectrum[:, 0, 2], torch.full((3,), 3.0 / 2 * 8))
    spectrum[:, 0, 2] = 0.0
    assert float(spectrum.max()) < 1e-5
    assert weight.dtype == torch.bool
    assert bool(weight.all())


@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE], ids=["2d", "3d", "14 bands"])
def test_a_patch_with_a_missing_voxel_has_no_weight_in_that_band(entry):
    batch = ragged_batch(entry).normalised()
    _, weight = Frequency()(batch, entry.grid())
    whole = patchify(batch.valid, entry.patch).reshape(4, -1, len(entry.bands), entry.grid().voxels).all(3)
    assert torch.equal(weight.reshape(*whole.shape, -1).all(3), whole)
    assert torch.equal(weight.reshape(*whole.shape, -1).any(3), whole)
    assert int(whole.sum()) < whole.numel() - whole[3].numel()


def test_missing_content_moves_nothing_that_has_weight():
    batch = ragged_batch(SCENE)
    first = Frequency()(batch.normalised(), SCENE.grid())
    batch.image[~batch.valid] = math.nan
    again = Frequency()(batch.normalised(), SCENE.grid())
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_groups_have_the_size_of_the_largest():
    entry, batch = grouped(SCENE), ragged_batch(SCENE).normalised()
    value, weight = by_group(Frequency(), batch, entry.grid())
    assert value.shape == (4, 48, Frequency().num_values(entry)) == (4, 48, 4 * 8 * 5)
    assert not bool(weight[:, :24, 2 * 8 * 5 :].any())


def test_it_is_no_image_and_knows_its_scales():
    batch = ragged_batch(SCENE).normalised()
    assert Frequency().picture(torch.zeros(4, 24, 240), batch, SCENE.grid()) is None
    with pytest.raises(ConfigError, match="'log' or 'none'"):
        Frequency(scale="decibel")
