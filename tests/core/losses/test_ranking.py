"""The ranking losses: by hand, shift and scale, what is not scored, ranks with no pair."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from core.losses.ranking import pairwise_ranking, standardised_loss


def _by_hand(guess, loss, scored):
    """Binary cross-entropy over all ordered pairs of unequal loss, one by one."""
    terms = []
    for g, t, s in zip(guess.tolist(), loss.tolist(), scored.tolist(), strict=True):
        for i in range(len(g)):
            for j in range(len(g)):
                if s[i] and s[j] and t[i] != t[j]:
                    higher = 1.0 / (1.0 + math.exp(g[i] - g[j]))
                    terms.append(-math.log(higher if t[j] > t[i] else 1.0 - higher))
    return sum(terms) / len(terms)


def test_pairs_by_hand():
    guess, loss = torch.randn(3, 9), torch.rand(3, 9).mul(4).round()  # with ties
    scored = torch.rand(3, 9) > 0.3
    assert pairwise_ranking(guess, loss, scored).item() == pytest.approx(_by_hand(guess, loss, scored), rel=1e-6)


def test_the_right_order_costs_nothing_and_the_wrong_one_its_distance():
    loss = torch.arange(5.0)[None]
    everywhere = torch.ones(1, 5, dtype=torch.bool)
    assert pairwise_ranking(loss * 50, loss, everywhere).item() < 1e-6
    assert pairwise_ranking(-loss * 50, loss, everywhere).item() == pytest.approx(100.0, rel=1e-6)  # mean distance 2
    assert pairwise_ranking(loss * 0, loss, everywhere).item() == pytest.approx(math.log(2.0), rel=1e-6)


def test_only_the_order_of_the_losses_counts():
    guess, loss, scored = torch.randn(2, 7), torch.rand(2, 7), torch.ones(2, 7, dtype=torch.bool)
    assert torch.equal(pairwise_ranking(guess, loss, scored), pairwise_ranking(guess, (loss * 3).exp(), scored))


@pytest.mark.parametrize("rank", [pairwise_ranking, standardised_loss])
def test_what_is_not_scored_is_never_read(rank):
    guess, loss = torch.randn(2, 8), torch.rand(2, 8)
    scored = torch.ones(2, 8, dtype=torch.bool)
    scored[0, 3] = scored[1, 5:] = False
    broken_guess, broken_loss = guess.clone(), loss.clone()
    broken_guess[~scored], broken_loss[~scored] = math.nan, math.inf
    broken_guess.requires_grad_()
    value = rank(broken_guess, broken_loss, scored)
    value.backward()
    assert value.item() == rank(guess, loss, scored).item()
    assert bool((broken_guess.grad[~scored] == 0.0).all())
    assert bool((broken_guess.grad[scored] != 0.0).all())


@pytest.mark.parametrize("rank", [pairwise_ranking, standardised_loss])
def test_the_loss_takes_no_gradient_and_nothing_to_compare_gives_zero(rank):
    guess, loss = torch.randn(2, 4, requires_grad=True), torch.rand(2, 4, requires_grad=True)
    rank(guess, loss, torch.ones(2, 4, dtype=torch.bool)).backward()
    assert loss.grad is None
    guess.grad = None
    nothing = rank(guess, loss, torch.zeros(2, 4, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0.0
    assert bool((guess.grad == 0.0).all())


def test_a_single_token_has_no_pair():
    scored = torch.tensor([[True, False], [False, True]])
    assert pairwise_ranking(torch.randn(2, 2), torch.rand(2, 2), scored).item() == 0.0


def test_absolute_losses_are_standardised_per_sample():
    guess, loss = torch.randn(3, 6), torch.rand(3, 6)
    truth = (loss - loss.mean(1, keepdim=True)) / (loss.var(1, keepdim=True) + 1e-6).sqrt()
    everywhere = torch.ones(3, 6, dtype=torch.bool)
    expected = functional.mse_loss(guess, truth).item()
    assert standardised_loss(guess, loss, everywhere).item() == pytest.approx(expected, rel=1e-6)
    assert standardised_loss(guess, loss * 9 + 4, everywhere).item() == pytest.approx(expected, rel=1e-4)
