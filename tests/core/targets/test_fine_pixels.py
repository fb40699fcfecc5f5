"""Fine pixels: token i is block i of an image at a multiple of the encoder's resolution."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError, ShapeError
from core.groups import by_group
from core.resize import finer
from core.shapes import patchify, unpatchify
from core.targets.fine_pixels import FinePixels
from core.targets.pixels import Pixels
from core.testing.samples import INPUTS, SCENE, grouped, ragged_batch


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("detail", [1, 2])
def test_token_i_is_block_i(name, detail):
    entry = INPUTS[name]
    batch, grid = ragged_batch(finer(entry, detail)), entry.grid()
    number = torch.arange(grid.num_tokens, dtype=torch.float32)
    edges = tuple(edge * detail for edge in entry.patch)
    blocks = number[None, :, None].expand(4, -1, FinePixels(detail=detail).num_values(entry))
    batch.image.copy_(unpatchify(blocks, finer(entry, detail).grid()))
    value, weight = FinePixels(detail=detail, normalise="none")(batch, grid)
    assert torch.equal(value, blocks)
    assert torch.equal(weight, patchify(batch.valid, edges))


@pytest.mark.parametrize("name", INPUTS)
def test_values_are_normalised_over_the_measured_voxels_of_the_fine_block(name):
    entry = INPUTS[name]
    batch = ragged_batch(finer(entry, 2)).normalised()
    value, weight = FinePixels()(batch, entry.grid())
    bands = len(entry.bands)
    v, w = (t.reshape(4, -1, bands, t.shape[2] // bands) for t in (value, weight))
    count = w.sum(-1)
    mean = (v * w).sum(-1) / count.clamp(min=1)
    enough = count > 50
    assert float(mean[enough].abs().max()) < 1e-4
    spread = (((v - mean[..., None]) * w).square().sum(-1) / (count - 1).clamp(min=1)).sqrt()
    torch.testing.assert_close(spread[enough], torch.ones_like(spread[enough]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("normalise", ["per_band", "joint", "none"])
def test_a_picture_undoes_the_normalisation_at_full_detail(normalise):
    batch = ragged_batch(finer(SCENE, 2)).take([0]).normalised()
    target = FinePixels(normalise=normalise)
    value, _ = target(batch, SCENE.grid())
    shown = target.picture(value, batch, SCENE.grid())
    assert shown.shape == (1, 6, 64, 96)
    torch.testing.assert_close(shown, batch.image, atol=1e-4, rtol=1e-4)


def test_groups_of_bands_have_blocks_of_their_own():
    entry = grouped(SCENE)
    batch = ragged_batch(finer(entry, 2))
    value, weight = by_group(FinePixels(), batch, entry.grid())
    assert value.shape == weight.shape == (4, 48, FinePixels().num_values(entry))
    assert FinePixels().num_values(entry) == 4 * Pixels().num_values(entry) == 4 * 4 * 64
    assert not bool(weight[:, :24, 2 * 256 :].any())


def test_an_image_at_the_encoders_own_size_is_refused():
    with pytest.raises(ShapeError, match=r"expected a fine image of \(64, 96\), 2 times"):
        FinePixels()(ragged_batch(SCENE), SCENE.grid())


def test_a_detail_below_one_is_refused():
    with pytest.raises(ConfigError, match="detail of 1 or more, got 0"):
        FinePixels(detail=0)
    with pytest.raises(ConfigError, match="variance floor above 0"):
        FinePixels(variance_floor=0.0)
