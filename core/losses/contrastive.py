"""Contrast: each vector must be nearest to its own partner among many, those of one image or those of the joined batch.

The functions give errors, not means: `core.losses.masked_mean` with what is counted as weight makes the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional


def patch_contrast(
    prediction: Tensor, value: Tensor, counted: Tensor, *, temperature: float, symmetric: bool = False
) -> Tensor:
    """InfoNCE among the tokens of each sample, (B, N, 1) float32, 0 where not counted.

    Source: van den Oord et al. 2018, arXiv 1807.03748, equation 4, on unit vectors; among patches of one image, Wei et
    al. 2024, arXiv 2407.15837, 3.3. Deviations: tokens that do not count are neither asked nor offered.

    Args:
        prediction: (B, N, D).
        value: (B, N, D), the partner of each prediction stands at its own token.
        counted: (B, N) bool.
        temperature: what cosines are divided by.
        symmetric: average with the error of finding each value's prediction.
    """
    ours, theirs = _unit(prediction, counted), _unit(value, counted)
    own = torch.arange(counted.shape[1], device=counted.device)
    cosines = _cosines(ours, theirs) / temperature
    error = _error(cosines, own, counted[:, None])
    if symmetric:
        error = (error + _error(cosines.transpose(1, 2), own, counted[:, None])) / 2.0
    return torch.where(counted, error, 0.0)[..., None]


def sample_contrast(
    one: Tensor, other: Tensor, counted: Tensor, *, temperature: float, symmetric: bool = False
) -> Tensor:
    """InfoNCE among the samples of the joined batch of all ranks, (B,) float32, 0 where not counted.

    With `masked_mean` it follows that function's convention: the mean over ranks is the loss of the joined batch, and so
    is the mean of the gradients. Every rank must hold the same number of samples, and all must call it.

    Source: van den Oord et al. 2018, arXiv 1807.03748; with both directions Radford et al. 2021, arXiv 2103.00020, 2.3.

    Args:
        one: (B, D), a vector of each sample, and
        other: (B, D), its partner.
        counted: (B,) bool, both exist.
        temperature: what cosines are divided by.
        symmetric: average with the error of finding each `other`'s `one`.
    """
    ours, theirs = _unit(one, counted), _unit(other, counted)
    all_counted = gathered(counted.to(torch.float32)) > 0
    rank = distributed.get_rank() if _several() else 0
    own = torch.arange(len(counted), device=counted.device) + rank * len(counted)
    error = _error(_cosines(ours, gathered(theirs)) / temperature, own, all_counted[None])
    if symmetric:
        error = (error + _error(_cosines(theirs, gathered(ours)) / temperature, own, all_counted[None])) / 2.0
    return torch.where(counted, error, 0.0)


def gathered(value: Tensor) -> Tensor:
    """Join (B, ...) of all ranks, rank by rank, as (ranks * B, ...); every rank's use of a value reaches its gradient."""
    if not _several():
        return value
    joined: Tensor = _Gather.apply(value)
    return joined


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _unit(value: Tensor, counted: Tensor) -> Tensor:
    """Scale vectors to length 1, float32; those that do not count are 0 and pass no gradient."""
    return functional.normalize(torch.where(counted[..., None], value.to(torch.float32), 0.0), dim=-1)


def _cosines(ours: Tensor, theirs: Tensor) -> Tensor:
    """Compare unit vectors (..., A, D) with (..., K, D), (..., A, K) float32 whatever autocast is on."""
    with torch.autocast(ours.device.type, enabled=False):
        return ours @ theirs.transpose(-2, -1)


def _error(cosines: Tensor, own: Tensor, offered: Tensor) -> Tensor:
    """Cross-entropy of finding one's `own` column (A,) of `cosines` (..., A, K) among the columns that are `offered`.

    One's own column is always offered, so that a row that does not count holds nothing infinite either.
    """
    among = offered | (torch.arange(cosines.shape[-1], device=own.device) == own[:, None])
    right = cosines.gather(-1, own[:, None].expand(*cosines.shape[:-1], 1))[..., 0]
    return cosines.masked_fill(~among, -torch.inf).logsumexp(dim=-1) - right
