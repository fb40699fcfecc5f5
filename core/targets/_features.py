"""What a teacher's tokens become before they are predicted: stages, norms, and where each token belongs.

No target of this folder lives here: a target is a function of the batch alone, and these need what a teacher made of it.
Recipes that have a teacher hold a `Features` beside it. Values are (B, N, D) float32 on the plan's grid, with which of them
count, (B, N) bool; a value that does not count is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.nn import functional

from core.encoders.base import Backbone, Tokens
from core.errors import ConfigError
from core.plan import spread, visible_index

FeatureNorm = Literal["none", "layer", "centre", "whiten"]
"""How features are normalised.

`layer`: each token to mean 0 and variance 1 over its own numbers, a layer norm without parameters (dBOT, Liu et al. 2022,
arXiv 2209.03917, 4.1; what Wei et al. 2022, arXiv 2205.14141, 3.2, and MaskAlign after them call whitening). `centre`: less
the mean of each number over the tokens of the joined batch of all ranks. `whiten`: that, over its standard deviation there.
Only tokens that count enter these means.
"""

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Features:
    """The mean of a teacher's last stages, each normalised.

    Source: one stage, dBOT (Liu et al. 2022, arXiv 2209.03917); the mean of several, data2vec (Baevski et al. 2022,
    arXiv 2202.03555, 3.3). Deviations: stages are taken before any last norm of the encoder.

    Attributes:
        last: how many stages, counted from the last one.
        normalise: see `FeatureNorm`.
    """

    last: int = 1
    normalise: FeatureNorm = "layer"

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ConfigError(f"expected the features of at least one stage, got {self.last}.")

    def levels(self, encoder: Backbone) -> tuple[int, ...]:
        """Name the stages of a teacher's encoder.

        Raises:
            ConfigError: it has not as many, does not give them, or they differ in width or tokens.
        """
        return last_levels(encoder, self.last)

    def __call__(self, tokens: Tokens, see: Tensor) -> tuple[Tensor, Tensor]:
        """Give the features of what a teacher returned, and which count.

        Args:
            tokens: with these `levels`.
            see: (B, N) bool, what the teacher was shown where it left tokens out.
        """
        found = [on_grid(level, see) for level in tokens.levels.values()]
        normal = [normalised(value, counted, self.normalise) for value, counted in found]
        return torch.stack(normal).mean(0), found[0][1]


def last_levels(encoder: Backbone, count: int) -> tuple[int, ...]:
    """Name an encoder's last stages, in order.

    Raises:
        ConfigError: it has not as many, does not give them, or they differ in width or tokens.
    """
    name = type(encoder).__name__
    if "levels" not in encoder.abilities:
        raise ConfigError(f"expected an encoder that gives the tokens of inner stages, got {name}: choose another one.")
    if count > encoder.num_levels:
        raise ConfigError(f"expected at most {encoder.num_levels} stages, those of {name}, got {count}.")
    levels = tuple(range(encoder.num_levels - count + 1, encoder.num_levels + 1))
    entry = encoder.contract.inputs[0]
    kinds = {(encoder.level_width(level), encoder.level_grid(level, entry.grid())) for level in levels}
    if len(kinds) > 1:
        raise ConfigError(
            f"expected stages of one width and grid, but the last {count} of {name} differ: choose fewer."
        )
    return levels


def on_grid(tokens: Tokens, see: Tensor) -> tuple[Tensor, Tensor]:
    """Lay tokens on the full grid, (B, N, D), with which of them are there, (B, N); `see` tells where, if some were left out."""
    if tokens.full_grid:
        return tokens.value, tokens.ok if tokens.ok is not None else torch.ones_like(see)
    return spread(tokens.value, see, tokens.value.new_zeros(())), see


Places = tuple[Tensor | None, Tensor]
"""Which token of the full grid each of a student's stands for, (B, V) int64, or None where it has a slot for all; and which
of its slots hold a token that it was shown, (B, V) bool."""


def places(tokens: Tokens, see: Tensor) -> Places:
    """Find the places of a student's tokens, once for all that stands beside them; `see` (B, N) is what it was shown."""
    return (None, see) if tokens.full_grid else visible_index(see)


def beside(value: Tensor, counted: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Pick features of the full grid for the tokens of a student, (B, V, D) in their order, and which count, (B, V).

    Args:
        value: (B, N, D).
        counted: (B, N) bool.
        places: of the student's tokens.
    """
    index, real = places
    if index is None:
        return value, counted & real
    return value.gather(1, index[..., None].expand(-1, -1, value.shape[2])), counted.gather(1, index) & real


def normalised(value: Tensor, counted: Tensor, how: FeatureNorm) -> Tensor:
    """Normalise features (B, N, D), float32; those that are not `counted` (B, N) become 0 and enter no mean."""
    value = torch.where(counted[..., None], value.to(torch.float32), 0.0)
    if how == "layer":
        value = functional.layer_norm(value, value.shape[-1:], eps=_EPS)
    elif how != "none":
        value = value - _joined_mean(value, counted)
        if how == "whiten":
            value = value / (_joined_mean(value.square(), counted) + _EPS).sqrt()
    return torch.where(counted[..., None], value, 0.0)


def each(counted: Tensor, value: Tensor) -> Tensor:
    """Weigh every number of the features (B, N, D) of tokens that count (B, N): bool (B, N, D)."""
    return counted[..., None].expand_as(value)


def _joined_mean(value: Tensor, counted: Tensor) -> Tensor:
    """Average over the counted tokens of all ranks, (D,)."""
    kept = torch.where(counted[..., None], value, 0.0).sum(dim=(0, 1))
    total = torch.cat([kept, counted.sum(dtype=torch.float32)[None]])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
    return total[:-1] / total[-1].clamp(min=1.0)
