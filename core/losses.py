"""Masked means that honour validity, reduced over ranks; nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def masked_mean(error: Tensor, weight: Tensor) -> Tensor:
    """Average `error` with `weight` over the joined batch of all ranks: sum(w e) / sum(w), float32.

    The value returned on one rank is that rank's numerator x ranks / the joined denominator: the mean of it over ranks is
    the joined loss, and the mean of its gradients, which is what DDP forms, is the joined loss's gradient. An error
    without weight is never read, be it NaN; if nothing has weight the mean is 0. Weights are float or bool.
    """
    scored = weight if weight.dtype == torch.bool else weight > 0
    error = torch.where(scored, error.to(torch.float32), 0.0)
    if weight.dtype != torch.bool:
        error = error * weight
    total, ranks = weight.sum(dtype=torch.float32), 1
    if distributed.is_available() and distributed.is_initialized():
        ranks = distributed.get_world_size()
        distributed.all_reduce(total)
    return error.sum() * ranks / total.clamp(min=1e-12)


def squared(prediction: Tensor, value: Tensor) -> Tensor:
    """L2: squared error per value, in float32 whatever autocast made of the prediction."""
    return (prediction.to(torch.float32) - value).square()
