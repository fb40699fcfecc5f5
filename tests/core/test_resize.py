"""Reduced batches: block means over measured voxels, and places that stay where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.errors import ShapeError
from core.pos_embed import batch_positions
from core.resize import finer, reduced
from core.shapes import Grid
from core.testing.samples import INPUTS, SCENE, VOLUME, ragged_batch
from datasets import StreamSpec, TileLoader
from domains.retina import domain
from domains.retina.collection import collect
from tests.parity.fixture import make_batch, make_input

FLAT = make_input("flat", 1, (2, 2), (4, 4))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("factor", [2, 4])
def test_each_voxel_is_the_mean_of_its_block(name, factor):
    entry = INPUTS[name]
    batch = ragged_batch(entry).take([0])
    blocks = batch.image
    for axis, length in enumerate(entry.size):
        blocks = blocks.unflatten(2 + 2 * axis, (length // factor, factor))
    inner = [3 + 2 * axis for axis in range(entry.ndim)]
    torch.testing.assert_close(reduced(batch, factor).image, blocks.mean(inner))


def test_only_measured_voxels_have_a_say_and_half_of_them_must_be_there():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    batch = make_batch(image, FLAT)
    batch.valid[0, 0, 0, :2] = False  # half of the first block
    batch.valid[0, 0, 2:, 2:] = False
    batch.valid[0, 0, 3, 3] = True  # a quarter of the last
    batch.image[0, 0, 0, 0] = float("nan")
    small = reduced(batch, 2)
    assert small.valid[0, 0].tolist() == [[True, True], [True, False]]
    assert small.image[0, 0].tolist() == [[4.5, 4.5], [10.5, 0.0]]


@pytest.mark.parametrize("name", INPUTS)
def test_tokens_stay_at_their_places(name):
    entry = INPUTS[name]
    batch = ragged_batch(finer(entry, 2))
    batch = replace(batch, origin=torch.tensor(entry.spacing).expand(4, -1) * 7)
    small = reduced(batch, 2)
    assert small.size == entry.size
    torch.testing.assert_close(small.spacing[0], torch.tensor(entry.spacing))
    coarse = batch_positions(small, entry, entry.grid(), 24)
    fine = batch_positions(batch, finer(entry, 2), Grid.of(batch.size, finer(entry, 2).patch), 24)
    torch.testing.assert_close(coarse, fine)


def test_a_prior_and_a_text_come_along():
    batch = ragged_batch(VOLUME)
    batch = replace(batch, prior=torch.ones(4, 1, *VOLUME.size) * 0.25, text=torch.ones(4, 3, dtype=torch.int64))
    small = reduced(batch, 2)
    assert torch.equal(small.prior, torch.full((4, 1, 4, 16, 16), 0.25))
    assert small.text is batch.text


def test_whole_numbers_keep_their_value_space():
    batch = make_batch(torch.randint(0, 255, (2, 1, 4, 4), dtype=torch.uint8), FLAT)
    batch = replace(batch, offset=torch.full((2, 1), 100.0), scale=torch.full((2, 1), 0.5))
    torch.testing.assert_close(reduced(batch, 2).normalised().image, reduced(batch.normalised(), 2).image)


def test_block_means_let_no_neighbour_in_and_bicubic_does():
    batch = make_batch(torch.zeros(1, 1, 16, 16), FLAT)
    batch.image[..., :8, :] = 1.0
    assert float(reduced(batch, 2).image[..., 4:, :].abs().max()) == 0.0
    assert float(reduced(batch, 2, "bicubic").image[..., 4:, :].abs().max()) > 0.01


def test_one_changes_nothing():
    batch = ragged_batch(SCENE)
    assert reduced(batch, 1) is batch


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ShapeError, match=r"multiples of 3, got \(32, 48\)"):
        reduced(ragged_batch(SCENE), 3)


def test_a_volume_is_not_resized_bicubically():
    with pytest.raises(ShapeError, match="choose the method 'mean'"):
        reduced(ragged_batch(VOLUME), 2, "bicubic")


def test_a_finer_input_covers_the_same_ground():
    fine = finer(replace(VOLUME, whole_size=(16, 64, 64)), 2)
    assert (fine.size, fine.patch, fine.whole_size) == ((16, 64, 64), (4, 16, 16), (32, 128, 128))
    assert fine.spacing == (2.5, 0.5, 0.5)
    assert fine.grid().tokens == VOLUME.grid().tokens


@pytest.mark.slow
def test_fine_crops_of_a_photograph_lie_where_plain_ones_do(samples):
    entry = domain.photograph(64, 8, 64)
    manifest, _ = collect([str(samples)], quiet=True)
    manifest = manifest.select(ndim=2)
    plain, fine = (
        TileLoader(manifest, [StreamSpec(input=finer(entry, detail), batch_size=8)], seed=0) for detail in (1, 2)
    )
    for wanted, batch in zip(plain.batches(0, 2), fine.batches(0, 2), strict=True):
        small = reduced(batch.normalised(), 2)
        assert torch.equal(small.key, wanted.key)
        torch.testing.assert_close(small.spacing, wanted.spacing, rtol=0.05, atol=0)  # places are whole pixels
        torch.testing.assert_close(small.origin, wanted.origin, rtol=0, atol=1.0)
        assert float(wanted.origin.max()) > 10
        assert float((small.image - wanted.normalised().image).abs().mean()) < 0.1
