"""The pixel target: statistics of measured voxels only, per band, with a floor."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.shapes import patchify
from core.targets.pixels import Pixels
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("scene", 3, (4, 4), (8, 8))


def _batch():
    return make_batch(torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 5.0, 0.2])[:, None, None] + 3.0, ENTRY)


def _per_band(target, batch):
    value, _ = target(batch, batch.grid(ENTRY.patch))
    return value.reshape(2, 4, 3, 16)


def test_each_band_of_each_patch_has_mean_zero_and_unbiased_deviation_one():
    value = _per_band(Pixels(), _batch())
    torch.testing.assert_close(value.mean(-1), torch.zeros(2, 4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(value.std(-1), torch.ones(2, 4, 3), atol=1e-4, rtol=0)


def test_bands_do_not_mix():
    batch = _batch()
    before = _per_band(Pixels(), batch)
    batch.image[:, 1] *= 1000.0
    torch.testing.assert_close(_per_band(Pixels(), batch)[:, :, [0, 2]], before[:, :, [0, 2]])


def test_joint_statistics_do_mix():
    batch = _batch()
    before = _per_band(Pixels(normalise="joint"), batch)
    batch.image[:, 1] *= 1000.0
    assert float((_per_band(Pixels(normalise="joint"), batch)[:, :, 0] - before[:, :, 0]).abs().max()) > 0.1


def test_nearly_constant_patches_stay_small():
    batch = make_batch(5.0 + 1e-5 * torch.randn(2, 3, 8, 8), ENTRY)
    assert float(_per_band(Pixels(), batch).abs().max()) < 0.01
    assert float(_per_band(Pixels(variance_floor=1e-12), batch).abs().max()) > 1.0


def test_missing_voxels_have_no_weight_and_no_say():
    batch = _batch()
    batch.valid[:, :, :2, :2] = False
    batch.image[:, :, :2, :2] = 1e6
    value, weight = Pixels()(batch, batch.grid(ENTRY.patch))
    first = weight.reshape(2, 4, 3, 4, 4)[:, 0]
    assert float(first.sum()) == 2 * 3 * 12
    assert float(first[..., :2, :2].sum()) == 0
    known = value[:, 0][weight[:, 0] > 0].reshape(2, 3, 12)
    torch.testing.assert_close(known.std(-1), torch.ones(2, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalise", ["per_band", "joint", "none"])
def test_picture_undoes_the_normalisation(normalise):
    batch = _batch()
    target, grid = Pixels(normalise=normalise), batch.grid(ENTRY.patch)
    shown = target.picture(target(batch, grid)[0], batch, grid)
    torch.testing.assert_close(shown, batch.image, rtol=1e-5, atol=1e-4)
    assert target.num_values(ENTRY) == patchify(batch.image, (4, 4)).shape[2]


def test_a_floor_of_zero_is_refused():
    with pytest.raises(ConfigError, match="variance floor above 0"):
        Pixels(variance_floor=0.0)
