"""The masked mean, by hand and where it could go wrong."""

from __future__ import annotations

import math

import torch

from core.losses import masked_mean, squared


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
