"""Cloud or none on a vertical section below a satellite's track, from the image around it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from core.errors import ConfigError
from core.heads._maps import Maps, resized
from core.heads.base import HeadSpec, Reads


class SectionHead(nn.Module):
    """One map (B, D, Y, X) to logits (B, 1, length, height)."""

    def __init__(self, stages: nn.Sequential, last: nn.Sequential, size: tuple[int, int]) -> None:
        super().__init__()
        self.stages, self.last, self.size = stages, last, size

    def forward(self, maps: Maps) -> Tensor:
        """Give the logit of cloud at each place of the section."""
        return resized(self.last(self.stages(maps.maps[-1])), self.size)


@dataclass(frozen=True, kw_only=True)
class CloudMask(HeadSpec):
    """Transposed convolutions that double the last level's map, a 3 x 3 convolution, and interpolation to the section.

    SatVision-TOA's three-dimensional cloud retrieval (Spradlin et al. 2024, arXiv 2411.17000; layers as in its release):
    a 128 x 128 image of ABI to the section that CloudSat measured, 91 places of its track x 40 heights. Deviations: the map
    is that after the encoder's last norm, which the released fine-tuning skips.

    Attributes:
        widths: features after each doubling.
        size: places of the section: along the track, and in height.
        dropout: share of the logits that training leaves out.
    """

    reads: ClassVar[Reads] = "map"

    widths: tuple[int, ...] = (2048, 512, 256, 128, 64)
    size: tuple[int, int] = (91, 40)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or min(self.size) < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"expected widths and a section of at least 1 and a dropout in [0, 1), got {self}.")

    def build(self, *widths: int, ndim: int = 2) -> SectionHead:
        """Make it, with fresh weights from torch's current generator.

        Raises:
            ConfigError: volumes, which have no section below a track.
        """
        if ndim != 2:
            raise ConfigError("expected images of 2 axes for a cloud section, got volumes: choose the head 'segment'.")
        doubled: list[nn.Module] = []
        for before, after in pairwise((*widths, *self.widths)):
            doubled += [nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
        last = nn.Sequential(nn.Conv2d(self.widths[-1], 1, 3, padding=1), nn.Dropout(self.dropout))
        return SectionHead(nn.Sequential(*doubled), last, self.size)
