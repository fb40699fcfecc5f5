"""Invariant 6: positions differ from token to token on every grid, at every spacing, and are never trained by accident."""

from __future__ import annotations

import pytest
import torch

from core.errors import ShapeError
from core.pos_embed import axis_widths, by_groups, grid_positions, resample_table
from core.shapes import Grid

GRIDS = [(14, 14), (7, 20), (1, 30), (4, 8, 6), (1, 9, 9), (10, 10, 10)]


@pytest.mark.parametrize("tokens", GRIDS)
@pytest.mark.parametrize("width", [24, 64, 192, 1024])
def test_every_token_has_its_own_position(tokens, width):
    table = grid_positions(Grid(tokens, tokens), width)[0]
    assert table.shape == (Grid(tokens, tokens).num_tokens, width)
    assert float(table.var(dim=0).max()) > 1e-3
    nearest = torch.cdist(table.double(), table.double()).fill_diagonal_(torch.inf).min()
    assert float(nearest) > 1e-3


@pytest.mark.parametrize("width", [24, 96, 1024])
def test_a_single_slice_has_the_flat_positions(width):
    flat_width = sum(axis_widths(width, 3)[:2])
    flat, solid = grid_positions(Grid((6, 9), (1, 1)), flat_width), grid_positions(Grid((1, 6, 9), (1, 1, 1)), width)
    assert torch.equal(solid[..., :flat_width], flat)
    assert axis_widths(width, 3)[0] == axis_widths(flat_width, 2)[0]


def test_position_is_a_length_not_a_count():
    """Every second token at half the spacing is where every token is at the nominal spacing."""
    coarse = grid_positions(Grid((4, 6), (8, 8)), 32)
    fine = grid_positions(Grid((8, 12), (8, 8)), 32, torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(fine.reshape(8, 12, 32)[::2, ::2].reshape(-1, 32), coarse[0])


def test_samples_of_one_batch_may_differ_in_spacing():
    both = grid_positions(Grid((3, 4, 5), (1, 1, 1)), 24, torch.tensor([[1.0, 1.0, 1.0], [5.0, 1.0, 1.0]]))
    z = slice(sum(axis_widths(24, 3)[:2]), None)
    assert torch.equal(both[0, :, : z.start], both[1, :, : z.start])
    assert float((both[0, :, z] - both[1, :, z]).abs().max()) > 0.5


def test_a_crop_has_the_positions_of_its_place_in_the_whole():
    whole = grid_positions(Grid((6, 9), (8, 8)), 32).reshape(6, 9, 32)
    crop = grid_positions(Grid((2, 3), (8, 8)), 32, torch.ones(1, 2), torch.tensor([[3.0, 4.0]]))
    assert torch.equal(crop.reshape(2, 3, 32), whole[3:5, 4:7])


def test_a_stored_table_is_resampled_in_3d_and_keeps_its_leading_rows():
    table = torch.randn(1, 2 + 4 * 4 * 4, 8)
    larger = resample_table(table, (4, 4, 4), (8, 4, 2))
    assert larger.shape == (1, 2 + 64, 8)
    assert torch.equal(larger[:, :2], table[:, :2])
    assert resample_table(table, (4, 4, 4), (4, 4, 4)) is table


def test_channels_may_be_shared_unevenly_and_an_axis_that_lacks_is_at_zero():
    assert axis_widths(1024, 3, (6, 6, 4)) == (384, 384, 256)
    assert axis_widths(24, 3) == (8, 8, 8)
    solid = grid_positions(Grid((2, 3, 4), (1, 1, 1)), 64, shares=(6, 6, 4))[0].reshape(2, 12, 64)
    flat = grid_positions(Grid((3, 4), (1, 1)), 64, shares=(6, 6, 4))[0]
    assert torch.equal(flat, solid[0])
    assert torch.equal(solid[0, :, :48], solid[1, :, :48])
    assert float((solid[1, :, 48:] - flat[:, 48:]).abs().min(dim=0).values.max()) > 0.4
    with pytest.raises(ShapeError, match=r"\(6, 6, 4\) shares out evenly to 3 axes, got 24"):
        axis_widths(24, 3, (6, 6, 4))


def test_group_codes_stand_beside_places():
    places = grid_positions(Grid((2, 2), (1, 1)), 12)
    laid = by_groups(places, 3, 4)
    assert laid.shape == (1, 12, 16)
    assert torch.equal(laid[..., :12], places.repeat(1, 3, 1))
    torch.testing.assert_close(laid[0, ::4, 12], torch.tensor([0.0, 1.0, 2.0]).sin())
    torch.testing.assert_close(laid[0, ::4, 15], torch.tensor([0.0, 0.01, 0.02]).cos())
    assert torch.equal(by_groups(places, 3), places.repeat(1, 3, 1))


def test_widths_too_small_are_refused():
    with pytest.raises(ShapeError, match="even width of at least 6"):
        axis_widths(4, 3)
