"""Linear regression of numbers on an image's features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from core.heads.base import HeadSpec


class RegressionHead(nn.Module):
    """Features (B, D) to numbers (B, K) in units of the labels: optional normalisation, an affine map, centre and spread."""

    centre: Tensor
    spread: Tensor

    def __init__(self, norm: nn.Module, linear: nn.Linear, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.norm, self.linear = norm, linear
        self.register_buffer("centre", centre, persistent=False)  # the spec keeps them
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Give numbers (B, K)."""
        numbers: Tensor = self.centre + self.spread * self.linear(self.norm(features))
        return numbers


@dataclass(frozen=True, kw_only=True)
class Regress(HeadSpec):
    """A linear head that answers in units of the labels.

    It starts at `centre`, the mean of the training labels, so that the first step is as good as a guess without looking.
    Deviations: the common linear head, whose affine map is scaled by the labels' spread.

    Attributes:
        centre: of each of K numbers, in its own unit.
        spread: of each, above 0: what a change of 1 of the linear map means.
        batch_norm: normalise each feature over the batch, without learned scale: for a frozen encoder.
        init_std: of the truncated normal initial weights; biases are 0.
    """

    centre: tuple[float, ...] = (0.0,)
    spread: tuple[float, ...] = (1.0,)
    batch_norm: bool = False
    init_std: float = 2e-5

    def __post_init__(self) -> None:
        if not self.centre or len(self.centre) != len(self.spread) or min(self.spread) <= 0 or self.init_std < 0:
            raise ConfigError(
                f"expected a centre and a spread above 0 for each of at least one number, and init_std >= 0, got {self}."
            )

    def build(self, *widths: int, ndim: int = 2) -> RegressionHead:
        """Make it, with fresh weights from torch's current generator."""
        (num_features,) = widths
        linear = nn.Linear(num_features, len(self.centre))
        nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(linear.weight, std=self.init_std) if self.init_std else nn.init.zeros_(linear.weight)
        norm = nn.BatchNorm1d(num_features, affine=False, eps=1e-6) if self.batch_norm else nn.Identity()
        return RegressionHead(norm, linear, torch.tensor(self.centre), torch.tensor(self.spread))
