"""The last step of MAE's `norm_pix`, applied to a token's whole target vector, whatever it holds."""

from __future__ import annotations

import torch
from torch import Tensor


def standardised(value: Tensor, weight: Tensor) -> Tensor:
    """Subtract each token's mean and divide by its deviation, over the values (B, N, P) that have weight.

    The variance is unbiased and 1e-6 is added to it, as in facebookresearch/mae.
    """
    known = weight > 0
    count = known.sum(-1, keepdim=True)
    mean = torch.where(known, value, 0.0).sum(-1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(known, value - mean, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance + 1e-6).sqrt()
