"""One stage of the encoder, read by a small predictor of its own, at a scale finer or coarser than the tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.encoders.vit import LAYER_NORM, init_linear
from core.errors import ConfigError
from core.plan import Plan
from core.predictors.base import PredictorSpec
from core.shapes import Grid, unpatchify


@dataclass(frozen=True, kw_only=True)
class PerLevelSpec(PredictorSpec):
    """Describe the decoder of one stage (LocalMIM, Wang et al. 2023, arXiv 2303.05251, 3.3).

    The inner predictor reads the tokens of the stage. For a finer scale each token is then doubled along every axis, again
    and again, with a linear map, a norm and a GELU between doublings; for a coarser one, outputs are averaged.

    Deviations: any rank; an axis whose patch cannot be halved, or whose tokens cannot be paired, keeps its scale.

    Attributes:
        inner: the predictor on the tokens' own grid.
        level: stage of the encoder; None = its last, with the encoder's own norm. Others have a norm here.
        scale: tokens of the prediction over tokens of the encoder along an axis, a power of two such as 4, 1 or 0.5. At 1
            the prediction lies on the plan's grid, at other scales on `scaled`'s.
        width: of the tokens after the first doubling, halved at each further one.
    """

    inner: PredictorSpec
    level: int | None = None
    scale: float = 1.0
    width: int = 128

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.width < 2:
            raise ConfigError(f"expected a width of at least 2, got {self.width}.")
        if self.inner.scale != 1:
            raise ConfigError(
                f"expected an inner predictor on the tokens' own grid, got one at {self.inner.scale:g} times the tokens: "
                "choose its scale 1 and a scale here."
            )

    @property
    def reads_hidden(self) -> bool:
        """As the inner predictor does."""
        return self.inner.reads_hidden

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """The stage, unless it is the last, and those that the inner predictor reads itself."""
        own = () if self.level is None or self.level == num_levels else (self.level,)
        return tuple(sorted({*own, *self.inner.levels(num_levels)}))

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> PerLevel:
        """Make the module with fresh weights; `num_values` are those of a token at the scale.

        Raises:
            ConfigError: the encoder merges tokens, or an input cannot be brought to the scale.
        """
        return PerLevel(self, encoder, num_values)


class PerLevel(nn.Module):
    """The module; see `PerLevelSpec`."""

    def __init__(self, spec: PerLevelSpec, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        self.spec, self.contract = spec, encoder.contract
        self.stage = None if spec.level in (None, encoder.num_levels) else spec.level
        for entry in self.contract.inputs:
            grid = entry.grid()
            if self.stage is not None and encoder.level_grid(self.stage, grid) != grid:
                raise ConfigError(
                    f"expected an encoder that keeps its tokens apart, got {type(encoder).__name__}, which merges them "
                    f"before stage {self.stage}: choose a plain transformer."
                )
            scaled(grid, spec.scale)
        self.norm = None if self.stage is None else LAYER_NORM(encoder.level_width(self.stage))
        doublings = max(round(math.log2(spec.scale)), 0)
        widths = [max(spec.width >> i, 1) for i in range(doublings)]
        self.factors = {e.name: _factors(e.patch, doublings) for e in self.contract.inputs}
        counts = num_values
        if doublings:
            counts = {name: widths[0] * math.prod(factors[0]) for name, factors in self.factors.items()}
        self.inner = spec.inner.build(encoder, counts)
        self.norms = nn.ModuleList(LAYER_NORM(width) for width in widths[:-1])
        self.steps, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for entry in self.contract.inputs if doublings else ():
            outs = [w * math.prod(f) for w, f in zip(widths[1:], self.factors[entry.name][1:], strict=True)]
            self.steps[entry.name] = nn.ModuleList(map(nn.Linear, widths[:-1], outs))
            groups = entry.grid().num_groups
            self.heads[entry.name] = nn.ModuleList(nn.Linear(widths[-1], num_values[entry.name]) for _ in range(groups))
        self.steps.apply(init_linear)
        self.heads.apply(init_linear)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Predict (B, M, P) on the grid that `scaled` makes of the plan's."""
        if self.norm is not None and self.stage is not None:
            level = tokens.levels[self.stage]
            tokens = replace(
                tokens, value=self.norm(level.value), prefix=self.norm(level.prefix), full_grid=level.full_grid
            )
        prediction: Tensor = self.inner(tokens, plan, batch)
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        if self.spec.scale < 1:
            return rescaled(prediction, grid, scaled(grid, self.spec.scale))
        if entry.name not in self.heads:
            return prediction
        steps, heads = (cast(nn.ModuleList, part[entry.name]) for part in (self.steps, self.heads))
        factors = self.factors[entry.name]
        parts = torch.cat(prediction.chunk(grid.num_groups, dim=1))  # G * B: groups share the doublings
        parts, places = _doubled(parts, grid.tokens, factors[0])
        for norm, step, factor in zip(self.norms, steps, factors[1:], strict=True):
            parts, places = _doubled(step(functional.gelu(norm(parts))), places, factor)
        each = parts.chunk(grid.num_groups)
        return torch.cat([head(part) for head, part in zip(heads, each, strict=True)], dim=1)


