"""Exact counts over valid tokens, and the way to visible tokens and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.plan import Plan, hidden_count, hide_number, hide_share, ranked, spread, visible_index


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


def test_each_sample_may_have_its_own_ratio():
    valid = torch.ones(3, 10, dtype=torch.bool)
    hidden = hidden_count(valid, torch.tensor([0.0, 0.35, 1.0]))
    assert hidden.tolist() == [0, 4, 9]
    assert hide_number(torch.rand(3, 10), valid, hidden).hide.sum(1).tolist() == [0, 4, 9]


@pytest.mark.parametrize("ratio", [0.1, 0.35, 0.6, 0.75, 0.9])
def test_a_ratio_of_each_sample_counts_as_one_of_all_does(ratio):
    valid = torch.arange(40)[None] < torch.arange(41)[:, None]
    assert torch.equal(hidden_count(valid, torch.full((41,), ratio)), hidden_count(valid, ratio))


def test_ranked_sorts_and_keeps_ties_in_order():
    assert ranked(torch.tensor([[0.5, 0.1, 0.5, 0.0]])).tolist() == [[2, 1, 3, 0]]


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


def test_a_hidden_token_counts_as_far_as_it_is_covered_in_every_term():
    hide = torch.tensor([[True, True, False]])
    covered = torch.tensor([[0.5, 0.25, 0.0]])
    plan = Plan(see=~hide, hide=hide, score={"own": torch.tensor([[1.0, 1.0, 2.0]])}, covered=covered)
    measured = torch.ones(1, 3, 1, dtype=torch.bool)
    assert plan.weigh(measured, "image").flatten().tolist() == [0.5, 0.25, 0.0]
    assert plan.weigh(measured, "indices").flatten().tolist() == [0.5, 0.25, 0.0]
    assert plan.weigh(measured, "image", "both").flatten().tolist() == [0.5, 0.25, 1.0]
    assert plan.weigh(measured, "image", "see").flatten().tolist() == [0.0, 0.0, 1.0]
    assert plan.weigh(measured, "own").flatten().tolist() == [0.5, 0.25, 2.0]


def test_where_seen_tokens_are_is_computed_once(monkeypatch):
    plan = hide_share(torch.rand(3, 12), torch.ones(3, 12, dtype=torch.bool), 0.5)
    index, real = plan.seen_index
    assert torch.equal(torch.zeros(3, 12, dtype=torch.bool).scatter_(1, index, real), plan.see)
    monkeypatch.setattr("core.plan.visible_index", lambda see: pytest.fail("computed again"))
    assert plan.seen_index[0] is index


def test_a_plan_is_complete_when_no_token_is_invalid():
    valid = torch.ones(2, 8, dtype=torch.bool)
    assert hide_share(torch.rand(2, 8), valid, 0.5).complete
    valid[1, 3] = False
    assert not hide_share(torch.rand(2, 8), valid, 0.5).complete


def test_another_plan_made_from_one_counts_its_own_tokens():
    plan = hide_share(torch.rand(1, 8), torch.ones(1, 8, dtype=torch.bool), 0.5)
    assert plan.complete
    assert plan.seen_index[0].shape == (1, 4)
    fewer = replace(plan, see=plan.see & (torch.arange(8) < 0))
    assert not fewer.complete
    assert fewer.seen_index[0].shape == (1, 0)
