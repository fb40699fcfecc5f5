"""Exact counts over valid tokens, and the way to visible tokens and back."""

from __future__ import annotations

import pytest
import torch

from core.plan import Plan, hide_share, spread, visible_index


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.6, 0.75, 0.9, 0.98])
@pytest.mark.parametrize("count", [0, 1, 2, 10, 49, 196, 1000])
def test_hides_the_exact_share_of_what_is_valid(count, ratio):
    valid = torch.zeros(2, 1200, dtype=torch.bool)
    valid[0, torch.randperm(1200)[:count]] = True
    valid[1] = True
    plan = hide_share(torch.rand(2, 1200), valid, ratio)
    exact = -(-count * round(ratio * 100) // 100)  # ceiling in whole numbers
    assert int(plan.hide[0].sum()) == min(exact, max(count - 1, 0))
    assert torch.equal(plan.see | plan.hide, valid)
    assert not bool((plan.see & plan.hide).any())


def test_highest_priority_is_hidden():
    plan = hide_share(torch.tensor([[0.1, 0.9, 0.5, 0.7]]), torch.ones(1, 4, dtype=torch.bool), 0.5)
    assert plan.hide.tolist() == [[False, True, False, True]]


def test_ties_fall_in_raster_order():
    plan = hide_share(torch.zeros(1, 6), torch.ones(1, 6, dtype=torch.bool), 0.5)
    assert plan.see.tolist() == [[True, True, True, False, False, False]]


def test_spread_inverts_the_visible_gather():
    see = torch.rand(5, 30) < 0.4
    see[0] = False
    full = torch.randn(5, 30, 3)
    index, real = visible_index(see)
    assert torch.equal(real.sum(1), see.sum(1))
    seen = full.gather(1, index[..., None].expand(-1, -1, 3))
    assert torch.equal(spread(seen, see, torch.full((1, 1, 3), 7.0)), torch.where(see[..., None], full, 7.0))


def test_spread_of_nothing_is_the_fill():
    see = torch.zeros(2, 4, dtype=torch.bool)
    assert torch.equal(spread(torch.zeros(2, 0, 3), see, torch.full((1, 1, 3), 7.0)), torch.full((2, 4, 3), 7.0))


def test_a_term_is_scored_where_it_says_or_on_what_is_hidden():
    hide, own = torch.tensor([[True, False]]), torch.tensor([[0.5, 0.25]])
    plan = Plan(see=~hide, hide=hide, score={"mimic": own})
    measured = torch.tensor([[[True, False], [True, True]]])
    assert plan.weigh(measured, "image").tolist() == [[[True, False], [False, False]]]
    assert plan.weigh(measured.float(), "image").tolist() == [[[1.0, 0.0], [0.0, 0.0]]]
    assert plan.weigh(measured, "mimic").tolist() == [[[0.5, 0.0], [0.25, 0.25]]]
