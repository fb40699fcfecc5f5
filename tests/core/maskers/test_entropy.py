"""Entropy of measured voxels; texture is hidden, and flat images fall by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.errors import ConfigError
from core.maskers.entropy import Entropy, token_entropy
from core.shapes import Grid, patchify
from tests.core.maskers.inputs import complete

FLAT = Grid((8, 8), (8, 8))
SOLID = Grid((4, 4, 4), (2, 8, 8))


def _half_textured(grid, bands, count):
    image = torch.full((count, bands, *grid.size), 0.3)
    half = grid.size[-1] // 2
    image[..., half:] = torch.randn(count, bands, *grid.size[:-1], half)
    return image


@pytest.mark.parametrize(("grid", "bands"), [(FLAT, 3), (SOLID, 1), (FLAT, 14)])
def test_texture_is_hidden_first(grid, bands):
    batch = complete(10, grid, bands=bands, image=_half_textured(grid, bands, 10))
    hide = Entropy(ratio=0.5)(batch, grid, batch.rng).hide.reshape(10, *grid.tokens)
    textured = hide[..., grid.tokens[-1] // 2 :].float().sum() / hide.float().sum()
    assert float(textured) >= 0.8


def test_equals_numpy():
    image = torch.randn(2, 2, *FLAT.size)
    valid = torch.rand(image.shape) > 0.3
    ours = token_entropy(image, valid, FLAT, 16)
    values, known = patchify(image, FLAT.patch).numpy(), patchify(valid, FLAT.patch).numpy()
    for sample in range(2):
        for token in range(0, FLAT.num_places, 7):
            found = []
            for band in range(2):
                all_values = image[sample, band][valid[sample, band]].numpy()
                own = slice(band * 64, band * 64 + 64)
                inside = values[sample, token, own][known[sample, token, own]]
                share = np.histogram(inside, 16, (all_values.min(), all_values.max()))[0] / len(inside)
                found.append(-(share[share > 0] * np.log(share[share > 0])).sum())
            assert float(ours[sample, token]) == pytest.approx(np.mean(found), abs=1e-5)


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_images_without_gaps_take_a_shorter_way_to_the_same_numbers(grid):
    image = torch.randn(3, 2, *grid.size)
    everywhere = torch.ones_like(image, dtype=torch.bool)
    short = token_entropy(image, None, grid, 16)
    assert torch.equal(short, token_entropy(image, everywhere, grid, 16))
    values = patchify(image, grid.patch)[2, 5].reshape(2, -1)
    found = []
    for own, band in zip(values, image[2], strict=True):
        share = torch.histc(own, 16, float(band.min()), float(band.max())) / len(own)
        found.append(float(-torch.special.xlogy(share, share).sum()))
    assert float(short[2, 5]) == pytest.approx(np.mean(found), abs=1e-5)


def test_a_band_that_is_missing_from_a_token_is_left_out_of_its_mean():
    image = torch.randn(1, 2, *FLAT.size)
    valid = torch.ones_like(image, dtype=torch.bool)
    valid[0, 1] = False
    both, one = token_entropy(image, valid, FLAT, 16), token_entropy(image[:, :1], valid[:, :1], FLAT, 16)
    assert torch.equal(both, one)


def test_a_flat_image_is_masked_at_random():
    batch = complete(200, FLAT, image=torch.ones(200, 1, *FLAT.size))
    share = Entropy(ratio=0.5)(batch, FLAT, batch.rng).hide.float().mean(0)
    assert 0.3 < float(share.min())
    assert float(share.max()) < 0.7


def test_flat_tokens_that_must_be_hidden_fall_by_chance():
    batch = complete(200, FLAT, image=_half_textured(FLAT, 1, 200))
    hide = Entropy(ratio=0.75)(batch, FLAT, batch.rng).hide.reshape(200, 8, 8)
    flat = hide[..., :4].float().mean(0)
    assert float(hide[..., 4:].float().mean()) > 0.97
    assert 0.35 < float(flat.min()) <= float(flat.max()) < 0.7


def test_values_are_invariant_to_the_scale_of_a_band():
    image = torch.randn(1, 2, *FLAT.size)
    valid = torch.ones_like(image, dtype=torch.bool)
    scaled = image * torch.tensor([64.0, 0.25])[:, None, None]
    torch.testing.assert_close(token_entropy(scaled, valid, FLAT, 16), token_entropy(image, valid, FLAT, 16))


def test_one_bin_and_patches_of_one_voxel_are_refused():
    with pytest.raises(ConfigError, match="2 bins"):
        Entropy(bins=1)
    with pytest.raises(ConfigError, match="several voxels"):
        Entropy().check(Grid((8, 8), (1, 1)), (1.0, 1.0))
