"""Feature maps: an encoder's tokens laid out as images, and which of its levels a head of several reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.encoders.load import Encoder
from core.errors import ConfigError

_SMOOTH = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Maps:
    """Feature maps of a batch of images.

    Attributes:
        maps: (B, D, *tokens) each, finest first; tokens without data hold 0.
        size: voxels of the images along each axis.
    """

    maps: tuple[Tensor, ...]
    size: tuple[int, ...]

    def float(self) -> Maps:
        """Cast to float32, as a tensor's own method does."""
        return Maps(tuple(one.float() for one in self.maps), self.size)


class FeatureMaps(nn.Module):
    """An encoder that gives `Maps` in place of a vector.

    Attributes:
        encoder: the encoder.
        levels: the levels whose tokens it gives, before any last norm; none = the normed tokens of the last.
    """

    def __init__(self, encoder: Encoder, levels: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.encoder, self.levels = encoder, levels

    @property
    def backbone(self) -> Backbone:
        """The network of the encoder."""
        return self.encoder.backbone

    def forward(self, batch: Batch) -> Maps:
        """Encode (B, C, *S); errors as `Encoder.forward`."""
        prepared, _ = self.backbone.prepare(batch)
        found = self.backbone(prepared, levels=self.levels)
        each = [found.levels[level] for level in self.levels] if self.levels else [found]
        return Maps(tuple(laid_out(tokens) for tokens in each), batch.size)


def laid_out(tokens: Tokens) -> Tensor:
    """Lay tokens of a whole grid out as a map (B, D, *tokens); band groups are averaged, what is not ok becomes 0."""
    value = tokens.value if tokens.ok is None else torch.where(tokens.ok[..., None], tokens.value, 0.0)
    merged = value.unflatten(1, (tokens.grid.num_groups, tokens.grid.num_places)).mean(1)
    laid: Tensor = merged.transpose(1, 2).unflatten(2, tokens.grid.tokens)
    return laid


def resized(value: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate a map (B, D, *S) linearly between its points, which are cells: corners are not aligned."""
    if tuple(value.shape[2:]) == tuple(size):
        return value
    return F.interpolate(value, size=size, mode=_SMOOTH[len(size)], align_corners=False)


def spread_levels(backbone: Backbone, count: int = 4) -> tuple[int, ...]:
    """Choose the levels that a pyramid is made of: all stages of an encoder with few, else `count` that are evenly spread.

    Raises:
        ConfigError: the encoder gives no inner levels.
    """
    if "levels" not in backbone.abilities:
        raise ConfigError(
            f"expected an encoder that gives its inner levels, got {type(backbone).__name__}: choose the head 'segment'."
        )
    total = backbone.num_levels
    if total <= count:
        return tuple(range(1, total + 1))
    return tuple(round(total * number / count) for number in range(1, count + 1))


def level_factors(backbone: Backbone, levels: tuple[int, ...]) -> tuple[float, ...]:
    """Say by how much each level's map is resized: not at all where tokens are merged, else to a pyramid 4, 2, 1, 1/2.

    A plain transformer keeps one grid, of which BEiT's segmentation code (Bao et al. 2021, arXiv 2106.08254) makes a
    pyramid of half the patch's size upwards.
    """
    entry = backbone.contract.inputs[0]
    grids = [backbone.level_grid(level, entry.grid()).tokens for level in levels]
    if len(set(grids)) > 1 or len(levels) == 1:
        return (1.0,) * len(levels)
    return tuple(2.0 ** (len(levels) - 2 - number) for number in range(len(levels)))


def conv(ndim: int, inside: int, outside: int, kernel: int) -> Any:
    """Make a convolution that keeps the size."""
    made: type[nn.Module] = nn.Conv3d if ndim == 3 else nn.Conv2d
    return made(inside, outside, kernel, padding=kernel // 2)
