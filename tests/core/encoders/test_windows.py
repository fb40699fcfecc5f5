"""Windows over grids of any rank: cut and put back, who may attend to whom, offsets, and tables read between entries."""

from __future__ import annotations

import pytest
import torch

from core.encoders._relative import axis_offsets, between, entries, offset_index, pair_bias, read_table
from core.encoders._stages import children, merged_grid
from core.encoders._windows import attend, cut_windows, join, split
from core.shapes import Grid

CPU = torch.device("cpu")
CASES = [((8, 8), (4, 4)), ((5, 7), (3, 4)), ((2, 6), (4, 4)), ((4, 5, 6), (2, 4, 4)), ((1, 3, 9), (2, 3, 4))]


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("tokens", "window"), CASES)
def test_cutting_and_putting_back_changes_nothing(tokens, window, shifted):
    windows = cut_windows(tokens, window, shifted, None, CPU)
    value = torch.randn(2, Grid(tokens, tokens).num_tokens, 3)
    assert torch.equal(join(split(value, windows), windows), value)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("tokens", "window"), CASES)
def test_tokens_attend_to_the_valid_neighbours_of_their_window_alone(tokens, window, shifted):
    count = Grid(tokens, tokens).num_tokens
    ok = torch.rand(2, count, generator=torch.Generator().manual_seed(0)) > 0.3
    windows = cut_windows(tokens, window, shifted, ok, CPU)
    place = torch.stack(torch.meshgrid(*map(torch.arange, tokens), indexing="ij"), dim=-1).flatten(0, -2)
    size = [min(w, t) for w, t in zip(window, tokens, strict=True)]
    shift = [w // 2 if shifted and w < t else 0 for w, t in zip(size, tokens, strict=True)]
    # a shifted grid is cut before 0 too: cells are numbered by where they begin
    cell = torch.stack([(place[:, a] - shift[a]) // size[a] for a in range(len(tokens))], dim=-1)
    together = (cell[:, None] == cell[None]).all(-1)
    number = split((1.0 + torch.arange(count))[None, :, None], windows)[0, :, :, 0].long() - 1  # -1 = beyond the grid
    found = torch.zeros(2, count, count, dtype=torch.bool)
    for sample in range(2):
        for row, allowed in zip(number, windows.allowed[sample], strict=True):
            real = row >= 0
            assert not bool(allowed[real][:, ~real].any())
            found[sample, row[real][:, None], row[real][None]] = allowed[real][:, real]
    expected = (together[None] & ok[:, None, :]) | torch.eye(count, dtype=torch.bool)
    assert torch.equal(found, expected)


def test_a_window_that_spans_the_grid_needs_no_mask():
    assert cut_windows((4, 4), (8, 8), True, None, CPU).allowed is None
    assert cut_windows((8, 8), (4, 4), False, None, CPU).allowed is None
    assert cut_windows((8, 8), (4, 4), True, None, CPU).allowed is not None


def test_offsets_are_numbered_query_minus_key():
    index = offset_index((2, 3), CPU)
    assert index.shape == (6, 6)
    assert int(index[0, 0]) == 1 * 5 + 2  # offset 0 lies in the middle of 3 x 5
    assert int(index[5, 0]) == entries((2, 3)) - 1
    assert int(index[0, 5]) == 0
    assert int(index[1, 0]) == 1 * 5 + 3


def test_attention_equals_the_formula():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 2, 5, generator=draw) for _ in range(3))
    bias = torch.randn(1, 2, 4, 4, generator=draw)
    allowed = torch.rand(2, 3, 4, 4, generator=draw) > 0.4
    allowed |= torch.eye(4, dtype=torch.bool)
    weights = torch.einsum("bwqhd,bwkhd->bwhqk", query, key) + bias[:, None]
    weights = weights.masked_fill(~allowed[:, :, None], -torch.inf).softmax(-1)
    expected = torch.einsum("bwhqk,bwkhd->bwqhd", weights, value).flatten(3)
    torch.testing.assert_close(attend(query, key, value, bias, allowed), expected)


def test_a_table_is_read_exactly_at_its_entries_and_linearly_between_them():
    table = torch.randn(entries((4, 4)), 2)
    nominal = between(axis_offsets((4, 4), torch.ones(1, 2)), (4, 4))
    assert torch.equal(read_table(table, (4, 4), nominal)[0], table)
    half = between(axis_offsets((3, 3), torch.tensor([[1.0, 0.5]])), (4, 4))
    read = read_table(table, (4, 4), half)[0].reshape(5, 5, 2)
    whole = table.reshape(7, 7, 2)
    torch.testing.assert_close(read[2, 3], (whole[3, 3] + whole[3, 4]) / 2)
    torch.testing.assert_close(read[4, 4], whole[5, 4])


def test_offsets_beyond_a_table_are_read_at_its_edge():
    table = torch.randn(entries((3,)), 1)
    read = read_table(table, (3,), between(axis_offsets((5,), torch.ones(1, 1)), (3,)))[0]
    assert torch.equal(read, table[[0, 0, 0, 1, 2, 3, 4, 4, 4]])


def test_a_plane_of_a_volume_table_serves_an_image():
    table = torch.randn(entries((2, 4, 4)), 2)
    flat = between(axis_offsets((4, 4), torch.ones(1, 2)), (4, 4))
    assert torch.equal(read_table(table, (2, 4, 4), flat)[0], table.reshape(3, 49, 2)[1])


def test_pairs_of_dropped_tokens_read_their_own_offsets():
    biases = torch.randn(1, entries((2, 3)), 2)
    index = offset_index((2, 3), CPU)
    kept = torch.tensor([[0, 2, 5], [1, 3, 4]])
    own = pair_bias(biases, index[kept[:, :, None], kept[:, None, :]])
    whole = pair_bias(biases, index)[0]
    for sample, rows in enumerate(kept):
        assert torch.equal(own[sample], whole[:, rows[:, None], rows[None]])


def test_neighbours_lie_side_by_side_the_first_axis_fastest():
    grid = Grid((3, 4), (2, 2))
    tokens = torch.arange(12.0).reshape(1, 12, 1)
    found = children(tokens, grid)[0]
    assert merged_grid(grid) == Grid((2, 2), (4, 4))
    assert found[0].tolist() == [0.0, 4.0, 1.0, 5.0]
    assert found[3].tolist() == [10.0, 0.0, 11.0, 0.0]  # beyond the grid: zeros


def test_an_axis_of_one_token_stays():
    grid = Grid((1, 4, 4), (10, 2, 2))
    assert merged_grid(grid) == Grid((1, 2, 2), (10, 4, 4))
    assert children(torch.ones(1, 16, 1), grid).sum(-1).tolist() == [[4.0] * 4]
