"""Learning which tokens are hard: their predicted order against the order of their losses, pair by pair or by value."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from core.losses import masked_mean, squared
from core.plan import visible_index


def pairwise_ranking(prediction: Tensor, loss: Tensor, scored: Tensor) -> Tensor:
    """Compare every two scored tokens of a sample: binary cross-entropy of which has the higher loss (HPM's relative loss).

    Source: HPM, Wang et al. 2023, arXiv 2304.05919, "relative loss". The mean is over all pairs of unequal loss of the joined
    batch; a pair counts once, since both of its orders have the same error. Deviations: the logarithm is exact where the
    release adds 1e-6 inside it.

    Args:
        prediction: (B, N), higher = thought to be harder.
        loss: (B, N) reconstruction loss of each token; takes no gradient.
        scored: (B, N) bool, which tokens have a loss; what stands at the others is never read.

    Returns:
        scalar float32 by the convention of `core.losses.masked_mean`.
    """
    index, ok = visible_index(scored)
    guess = prediction.to(torch.float32).gather(1, index)
    truth = loss.detach().to(torch.float32).gather(1, index)
    guess, truth = torch.where(ok, guess, 0.0), torch.where(ok, truth, 0.0)
    pair = (truth[:, :, None] > truth[:, None, :]) & ok[:, :, None] & ok[:, None, :]
    return masked_mean(functional.softplus(guess[:, None, :] - guess[:, :, None]), pair)


def standardised_loss(prediction: Tensor, loss: Tensor, scored: Tensor) -> Tensor:
    """Compare predicted with true losses, standardised in each sample (HPM's absolute loss): mean squared error.

    Source: HPM, Wang et al. 2023, arXiv 2304.05919, "absolute loss", and its release: mean and unbiased variance + 1e-6 over
    the scored tokens of the sample. Arguments and result as `pairwise_ranking`.
    """
    truth = torch.where(scored, loss.detach().to(torch.float32), 0.0)
    count = scored.sum(dim=1, keepdim=True)
    mean = truth.sum(dim=1, keepdim=True) / count.clamp(min=1)
    spread = torch.where(scored, (truth - mean).square(), 0.0).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    guess = torch.where(scored, prediction.to(torch.float32), 0.0)
    return masked_mean(squared(guess, (truth - mean) / (spread + 1e-6).sqrt()), scored)
