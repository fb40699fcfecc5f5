"""Losses: masked means that honour validity, reduced over ranks, and the errors per value that they average.

Here lives what compares a prediction with a value, number by number or vector by vector, (B, N, P) both. What needs more
than one token (contrast, ranking, distributions, spectra) has a file of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional


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


def absolute(prediction: Tensor, value: Tensor) -> Tensor:
    """L1: absolute error per value, float32."""
    return (prediction.to(torch.float32) - value).abs()


def smooth_absolute(prediction: Tensor, value: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 (Girshick 2015, arXiv 1504.08083, equation 3) per value, float32: squared / (2 beta) below beta, else L1."""
    return functional.smooth_l1_loss(prediction.to(torch.float32), value, reduction="none", beta=beta)


def cosine(prediction: Tensor, value: Tensor) -> Tensor:
    """One minus the cosine of each token's two vectors, (B, N, 1) float32."""
    return 1.0 - functional.cosine_similarity(prediction.to(torch.float32), value, dim=-1)[..., None]


def cross_entropy(prediction: Tensor, code: Tensor) -> Tensor:
    """Cross-entropy of logits (B, N, K) with one code per token, (B, N, 1) integers or whole floats; (B, N, 1) float32."""
    logits = prediction.to(torch.float32).movedim(-1, 1)
    return functional.cross_entropy(logits, code[..., 0].to(torch.int64), reduction="none")[..., None]
