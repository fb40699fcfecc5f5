"""Errors between spectra: frequencies that are predicted badly count more."""

from __future__ import annotations

import torch
from torch import Tensor

from core.errors import ConfigError
from core.losses import masked_mean
from core.shapes import Grid, unpatchify


def focal_frequency(
    prediction: Tensor, value: Tensor, weight: Tensor, grid: Grid, *, focus: float = 1.0, soften: bool = False
) -> Tensor:
    """Average the squared error of the whole image's spectrum, each frequency weighted by its own error (scalar, float32).

    Source: focal frequency loss (Jiang et al. 2020, arXiv 2012.12821, equations 5 to 9), as A2MIM uses it (Li et al. 2022,
    arXiv 2205.13943): what is seen is taken as predicted perfectly. The weight of a frequency is the modulus of its error
    to the power of `focus`, over the largest of its sample and band; no gradient passes through it.

    Only where the prediction is scored does it differ from the truth, so neither what is seen nor missing voxels enter
    the spectrum. The orthonormal transform keeps sums of squares: with `focus` 0 this is exactly the masked mean of squared
    errors, `masked_mean(squared(prediction, value), weight)`, and, like it, the ratio of two sums over all ranks.

    Deviations: any rank; over scored voxels in place of all; the largest weight is of a sample and band, never of the
    batch; spectra are not averaged over the batch (A2MIM's configuration does both). Frequencies are per voxel, whatever
    the spacing: no weight depends on them.

    Args:
        prediction: (B, N, P) in voxels' order, from any precision.
        value: (B, N, P), the truth.
        weight: (B, N, P) float or bool, from `Plan.weigh`; 0 where nothing is scored.
        grid: of the tokens, with or without band groups.
        focus: alpha of the paper, 0 = every frequency alike.
        soften: take log(1 + modulus) in place of the modulus, when few frequencies hold nearly all of the error.

    Raises:
        ConfigError: focus below 0.
    """
    if focus < 0:
        raise ConfigError(f"expected a focus of 0 or more for the frequency loss, got {focus}.")
    difference = torch.where(weight > 0, prediction.to(torch.float32) - value, 0.0)
    if weight.dtype != torch.bool:
        difference = difference * weight.sqrt()
    errors, weights = (_images(part, grid) for part in (difference, weight.to(torch.float32)))
    axes = tuple(range(2, errors.ndim))
    spectrum = torch.fft.fftn(errors, dim=axes, norm="ortho")
    power = spectrum.real.square() + spectrum.imag.square()
    with torch.no_grad():
        modulus = power.sqrt() ** focus
        modulus = torch.log1p(modulus) if soften else modulus
        importance = modulus / modulus.amax(axes, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    count = weights.sum(axes)
    return masked_mean((importance * power).sum(axes) / count.clamp(min=1e-12), count)


def _images(values: Tensor, grid: Grid) -> Tensor:
    """Lay patch vectors (B, N, P) out as images, the bands of one group after another's."""
    return torch.cat([unpatchify(part, grid.plain) for part in values.chunk(grid.num_groups, dim=1)], dim=1)
