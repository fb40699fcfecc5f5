"""Boxes of the wanted size and shape, measured in mm; a few of them cover what is hidden."""

from __future__ import annotations

import random

import pytest
import torch

from core.errors import ConfigError
from core.maskers.boxes import Boxes, beit_boxes, first_box, ibot_ratio
from core.shapes import Grid
from tests.core.maskers.inputs import agreement, complete, streams

FLAT = Grid((14, 14), (2, 2))
SOLID = Grid((10, 10, 10), (1, 2, 2))


@pytest.mark.parametrize(("grid", "least"), [(FLAT, 0.87), (SOLID, 0.85)])
def test_neighbours_are_hidden_together(grid, least):
    """BEiT's own masks agree at 0.89 of all pairs; random tokens at this ratio would at 0.52."""
    batch = complete(100, grid)
    hide = Boxes()(batch, grid, batch.rng).hide.reshape(-1, *grid.tokens)
    for axis in range(1, 1 + grid.ndim):
        assert agreement(hide, axis) > least


def test_the_first_boxes_suffice():
    for ratio in (0.3, 0.5, 0.75):
        masker, batch = Boxes(ratio=ratio), complete(200, FLAT)
        first = first_box(*masker._draw(torch.full((200,), ratio), batch, FLAT, streams(200)), FLAT)
        covered = (first < masker._count(FLAT)).float().mean(1)
        assert float((covered >= ratio).float().mean()) > 0.98


def test_first_box_is_the_first_that_covers():
    start, edges = torch.tensor([[[0, 0], [0, 1]]]), torch.tensor([[[1, 2], [2, 2]]])
    assert first_box(start, edges, Grid((2, 3), (1, 1))).tolist() == [[0, 0, 1, 2, 1, 1]]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_edges_are_alike_in_millimetres(spacing):
    grid = Grid((40, 40, 40), (1, 1, 1))
    batch = complete(4, Grid((1, 1, 1), (1, 1, 1)), spacing=spacing)
    _, edges = Boxes(smallest=500)._draw(torch.full((4,), 0.02), batch, grid, streams(4))
    log = (edges * torch.tensor(spacing)).log().mean((0, 1))
    assert float(log.max() - log.min()) < 0.15


def test_areas_and_aspects_are_within_their_bounds():
    grid, batch = Grid((60, 60), (1, 1)), complete(50, Grid((1, 1), (1, 1)))
    _, edges = Boxes(smallest=100)._draw(torch.full((50,), 0.1), batch, grid, streams(50))
    area, aspect = edges.prod(-1), edges[..., 0] / edges[..., 1]
    assert 88 <= int(area.min()) <= 110  # whole tokens, half a token off along each axis
    assert 300 <= int(area.max()) <= 375
    assert 0.25 < float(aspect.min()) < 0.36
    assert 2.8 < float(aspect.max()) < 4.0


def test_a_box_that_an_axis_cannot_take_grows_along_the_others():
    grid, batch = Grid((1, 30, 30), (1, 1, 1)), complete(20, Grid((1, 1, 1), (1, 1, 1)))
    start, edges = Boxes(smallest=100)._draw(torch.full((20,), 0.12), batch, grid, streams(20))
    assert bool((edges[..., 0] == 1).all())
    assert abs(float(edges.prod(-1).float().median()) - 100) < 12
    assert int((start + edges).amax((0, 1)).max()) <= 30
    assert int(start.min()) >= 0


def test_ibot_draws_a_ratio_for_each_image_and_leaves_half_of_them_whole():
    batch = complete(400, FLAT)
    hidden = Boxes(ratio=0.3, ratio_spread=0.2, unmasked_share=0.5)(batch, FLAT, batch.rng).hide.sum(1)
    whole = hidden == 0
    assert abs(float(whole.float().mean()) - 0.5) < 0.08
    share = hidden[~whole] / 196
    assert 0.1 <= float(share.min()) < 0.14
    assert 0.46 < float(share.max()) <= 0.5 + 1 / 196
    assert abs(float(share.mean()) - 0.3) < 0.02


@pytest.mark.parametrize(
    ("options", "grid", "words"),
    [
        ({"smallest": 1}, FLAT, "no smaller than a token"),
        ({"smallest": 4, "aspect": 0.02}, FLAT, "no smaller than a token"),
        ({"smallest": 100}, FLAT, "at most the 79 tokens"),
        ({"ratio": 0.2}, Grid((4, 4), (2, 2)), "at most the 4 tokens"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(options, grid, words):
    if options == {"ratio": 0.2}:
        options = {"ratio": 0.2, "smallest": 5}
    with pytest.raises(ConfigError, match=words):
        Boxes(**options).check(grid, (1.0,) * grid.ndim)


@pytest.mark.parametrize("options", [{"ratio_spread": 0.5}, {"unmasked_share": 1.0}, {"aspect": 0.0}, {"aspect": 1.5}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        Boxes(**options)


def test_the_rule_of_the_references_never_exceeds_the_count_and_never_spans_an_axis():
    draw = random.Random(0)
    masks = [beit_boxes((6, 10), 30, 4, draw) for _ in range(200)]
    assert max(int(mask.sum()) for mask in masks) == 30
    first = [beit_boxes((6, 10), 4, 4, draw) for _ in range(200)]
    assert not any(mask.all(0).any() or mask.all(1).any() for mask in first)


def test_a_ratio_without_spread_draws_nothing():
    draw = random.Random(0)
    state = draw.getstate()
    assert ibot_ratio(((0.3, 0.0),), draw) == 0.3
    assert draw.getstate() == state
