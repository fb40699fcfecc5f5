"""Linear classification of an image's features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from core.errors import ConfigError
from core.heads.base import HeadSpec


class LinearHead(nn.Module):
    """Features (B, D) to logits (B, K): optional normalisation over the batch, then one affine map."""

    def __init__(self, norm: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        self.linear = linear

    def forward(self, features: Tensor) -> Tensor:
        """Give logits (B, K)."""
        logits: Tensor = self.linear(self.norm(features))
        return logits


@dataclass(frozen=True, kw_only=True)
class Classify(HeadSpec):
    """A linear head.

    He et al. 2022, arXiv 2111.06377, appendix A.1 (normalisation for linear probing) and code (initial weights).
    Deviations: none.

    Attributes:
        num_classes: K.
        batch_norm: normalise each feature over the batch, without learned scale: for a frozen encoder, whose features
            have any scale. Off for full fine-tuning.
        init_std: of the truncated normal initial weights; 2e-5 starts from nearly equal class probabilities. Biases are
            0.
    """

    num_classes: int
    batch_norm: bool = False
    init_std: float = 2e-5

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.init_std < 0:
            raise ConfigError(f"expected at least 2 classes and init_std >= 0, got {self}.")

    def build(self, *widths: int, ndim: int = 2) -> LinearHead:
        """Make it, with fresh weights from torch's current generator."""
        (num_features,) = widths
        linear = nn.Linear(num_features, self.num_classes)
        nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(linear.weight, std=self.init_std) if self.init_std else nn.init.zeros_(linear.weight)
        norm = nn.BatchNorm1d(num_features, affine=False, eps=1e-6) if self.batch_norm else nn.Identity()
        return LinearHead(norm, linear)
