"""Self-attention over seen tokens and mask tokens: the decoder of MAE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.encoders.vit import LAYER_NORM, init_linear, make_blocks, run_blocks
from core.plan import Plan, spread
from core.pos_embed import batch_positions, grid_positions
from core.predictors._checks import check_apart, check_width
from core.predictors.base import PredictorSpec
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(PredictorSpec):
    """Describe a transformer predictor (He et al. 2021, arXiv 2111.06377, 3).

    Deviations: invalid tokens are no keys; one output layer per input; positions from grid and spacing.

    Attributes:
        width: of its own tokens.
        depth: blocks.
        heads: attention heads, dividing `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        tables: token grid of a stored, frozen position table per input name, for foreign weights.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_width(self.width, self.heads, self.depth)

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """None: it reads what the encoder returns."""
        return ()

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> TransformerPredictor:
        """Make the module with fresh weights.

        Raises:
            ConfigError: the encoder merges tokens.
        """
        return TransformerPredictor(self, encoder, num_values)


class TransformerPredictor(nn.Module):
    """The module; see `TransformerSpec`."""

    def __init__(self, spec: TransformerSpec, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        check_apart(encoder)
        self.spec, self.contract = spec, encoder.contract
        self.embed = nn.Linear(encoder.num_features, spec.width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02)
        self.tables, self.groups, self.heads = nn.ParameterDict(), nn.ParameterDict(), nn.ModuleDict()
        for entry in self.contract.inputs:
            grid = entry.grid()
            if entry.name in spec.tables:
                places = grid_positions(Grid(spec.tables[entry.name], entry.patch), spec.width)
                table = torch.cat([torch.zeros_like(places[:, :1]), places.repeat(1, grid.num_groups, 1)], 1)
                self.tables[entry.name] = nn.Parameter(table, requires_grad=False)
            if entry.groups:
                self.groups[entry.name] = nn.Parameter(torch.randn(len(entry.groups), spec.width) * 0.02)
            self.heads[entry.name] = nn.ModuleList(
                nn.Linear(spec.width, num_values[entry.name]) for _ in range(grid.num_groups)
            )
        self.blocks = make_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)
        self.norm = LAYER_NORM(spec.width)
        self.embed.apply(init_linear)
        self.heads.apply(init_linear)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Predict (B, N, P) on the full grid; what stands at tokens that are not scored means nothing."""
        entry = self.contract.input_for(len(batch.size), batch.bands)
        prefix, full = self.embed(tokens.prefix), self.embed(tokens.value)
        blank = self.mask_token.to(full.dtype)
        if tokens.full_grid:  # the encoder kept every token: what it made of hidden ones is not read
            full = torch.where(plan.see[..., None], full, blank)
        else:
            full = spread(full, plan.see, blank)
        if entry.name in self.tables:
            table = self.tables[entry.name]
            count = table.shape[1] - full.shape[1]
            prefix, full = prefix + table[:, :count], full + table[:, count:]
        else:
            places = batch_positions(batch, entry, tokens.grid, self.spec.width)
            full = full + places.repeat(1, tokens.grid.num_groups, 1)
        if entry.name in self.groups:
            full = full + self.groups[entry.name].repeat_interleave(tokens.grid.num_places, dim=0)
        known = plan.see | plan.hide
        hidden = run_blocks(self.blocks, torch.cat([prefix, full], dim=1), None if bool(known.all()) else known)
        hidden = self.norm(hidden[:, prefix.shape[1] :])
        heads = cast(nn.ModuleList, self.heads[entry.name])
        parts = hidden.chunk(tokens.grid.num_groups, dim=1)
        return torch.cat([head(part) for head, part in zip(heads, parts, strict=True)], dim=1)
