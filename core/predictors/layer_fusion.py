"""Layer fusion: what inner stages know joins the last one before another predictor reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.encoders.vit import LAYER_NORM, init_linear
from core.errors import ConfigError
from core.plan import Plan
from core.predictors.base import PredictorSpec


@dataclass(frozen=True, kw_only=True)
class LayerFusionSpec(PredictorSpec):
    """Describe a fusion of stages in front of a predictor (MFF, Liu et al. 2023, arXiv 2308.00261, 3.2).

    The tokens of each inner stage are projected linearly, all are summed with learned weights that a softmax makes sum to
    1, and the sum is normed. The encoder need not carry low-level detail to its last stage, and does not spend it there.

    Deviations: the last stage joins after the encoder's own norm, which thus learns and is exported as it was used; each
    inner stage has a norm before its projection, so that stages of unequal size start equal; the sum has a norm of its own.

    Attributes:
        inner: the predictor that reads the fused tokens.
        fused: inner stages; none = every other one from the first, as the paper's 1, 3, 5, 7 and 9 of 12.
    """

    inner: PredictorSpec
    fused: tuple[int, ...] = ()

    @property
    def reads_hidden(self) -> bool:
        """As the inner predictor does."""
        return self.inner.reads_hidden

    @property
    def scale(self) -> float:
        """That of the inner predictor."""
        return self.inner.scale

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """The stages that are fused into the last, and those that the inner predictor reads itself."""
        return tuple(sorted({*self.chosen(num_levels), *self.inner.levels(num_levels)}))

    def chosen(self, num_levels: int) -> tuple[int, ...]:
        """Name the stages that are fused into the last of `num_levels`."""
        return self.fused or tuple(range(1, max(num_levels - 1, 2), 2))

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> LayerFusion:
        """Make the module with fresh weights.

        Raises:
            ConfigError: there is no such inner stage, or its tokens are not those of the last.
        """
        return LayerFusion(self, encoder, num_values)


class LayerFusion(nn.Module):
    """The module; see `LayerFusionSpec`.

    Attributes:
        shares: (stages + 1) before the softmax, the last stage's at the end; all stages are equal at first.
    """

    def __init__(self, spec: LayerFusionSpec, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        self.stages, last = spec.chosen(encoder.num_levels), encoder.num_levels
        if any(not 0 < stage < last for stage in self.stages) or len(set(self.stages)) != len(self.stages):
            raise ConfigError(
                f"expected different inner stages from 1 to {last - 1} to fuse into the last, got {self.stages}: choose "
                "others, or a deeper encoder."
            )
        for entry in encoder.contract.inputs:
            grid = entry.grid()
            grids = {encoder.level_grid(stage, grid) for stage in (*self.stages, last)}
            if len(grids) != 1:
                raise ConfigError(
                    f"input '{entry.name}': expected stages with the same tokens to fuse, got grids of "
                    f"{sorted(g.tokens for g in grids)}: choose stages between which the encoder merges none."
                )
        width = encoder.num_features
        self.norms = nn.ModuleList(LAYER_NORM(encoder.level_width(stage)) for stage in self.stages)
        self.projections = nn.ModuleList(nn.Linear(encoder.level_width(stage), width) for stage in self.stages)
        self.shares = nn.Parameter(torch.zeros(len(self.stages) + 1))
        self.norm = LAYER_NORM(width)
        self.projections.apply(init_linear)
        self.inner = spec.inner.build(encoder, num_values)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Fuse, then predict (B, N, P)."""
        shares = self.shares.softmax(0)
        value, prefix = tokens.value * shares[-1], tokens.prefix * shares[-1]
        for share, stage, norm, projection in zip(shares[:-1], self.stages, self.norms, self.projections, strict=True):
            level = tokens.levels[stage]
            value = value + share * projection(norm(level.value))
            prefix = prefix + share * projection(norm(level.prefix))
        fused: Tensor = self.inner(replace(tokens, value=self.norm(value), prefix=self.norm(prefix)), plan, batch)
        return fused
