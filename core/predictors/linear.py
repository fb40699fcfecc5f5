"""One linear map from each token of the encoder to the values of all tokens that it covers: the decoder of SimMIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Backbone, Tokens
from core.errors import ConfigError, ShapeError
from core.plan import Plan, spread
from core.predictors.base import PredictorSpec
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class LinearSpec(PredictorSpec):
    """Describe the linear predictor: a 1 x 1 convolution and a pixel shuffle (SimMIM, Xie et al. 2021, 2111.09886, 3.3).

    An encoder that merges tokens predicts, from each of its tokens, all tokens of the plan's grid below it. From an
    encoder that gave seen tokens alone, only those are predicted; the rest of the grid is 0.

    Deviations: any rank; one map per input and band group; values are those of the target, not only voxels.
    """

    @property
    def reads_hidden(self) -> bool:
        """True: each prediction comes from the encoder's own token there."""
        return True

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """None: it reads what the encoder returns."""
        return ()

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> LinearPredictor:
        """Make the module with fresh weights.

        Raises:
            ConfigError: the encoder's tokens do not cover whole numbers of the plan's.
        """
        return LinearPredictor(encoder, num_values)


class LinearPredictor(nn.Module):
    """The module; see `LinearSpec`. A map's rows are the covered tokens in raster order, each with its P values."""

    def __init__(self, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        self.contract, self.heads = encoder.contract, nn.ModuleDict()
        self.ratios: dict[str, tuple[int, ...]] = {}
        for entry in self.contract.inputs:
            grid = entry.grid()
            ratio = self.ratios[entry.name] = _ratio(entry, grid, encoder.level_grid(encoder.num_levels, grid))
            values = num_values[entry.name] * Grid(ratio, ratio).num_places
            self.heads[entry.name] = nn.ModuleList(
                nn.Linear(encoder.num_features, values) for _ in range(grid.num_groups)
            )
        for head in self.heads.modules():
            if isinstance(head, nn.Linear):
                nn.init.xavier_uniform_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Predict (B, N, P) on the plan's grid."""
        entry = self.contract.input_for(len(batch.size), batch.bands)
        coarse, grid, ratio = tokens.grid, entry.grid(batch.size), self.ratios[entry.name]
        if tuple(c * r for c, r in zip(coarse.tokens, ratio, strict=True)) != grid.tokens:
            raise ShapeError(
                f"input '{entry.name}': expected an image whose tokens the encoder merges {ratio} at a time, got "
                f"{grid.tokens} tokens that became {coarse.tokens}: choose a crop like {entry.size}."
            )
        full = tokens.value
        if not tokens.full_grid:
            full = spread(full, plan.see, full.new_zeros(()))
        heads = cast(nn.ModuleList, self.heads[entry.name])
        parts = full.chunk(coarse.num_groups, dim=1)
        fine = torch.cat([_shuffle(head(p), coarse, ratio) for head, p in zip(heads, parts, strict=True)], dim=1)
        return fine if tokens.full_grid else torch.where(plan.see[..., None], fine, 0.0)


def _ratio(entry: Input, grid: Grid, coarse: Grid) -> tuple[int, ...]:
    """Count the tokens of the plan's grid that one of the encoder's covers, per axis."""
    ratio = tuple(c // f for c, f in zip(coarse.patch, grid.patch, strict=True))
    if coarse.size != grid.size or tuple(c * r for c, r in zip(coarse.tokens, ratio, strict=True)) != grid.tokens:
        raise ConfigError(
            f"input '{entry.name}': expected an encoder whose tokens cover whole numbers of the plan's, got "
            f"{coarse.tokens} tokens of {coarse.patch} voxels over {grid.tokens} of {grid.patch}: choose a crop whose "
            f"sizes {coarse.patch} divides, or an encoder with fewer stages."
        )
    return ratio


def _shuffle(values: Tensor, coarse: Grid, ratio: tuple[int, ...]) -> Tensor:
    """Lay the values of coarse tokens (B, M, covered * P) on the fine grid (B, N, P)."""
    nd, batch = coarse.ndim, values.shape[0]
    apart = values.reshape(batch, *coarse.tokens, *ratio, -1)
    order = [0, *(axis for i in range(nd) for axis in (1 + i, 1 + nd + i)), 1 + 2 * nd]  # B, (coarse, fine)..., P
    return apart.permute(order).reshape(batch, -1, apart.shape[-1])
