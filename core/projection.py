"""The projection head of self-distillation: from a token to scores over learned prototypes.

It is thrown away after pretraining and so is no part of `core.heads`, which turn an encoder's features into answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ProjectionSpec:
    """Describe the head of DINO and iBOT, one for class and patch tokens alike.

    Source: Caron et al. 2021, arXiv 2104.14294, 3.1 and appendix C; Zhou et al. 2021, arXiv 2111.07832, 3.2 (shared
    head). Three linear layers with GELU between them, a unit vector of `bottleneck` numbers, and its cosine with each
    prototype. Deviations: none; no batch norm, as in either paper's transformer models.

    Attributes:
        hidden: width of the two hidden layers.
        bottleneck: numbers of the unit vector.
        num_prototypes: K.
        train_norm: also learn a length for each prototype; without it all have length 1, which is more stable.
    """

    hidden: int = 2048
    bottleneck: int = 256
    num_prototypes: int = 8192
    train_norm: bool = False

    def __post_init__(self) -> None:
        if min(self.hidden, self.bottleneck) < 1 or self.num_prototypes < 2:
            raise ConfigError(f"expected positive widths and at least 2 prototypes, got {self}.")

    def build(self, num_features: int) -> ProjectionHead:
        """Make it for tokens of width `num_features`, with fresh weights from torch's current generator."""
        return ProjectionHead(self, num_features)


class ProjectionHead(nn.Module):
    """The module; see `ProjectionSpec`."""

    def __init__(self, spec: ProjectionSpec, num_features: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(num_features, spec.hidden),
            nn.GELU(),
            nn.Linear(spec.hidden, spec.hidden),
            nn.GELU(),
            nn.Linear(spec.hidden, spec.bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(spec.num_prototypes, spec.bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.norms = nn.Parameter(torch.ones(spec.num_prototypes, 1)) if spec.train_norm else None

    def forward(self, tokens: Tensor, learn: Tensor | float = 1.0) -> Tensor:
        """Score tokens (..., D) against the prototypes, (..., K); `learn` 0 keeps the prototypes as they are."""
        return self.score(self.reduce(tokens), learn)

    def reduce(self, tokens: Tensor) -> Tensor:
        """Turn tokens (..., D) into unit vectors (..., bottleneck)."""
        return functional.normalize(self.mlp(tokens), dim=-1)

    def score(self, vectors: Tensor, learn: Tensor | float = 1.0) -> Tensor:
        """Score unit vectors, linearly: the score of a mean is the mean of the scores.

        Args:
            vectors: (..., bottleneck).
            learn: 1, or 0 to give the prototypes a gradient of exactly 0.
        """
        prototypes = functional.normalize(self.prototypes, dim=-1)
        if self.norms is not None:
            prototypes = prototypes * self.norms
        held = prototypes.detach()
        return functional.linear(vectors, held + (prototypes - held) * learn)
