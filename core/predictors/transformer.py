"""Self-attention over seen tokens and mask tokens: the decoder of MAE."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract
from core.encoders.base import Tokens
from core.encoders.vit import LAYER_NORM, init_linear, make_blocks, run_blocks
from core.errors import ConfigError
from core.plan import Plan, spread
from core.pos_embed import batch_positions, grid_positions
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
        if self.width % self.heads or self.width % 2 or self.depth < 1:
            raise ConfigError(
                f"expected an even predictor width that the heads divide and depth >= 1, "
                f"got width {self.width}, {self.heads} heads, depth {self.depth}."
            )

    def build(self, encoder_width: int, contract: Contract, num_values: dict[str, int]) -> TransformerPredictor:
        """Make the module with fresh weights."""
        return TransformerPredictor(self, encoder_width, contract, num_values)


class TransformerPredictor(nn.Module):
    """The module; see `TransformerSpec`."""

    def __init__(
        self, spec: TransformerSpec, encoder_width: int, contract: Contract, num_values: dict[str, int]
    ) -> None:
        super().__init__()
        self.spec, self.contract = spec, contract
        self.embed = nn.Linear(encoder_width, spec.width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02)
        self.tables = nn.ParameterDict()
        for name, tokens in spec.tables.items():
            table = grid_positions(Grid(tokens, tokens), spec.width)
            self.tables[name] = nn.Parameter(torch.cat([torch.zeros_like(table[:, :1]), table], 1), requires_grad=False)
        self.blocks = make_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)
        self.norm = LAYER_NORM(spec.width)
        self.heads = nn.ModuleDict({name: nn.Linear(spec.width, values) for name, values in num_values.items()})
        self.embed.apply(init_linear)
        self.heads.apply(init_linear)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Predict (B, N, P) on the full grid; what stands at tokens that are not scored means nothing."""
        entry = self.contract.input_for(len(batch.size), batch.bands)
        prefix, seen = self.embed(tokens.prefix), self.embed(tokens.value)
        full = spread(seen, plan.see, self.mask_token.to(seen.dtype))
        if entry.name in self.tables:
            table = self.tables[entry.name]
            count = table.shape[1] - full.shape[1]
            prefix, full = prefix + table[:, :count], full + table[:, count:]
        else:
            full = full + batch_positions(batch, entry, tokens.grid, self.spec.width)
        known = plan.see | plan.hide
        hidden = run_blocks(self.blocks, torch.cat([prefix, full], dim=1), None if bool(known.all()) else known)
        values: Tensor = self.heads[entry.name](self.norm(hidden[:, prefix.shape[1] :]))
        return values
