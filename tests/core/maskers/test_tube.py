"""Tubes along an axis, for at least the length that was asked for."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.maskers.tube import Tube
from core.shapes import Grid
from tests.core.maskers.inputs import agreement, complete

SOLID = Grid((6, 5, 4), (2, 2, 2))


def test_neighbours_along_the_axis_are_hidden_together():
    batch = complete(50, SOLID)
    for axis in range(3):
        hide = Tube(axis=axis)(batch, SOLID, batch.rng).hide.reshape(50, *SOLID.tokens)
        partly = hide.any(1 + axis) & ~hide.all(1 + axis)
        assert int(partly.flatten(1).sum(1).max()) <= 1
        assert agreement(hide, 1 + axis) > 0.96
        assert agreement(hide, 1 + (axis + 1) % 3) < 0.75


def test_a_run_is_as_long_as_asked_and_takes_up_what_is_left_at_the_end():
    grid = Grid((7, 20, 20), (2, 1, 1))
    batch = complete(1, grid, spacing=(5.0, 1.0, 1.0))  # 10 mm per token
    runs = Tube(run_length=15.0)._runs(batch, grid)
    assert runs.tolist() == [[0, 0, 1, 1, 2, 2, 2]]
    assert Tube(run_length=20.0)._runs(batch, grid).tolist() == [[0, 0, 1, 1, 2, 2, 2]]
    assert Tube(run_length=21.0)._runs(batch, grid).tolist() == [[0, 0, 0, 1, 1, 1, 1]]
    assert Tube(run_length=500.0)._runs(batch, grid).tolist() == [[0] * 7]
    hide = Tube(ratio=0.5, run_length=15.0)(batch, grid, batch.rng).hide.reshape(grid.tokens)
    assert torch.equal(hide[0], hide[1])
    assert 0.4 < float((hide[1] == hide[2]).float().mean()) < 0.6


def test_runs_follow_each_sample_s_own_spacing():
    grid = Grid((4, 3, 3), (2, 1, 1))
    batch = complete(2, grid)
    batch.spacing[1, 0] = 5.0
    assert Tube(run_length=4.0)._runs(batch, grid).tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]


def test_an_axis_that_is_not_there_or_has_nothing_beside_it_is_refused():
    with pytest.raises(ConfigError, match="an axis below 2"):
        Tube(axis=2).check(Grid((4, 4), (2, 2)), (1.0, 1.0))
    with pytest.raises(ConfigError, match="several tubes"):
        Tube(axis=0).check(Grid((8, 1, 1), (2, 2, 2)), (1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="above 0"):
        Tube(run_length=0.0)