def check_scale(scale: float) -> None:
    """Refuse a scale that is no power of two.

    Raises:
        ConfigError: such as 3 or 0.
    """
    if not scale > 0 or math.log2(scale) != round(math.log2(scale)):
        raise ConfigError(f"expected a scale that is a power of two, such as 4, 1 or 0.5, got {scale}.")


def scaled(grid: Grid, scale: float) -> Grid:
    """Lay a finer or coarser grid over the same image: axes are halved or paired as often as they can be, at most to the scale.

    Raises:
        ConfigError: no axis can take the last step.
    """
    steps = round(math.log2(scale))
    edges = grid.patch if steps > 0 else grid.tokens
    factors = _factors(edges, abs(steps))
    if any(math.prod(factor) == 1 for factor in factors):
        raise ConfigError(
            f"expected a grid that can be brought to {scale} times its tokens along some axis, got {grid.tokens} tokens of "
            f"{grid.patch} voxels: choose another scale, patch or crop."
        )
    factor = [math.prod(column) for column in zip(*factors, strict=True)] or [1] * grid.ndim
    pairs = list(zip(grid.tokens, grid.patch, factor, strict=True))
    if steps > 0:
        return Grid(tuple(t * f for t, _, f in pairs), tuple(p // f for _, p, f in pairs), grid.groups)
    return Grid(tuple(t // f for t, _, f in pairs), tuple(p * f for _, p, f in pairs), grid.groups)


def rescaled(value: Tensor, grid: Grid, other: Grid) -> Tensor:
    """Carry values of tokens (B, N, P) to the tokens (B, M, P) of a grid that `scaled` made: repeated, or averaged."""
    image = torch.cat(value.chunk(grid.num_groups, dim=1)).transpose(1, 2).unflatten(2, grid.tokens)
    for axis, (have, want) in enumerate(zip(grid.tokens, other.tokens, strict=True), start=2):
        if want > have:
            image = image.repeat_interleave(want // have, dim=axis)
        elif want < have:
            image = image.unflatten(axis, (want, -1)).mean(axis + 1)
    return torch.cat(image.flatten(2).transpose(1, 2).chunk(grid.num_groups), dim=1)


def _factors(edges: tuple[int, ...], steps: int) -> list[tuple[int, ...]]:
    """Say for each of some halvings which edges it halves: 2 where the edge is even, else 1."""
    found = []
    for _ in range(steps):
        found.append(tuple(2 if edge % 2 == 0 else 1 for edge in edges))
        edges = tuple(edge // factor for edge, factor in zip(edges, found[-1], strict=True))
    return found


def _doubled(value: Tensor, places: tuple[int, ...], factor: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Lay out (B, N, W * factor) as the tokens of a finer grid, (B, N * factor, W)."""
    image = unpatchify(value, Grid(places, factor))
    return image.flatten(2).transpose(1, 2), tuple(image.shape[2:])
