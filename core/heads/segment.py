"""Classes per pixel from one feature map: a linear map at each token, enlarged to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from core.errors import ConfigError
from core.heads._maps import Maps, resized
from core.heads.base import HeadSpec, Reads


class TokenHead(nn.Module):
    """One map (B, D, *tokens) to logits (B, K, *S)."""

    def __init__(self, norm: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.norm, self.linear = norm, linear

    def forward(self, maps: Maps) -> Tensor:
        """Give logits at the voxels of the images."""
        tokens = maps.maps[-1]
        scaled = self.norm(tokens.flatten(2)).movedim(1, 2)
        logits = self.linear(scaled).movedim(2, 1).unflatten(2, tokens.shape[2:])
        return resized(logits, maps.size)


@dataclass(frozen=True, kw_only=True)
class Segment(HeadSpec):
    """A linear map at each token of the last level, interpolated linearly to the voxels of the image.

    The linear baseline of Segmenter (Strudel et al. 2021, arXiv 2105.05633, 3.2). Deviations: as an option features are
    normalised over the batch, as linear probing of whole images does. Nothing finer than a token is told apart: choose
    `upernet` for outlines.

    Attributes:
        num_classes: K.
        batch_norm: normalise each feature over the tokens of the batch, without learned scale: for a frozen encoder.
        init_std: of the truncated normal initial weights; biases are 0.
    """

    reads: ClassVar[Reads] = "map"

    num_classes: int
    batch_norm: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.init_std < 0:
            raise ConfigError(f"expected at least 2 classes and init_std >= 0, got {self}.")

    def build(self, *widths: int, ndim: int = 2) -> TokenHead:
        """Make it, with fresh weights from torch's current generator."""
        (width,) = widths
        linear = nn.Linear(width, self.num_classes)
        nn.init.zeros_(linear.bias)
        nn.init.trunc_normal_(linear.weight, std=self.init_std) if self.init_std else nn.init.zeros_(linear.weight)
        norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if self.batch_norm else nn.Identity()
        return TokenHead(norm, linear)
