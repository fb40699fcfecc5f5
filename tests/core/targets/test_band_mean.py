"""The mean of each band over the measured voxels of a token."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.targets.band_mean import BandMean
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("pair", 2, (2, 2), (4, 4))


def _batch():
    return make_batch(torch.arange(32.0).reshape(1, 2, 4, 4), ENTRY)


def test_means_per_token_and_band():
    value, weight = BandMean()(_batch(), ENTRY.grid())
    # upper left voxels of band 0: 0, 1, 4, 5; band 1 is 16 more; tokens lie 2 and 8 apart
    torch.testing.assert_close(value[0, :, 0], torch.tensor([2.5, 4.5, 10.5, 12.5]))
    torch.testing.assert_close(value[0, :, 1], torch.tensor([18.5, 20.5, 26.5, 28.5]))
    assert bool(weight.all())


def test_missing_voxels_take_no_part_and_half_must_be_there():
    batch = _batch()
    batch.valid[0, 0, 0, 0:2] = False  # 4 and 5 are left
    batch.valid[0, 0, 0:2, 2:4] = False
    batch.valid[0, 0, 0, 2] = True  # 2 alone is left
    value, weight = BandMean()(batch, ENTRY.grid())
    assert value[0, 0, 0] == 4.5
    assert weight[0, :, 0].tolist() == [True, False, True, True]
    assert bool(weight[0, :, 1].all())
    assert BandMean(least=0.25)(batch, ENTRY.grid())[1][0, 1, 0]


def test_a_picture_fills_each_token_with_its_means():
    batch = _batch()
    value, _ = BandMean()(batch, ENTRY.grid())
    image = BandMean().picture(value, batch, ENTRY.grid())
    assert image.shape == batch.image.shape
    assert bool((image[0, 1, 2:, :2] == 26.5).all())


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="expected a share above 0"):
        BandMean(least=0.0)
