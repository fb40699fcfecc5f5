"""The gradient map: how strongly the image changes, per unit of length, in 2D and 3D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError
from core.shapes import Grid, patchify, unpatchify
from core.targets._eroded import eroded
from core.targets.base import Target

# derivative and smoothing of a separable Sobel filter; normalised below so that a unit ramp has gradient 1
_KERNELS = {3: ([-1.0, 0.0, 1.0], [1.0, 2.0, 1.0]), 5: ([-1.0, -2.0, 0.0, 2.0, 1.0], [1.0, 4.0, 6.0, 4.0, 1.0])}
_FLOOR = 1e-3  # smallest root mean square that is divided by, in the value space per finest edge of a voxel


@dataclass(frozen=True, kw_only=True)
class Gradient(Target):
    """Predict the Sobel gradient magnitude (Uni4Eye, Cai et al. 2022, arXiv 2203.04614, 3.2: the gradient branch).

    Deviations: every axis is divided by the sample's spacing; any rank; weights are eroded, so that no value rests on a
    missing neighbour; the map is scaled to unit root mean square per sample and band, so that both branches' losses are
    of one size whatever the modality. The released code's integer Sobel is `uni4eye_gradient_map`.

    Attributes:
        kernel: 3 or 5 voxels.
        normalise: `per_sample`, or `none` for value-space units per mm (px, m).
    """

    kernel: Literal[3, 5] = 3
    normalise: Literal["per_sample", "none"] = "per_sample"

    def __post_init__(self) -> None:
        if self.kernel not in _KERNELS:
            raise ConfigError(f"expected a Sobel kernel of 3 or 5 voxels, got {self.kernel}.")

    def num_values(self, entry: Input) -> int:
        """One magnitude per voxel and band, of the largest group where there are groups."""
        return max(len(group) for group in entry.groups or (entry.bands,)) * entry.grid().voxels

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give magnitudes as patch vectors, and 1 where every neighbour was measured."""
        value, solid = self._map(batch)
        return patchify(value, grid.patch), patchify(solid, grid.patch)

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor:
        """Lay the predicted map out as an image."""
        return unpatchify(prediction, grid)

    def _map(self, batch: Batch) -> tuple[Tensor, Tensor]:
        spacing = batch.spacing
        if self.normalise == "per_sample":  # proportions alone count: no floor depends on whether lengths are mm or km
            spacing = spacing / spacing.amin(dim=1, keepdim=True)
        value = gradient_magnitude(batch.image, spacing, self.kernel)
        solid = batch.valid if batch.complete else eroded(batch.valid, self.kernel // 2)
        if self.normalise == "per_sample":
            axes = tuple(range(2, value.ndim))
            mean_square = (value.square() * solid).sum(axes, keepdim=True) / solid.sum(axes, keepdim=True).clamp(
                min=1.0
            )
            value = value / mean_square.sqrt().clamp(min=_FLOOR)
        return torch.where(solid, value, 0.0), solid


def sobel(image: Tensor, axis: int, kernel: int) -> Tensor:
    """Differentiate (B, C, *S) along spatial axis `axis` (0 = first), smoothing along the others; integer weights."""
    derivative, smoothing = _KERNELS[kernel]
    reach = kernel // 2
    mode = "reflect" if min(image.shape[2:]) > reach else "replicate"
    padded = functional.pad(image, (reach, reach) * (image.ndim - 2), mode=mode)
    for i in range(image.ndim - 2):
        weights, length = (derivative if i == axis else smoothing), image.shape[2 + i]
        terms = (w * padded.narrow(2 + i, j, length) for j, w in enumerate(weights) if w)
        padded = torch.stack(list(terms)).sum(0)
    return padded


def gradient_magnitude(image: Tensor, spacing: Tensor, kernel: int) -> Tensor:
    """Measure the length of the gradient of (B, C, *S) images per unit of `spacing` (B, ndim), same shape."""
    derivative, smoothing = _KERNELS[kernel]
    ramp = sum(w * (i - kernel // 2) for i, w in enumerate(derivative))
    unit = ramp * sum(smoothing) ** (image.ndim - 3)
    total = torch.zeros_like(image)
    for axis in range(image.ndim - 2):
        step = spacing[:, axis].reshape(-1, *(1,) * (image.ndim - 1))
        total += (sobel(image, axis, kernel) / (unit * step)).square()
    return total.sqrt()


def uni4eye_gradient_map(image: Tensor) -> Tensor:
    """Reproduce the released Uni4Eye recipe: (B, C, Y, X) of any real dtype to uint8 of the same shape.

    Sobel 5, rounded to whole numbers, absolute values saturated at 255, halves added, rounded to even. On images scaled
    to 0..1 small gradients vanish in the rounding, as in the release; feed 0..255. For comparison only.
    """
    parts = [sobel(image.to(torch.float32), axis, 5).round().abs().clamp(max=255.0) for axis in (1, 0)]
    return (0.5 * parts[0] + 0.5 * parts[1]).round().clamp(max=255.0).to(torch.uint8)
