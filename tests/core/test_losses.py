"""The masked mean, by hand and where it could go wrong."""

from __future__ import annotations

import math

import pytest
import torch

from core.losses import absolute, cosine, cross_entropy, masked_mean, smooth_absolute, squared


def test_equals_the_sum_by_hand():
    error, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    assert masked_mean(error, weight).item() == (1.0 + 1.5 + 8.0) / 3.5


def test_what_has_no_weight_is_never_read():
    error = torch.tensor([1.0, math.nan, math.inf], requires_grad=True)
    loss = masked_mean(error, torch.tensor([2.0, 0.0, 0.0]))
    loss.backward()
    assert loss.item() == 1.0
    assert error.grad.tolist() == [1.0, 0.0, 0.0]


def test_boolean_weights_and_nothing_to_score():
    assert masked_mean(torch.ones(3), torch.tensor([True, True, False])).item() == 1.0
    assert masked_mean(torch.ones(3), torch.zeros(3)).item() == 0.0


def test_half_precision_predictions_are_compared_in_float32():
    prediction = torch.full((4,), 1.0, dtype=torch.bfloat16)
    assert squared(prediction, torch.full((4,), 1.001)).dtype == torch.float32
    assert float(squared(prediction, torch.full((4,), 1.001))[0]) > 9e-7


PREDICTION, VALUE = torch.tensor([[[3.0, -4.0]]]), torch.tensor([[[3.5, -1.0]]])


@pytest.mark.parametrize(
    ("error", "expected"),
    [(squared, [0.25, 9.0]), (absolute, [0.5, 3.0]), (smooth_absolute, [0.125, 2.5])],
)
def test_errors_of_single_values_by_hand(error, expected):
    assert error(PREDICTION, VALUE).flatten().tolist() == expected


def test_smooth_absolute_turns_at_beta():
    assert smooth_absolute(PREDICTION, VALUE, beta=4.0).flatten().tolist() == [0.03125, 1.125]


def test_cosine_counts_direction_alone_and_gives_one_error_per_token():
    value = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]])
    prediction = torch.tensor([[[7.0, 0.0], [0.0, 0.5], [-3.0, 4.0]]])
    error = cosine(prediction.to(torch.bfloat16), value)
    assert (error.shape, error.dtype) == ((1, 3, 1), torch.float32)
    assert error.flatten().tolist() == pytest.approx([0.0, 1.0, 1.6], abs=1e-6)


def test_cosine_of_a_token_that_holds_nothing_has_a_finite_gradient():
    prediction = torch.zeros(1, 1, 4, requires_grad=True)
    cosine(prediction, torch.zeros(1, 1, 4)).sum().backward()
    assert bool(torch.isfinite(prediction.grad).all())


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, math.log(3.0)]]])
    error = cross_entropy(logits, torch.tensor([[[1.0], [0.0]]]))
    assert error.shape == (1, 2, 1)
    assert error.flatten().tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)])
