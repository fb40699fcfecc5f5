"""Cells are hidden whole, in tokens or in millimetres."""

from __future__ import annotations

import pytest
import torch

from core.batch import valid_tokens
from core.errors import ConfigError
from core.maskers._cells import cell_of
from core.maskers.cells import Cells
from core.shapes import Grid
from tests.core.maskers.inputs import complete

FLAT = Grid((14, 14), (4, 4))
SOLID = Grid((6, 10, 10), (2, 2, 2))


def _partly_hidden(plan, cell):
    cell = cell.expand(len(plan.hide), -1)
    count = torch.zeros(cell.shape).scatter_add(1, cell, torch.ones(cell.shape))
    hidden = torch.zeros(cell.shape).scatter_add(1, cell, plan.hide.float())
    return ((hidden > 0) & (hidden < count)).sum(1)


@pytest.mark.parametrize(("grid", "edges"), [(FLAT, (2, 2)), (FLAT, (7, 2)), (SOLID, (1, 2, 5))])
def test_all_cells_but_one_are_hidden_whole_or_not_at_all(grid, edges):
    batch = complete(20, grid)
    plan = Cells(cell_tokens=edges)(batch, grid, batch.rng)
    partly = _partly_hidden(plan, cell_of(grid, torch.tensor([edges], dtype=torch.float32)))
    assert int(partly.max()) <= 1
    assert int(plan.hide[0].sum()) == -(-grid.num_places * 6 // 10)


def test_the_trimmed_cell_loses_its_first_tokens_as_often_as_its_last():
    grid = Grid((1, 8), (1, 1))
    batch = complete(200, grid)
    hide = Cells(ratio=0.75, cell_tokens=(1, 4))(batch, grid, batch.rng).hide
    whole_first = hide[:, :4].all(1)
    assert 0.35 < hide[whole_first][:, 4].float().mean() < 0.65
    assert torch.equal(hide[whole_first][:, 4], hide[whole_first][:, 5])
    assert torch.equal(hide[whole_first][:, 4], ~hide[whole_first][:, 7])


def test_whole_cells_count_as_satvision_does():
    grid = Grid((32, 32), (4, 4))
    batch = complete(3, grid)
    plan = Cells(ratio=0.6, cell_tokens=2, whole_cells=True)(batch, grid, batch.rng)
    assert plan.hide.sum(1).tolist() == [154 * 4] * 3
    assert int(_partly_hidden(plan, cell_of(grid, torch.tensor([[2.0, 2.0]]))).max()) == 0


def test_whole_cells_without_data_are_not_counted():
    grid = Grid((4, 4), (2, 2))
    batch = complete(1, grid)
    batch.valid[..., :4] = False  # the cells of the left half
    plan = Cells(ratio=0.5, cell_tokens=2, whole_cells=True)(batch, grid, batch.rng)
    assert int(plan.hide.sum()) == 4
    assert torch.equal(plan.see | plan.hide, valid_tokens(batch, grid))


def test_a_cell_length_is_measured_in_millimetres():
    grid = Grid((4, 6, 6), (2, 8, 8))
    batch = complete(1, grid, spacing=(5.0, 1.0, 1.0))  # tokens of 10 x 8 x 8 mm
    plan = Cells(cell_length=20.0)(batch, grid, batch.rng)
    hide = plan.hide.reshape(grid.tokens)
    # centres at 5, 15 | 25, 35 mm along z; at 4, 12 | 20, 28, 36 | 44 mm along y and x
    assert torch.equal(hide[0], hide[1]) or torch.equal(hide[2], hide[3])
    cell = cell_of(grid, torch.tensor([[2.0, 2.5, 2.5]]))[0].reshape(grid.tokens)
    assert cell[:, 0, 0].tolist() == [0, 0, 36, 36]
    assert cell[0, :, 0].tolist() == [0, 0, 6, 6, 6, 12]
    assert int(_partly_hidden(plan, cell.reshape(1, -1)).max()) <= 1


def test_each_sample_has_cells_of_its_own_spacing():
    grid = Grid((8, 8), (2, 2))
    batch = complete(2, grid)
    batch.spacing[1] = 2.0
    plan = Cells(cell_length=8.0)(batch, grid, batch.rng)
    assert int(_partly_hidden(plan, cell_of(grid, torch.tensor([[4.0, 4.0], [2.0, 2.0]]))).max()) <= 1


def test_a_length_below_a_token_is_refused_and_along_one_axis_is_one_token():
    grid = Grid((4, 6, 6), (2, 8, 8))
    batch = complete(1, grid, spacing=(5.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"no smaller than a token, got 7 on tokens of 10 x 8 x 8"):
        Cells(cell_length=7.0)(batch, grid, batch.rng)
    with pytest.raises(ConfigError, match=r"no smaller than a token, got 7 on tokens of 10 x 8 x 8"):
        Cells(cell_length=7.0).check(grid, (5.0, 1.0, 1.0))
    Cells(cell_length=8.0).check(grid, (5.0, 1.0, 1.0))
    Cells(cell_length=8.0)(batch, grid, batch.rng)


@pytest.mark.parametrize("options", [{"cell_tokens": 0}, {"cell_tokens": (2, 0)}, {"cell_tokens": ()}])
def test_a_cell_below_a_token_is_refused(options):
    with pytest.raises(ConfigError, match="no smaller than a token"):
        Cells(**options)


def test_tokens_and_length_together_are_refused():
    with pytest.raises(ConfigError, match="got both"):
        Cells(cell_tokens=2, cell_length=5.0)


def test_a_grid_of_one_cell_and_cells_of_another_rank_are_refused():
    with pytest.raises(ConfigError, match="at least two cells"):
        Cells(cell_tokens=4).check(Grid((4, 4), (2, 2)), (1.0, 1.0))
    with pytest.raises(ConfigError, match="3 edges"):
        Cells(cell_tokens=(2, 2)).check(SOLID, (5.0, 1.0, 1.0))
    Cells(cell_tokens=(4, 2)).check(Grid((4, 4), (2, 2)), (1.0, 1.0))
