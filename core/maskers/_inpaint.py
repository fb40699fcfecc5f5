"""Painting holes shut from their surroundings, without a network: the solution of Laplace's equation, coarse to fine."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_OVER = 1.6  # over-relaxation of a Gauss-Seidel sweep; 1 would be none, 2 would not converge


def inpaint(image: Tensor, known: Tensor, spacing: tuple[float, ...], sweeps: int = 8) -> Tensor:
    """Fill what is not known smoothly from what is: harmonic in the holes, no flow through the image's border.

    Coarse images give the first guess ("pull-push", Gortler et al. 1996, "The Lumigraph", 3.4), and sweeps of
    over-relaxation at every size smooth it, so that a hole's width costs nothing.

    Args:
        image: (R, C, *S) float; what it holds in the holes is never read.
        known: (R, 1, *S) bool, False = hole; somewhere in each image there must be something known.
        spacing: size of a voxel along each axis.
        sweeps: at each size; 8 leave less than 1 % of the contrast around a hole.

    Returns:
        (R, C, *S), the image with its holes filled.
    """
    image = torch.where(known, image, 0.0)
    if bool(known.all()) or math.prod(image.shape[2:]) == 1:
        return image
    # halve the axes along which voxels are finest, so that coarse voxels become cubes
    longest = min(s for s, n in zip(spacing, image.shape[2:], strict=True) if n > 1) * 1.5
    factors = [2 if n > 1 and s <= longest else 1 for s, n in zip(spacing, image.shape[2:], strict=True)]
    coarse, coarse_known = _halve(image, known, factors)
    coarse = inpaint(coarse, coarse_known, tuple(s * f for s, f in zip(spacing, factors, strict=True)), sweeps)
    for axis, factor in enumerate(factors, start=2):
        if factor > 1:
            coarse = coarse.repeat_interleave(2, dim=axis).narrow(axis, 0, image.shape[axis])
    return _relax(torch.where(known, image, coarse), known, spacing, sweeps)


def _halve(image: Tensor, known: Tensor, factors: list[int]) -> tuple[Tensor, Tensor]:
    """Average what is known over blocks of voxels; a block is known where any of it is."""
    odd = [n % f for n, f in zip(image.shape[2:], factors, strict=True)]
    padding = [pad for rest in reversed(odd) for pad in (0, rest)]
    weight = functional.pad(known.to(image.dtype), padding)
    pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
    share = pool(weight, factors, factors)
    mean = pool(functional.pad(image, padding) * weight, factors, factors) / share.clamp(min=1e-12)
    return mean, share > 0


def _relax(image: Tensor, known: Tensor, spacing: tuple[float, ...], sweeps: int) -> Tensor:
    """Move each unknown voxel towards the mean of its neighbours, black and white squares by turns."""
    nearness = [1.0 / s**2 for s in spacing]
    axes = [torch.arange(n) for n in image.shape[2:]]
    white = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0) % 2 == 0
    steps = [torch.where(~known & colour, _OVER / (2 * sum(nearness)), 0.0) for colour in (white, ~white)]
    for _ in range(sweeps):
        for step in steps:
            pull = torch.zeros_like(image)
            for axis, near in enumerate(nearness, start=2):
                length = image.shape[axis]
                if length > 1:
                    flow = near * image.diff(dim=axis)
                    pull.narrow(axis, 0, length - 1).add_(flow)
                    pull.narrow(axis, 1, length - 1).sub_(flow)
            image = torch.addcmul(image, pull, step.to(image.dtype))
    return image
