"""From the coarsest map to the finest, adding the encoder's inner stages on the way: the decoder of SparK."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.encoders._masked_conv import RankConv, at_grid, grouped_cells
from core.encoders.base import Backbone, Tokens
from core.encoders.vit import LAYER_NORM, init_linear
from core.errors import ConfigError
from core.plan import Plan, spread
from core.predictors.base import PredictorSpec
from core.shapes import Grid, patchify, unpatchify


@dataclass(frozen=True, kw_only=True)
class UDecoderSpec(PredictorSpec):
    """Describe a light U-decoder (SparK, Tian et al. 2023, arXiv 2301.03580, 3.2 and 3.3).

    Each stage is densified: a learned vector stands at hidden places. Then it is added to what comes up from the coarser
    one. Of a merging encoder the maps coarser than the mask have no hidden places of their own and are taken as they are.

    Deviations: any rank and any ratio between stages, so neighbours are repeated and convolved in place of a transposed
    convolution of stride 2; channel norms in place of batch norms, so that batch mates change nothing; it ends at the
    finest stage, where each place predicts its own voxels; stages are projected place by place; missing tokens hold 0.

    Attributes:
        width: of the coarsest map; halved with each finer stage.
        stages: inner stages that it reads beside the encoder's output; none = all.
    """

    width: int
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or len(set(self.stages)) != len(self.stages) or min(self.stages, default=1) < 1:
            raise ConfigError(f"expected a width and different stages from 1 on, got {self.width} and {self.stages}.")

    def levels(self, num_levels: int) -> tuple[int, ...]:
        """The stages, by default all below the last, whose tokens are the encoder's output."""
        return tuple(sorted(self.stages)) or tuple(range(1, num_levels))

    def build(self, encoder: Backbone, num_values: dict[str, int]) -> UDecoder:
        """Make the module with fresh weights.

        Raises:
            ConfigError: band groups, no inner stage, a width that cannot be halved, or stages that are coarser than the
                tokens or do not nest.
        """
        levels = self.levels(encoder.num_levels)
        if not levels or "levels" not in encoder.abilities or levels[-1] >= encoder.num_levels:
            raise ConfigError(
                f"expected an encoder that gives inner stages below its last, {encoder.num_levels}, for the predictor "
                f"'u_decoder', got {type(encoder).__name__} and stages {levels}: choose another encoder or predictor."
            )
        if self.width % 2 ** len(levels):
            raise ConfigError(
                f"expected a width that can be halved {len(levels)} times, once per stage of {levels}, got {self.width}."
            )
        for entry in encoder.contract.inputs:
            if entry.groups:
                raise ConfigError(
                    f"input '{entry.name}': expected bands that share their tokens for the predictor 'u_decoder', got the "
                    f"groups {entry.groups}: choose the predictor 'transformer'."
                )
            _check_nested(encoder, levels, entry.grid())
        return UDecoder(self, encoder, num_values)


class UDecoder(nn.Module):
    """The module; see `UDecoderSpec`."""

    def __init__(self, spec: UDecoderSpec, encoder: Backbone, num_values: dict[str, int]) -> None:
        super().__init__()
        self.spec, self.contract = spec, encoder.contract
        self.levels = tuple(reversed(spec.levels(encoder.num_levels)))  # coarse to fine
        ranks = {entry.ndim: 3 for entry in self.contract.inputs}
        widths = [spec.width // 2**i for i in range(1 + len(self.levels))]
        given = [encoder.num_features, *(encoder.level_width(level) for level in self.levels)]
        self.norms = nn.ModuleList([nn.Identity(), *(LAYER_NORM(width) for width in given[1:])])  # the output is normed
        self.projections = nn.ModuleList(nn.Linear(a, b) for a, b in zip(given, widths, strict=True))
        self.mask_tokens = nn.ParameterDict()
        for i, level in enumerate((encoder.num_levels, *self.levels)):
            grids = [(entry.grid(), encoder.level_grid(level, entry.grid())) for entry in self.contract.inputs]
            if all(_divides(fine, grid) for grid, fine in grids):
                self.mask_tokens[str(i)] = nn.Parameter(torch.randn(widths[i]) * 0.02)
        self.rises = nn.ModuleList(Rise(coarse, fine, ranks) for coarse, fine in pairwise(widths))
        self.heads, self.by_voxel = nn.ModuleDict(), dict[str, bool]()
        for entry in self.contract.inputs:
            grid = entry.grid()
            fine = encoder.level_grid(self.levels[-1], grid)
            cells = fine.num_tokens // grid.num_tokens
            values = num_values[entry.name]
            by_voxel = self.by_voxel[entry.name] = values % grid.voxels == 0
            shape = (widths[-1], values // cells) if by_voxel else (widths[-1] * cells, values)
            self.heads[entry.name] = nn.Linear(*shape)
        self.projections.apply(init_linear)
        self.heads.apply(init_linear)

    def forward(self, tokens: Tokens, plan: Plan, batch: Batch) -> Tensor:
        """Predict (B, N, P); voxel by voxel where P is a multiple of the patch's voxels, else token by token."""
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        rising = None
        for i, given in enumerate((tokens, *(tokens.levels[level] for level in self.levels))):
            known = at_grid(plan.see | plan.hide, grid, given.grid)[..., None]
            lateral = self.projections[i](self.norms[i](_as_map(given, plan)))
            if str(i) in self.mask_tokens:
                seen = at_grid(plan.see, grid, given.grid)[..., None]
                lateral = torch.where(seen, lateral, self.mask_tokens[str(i)].to(lateral.dtype))
            lateral = torch.where(known, lateral, 0.0)
            rising = lateral if rising is None else self.rises[i - 1](rising, lateral, known)
        assert rising is not None
        fine = tokens.levels[self.levels[-1]].grid
        if not self.by_voxel[entry.name]:
            rising = grouped_cells(rising, tuple(f // t for f, t in zip(fine.tokens, grid.tokens, strict=True)))
        values: Tensor = self.heads[entry.name](rising).flatten(1, -2)
        return patchify(unpatchify(values, fine), grid.patch) if self.by_voxel[entry.name] else values


class Rise(nn.Module):
    """One step up: repeat to the finer grid and convolve, add the stage, convolve; norms over channels."""

    def __init__(self, coarse: int, fine: int, kernels: dict[int, int]) -> None:
        super().__init__()
        self.up, self.up_norm = RankConv(coarse, fine, kernels, bias=False), LAYER_NORM(fine)
        self.mix, self.mix_norm = RankConv(fine, fine, kernels, bias=False), LAYER_NORM(fine)

    def forward(self, cells: Tensor, lateral: Tensor, known: Tensor) -> Tensor:
        """Raise (B, *T, D) to the map of `lateral` (B, *T', D'); places that are not `known` (B, *T', 1) hold 0."""
        for axis in range(1, cells.ndim - 1):
            cells = cells.repeat_interleave(lateral.shape[axis] // cells.shape[axis], dim=axis)
        raised = torch.where(known, functional.gelu(self.up_norm(self.up(cells))), 0.0)
        mixed = functional.gelu(self.mix_norm(self.mix(raised + lateral)))
        return torch.where(known, mixed, 0.0)


def _as_map(given: Tokens, plan: Plan) -> Tensor:
    """Lay tokens out as (B, *T, D); those of an encoder that dropped the hidden ones go back to their places."""
    value = given.value
    if not given.full_grid:
        value = spread(value, plan.see, value.new_zeros(1, 1, value.shape[2]))
    laid: Tensor = value.unflatten(1, given.grid.tokens)
    return laid


def _divides(fine: Grid, coarse: Grid) -> bool:
    """Say whether every token of the coarse grid is a block of whole tokens of the fine one."""
    return all(f % c == 0 for f, c in zip(fine.tokens, coarse.tokens, strict=True))


def _check_nested(encoder: Backbone, levels: tuple[int, ...], grid: Grid) -> None:
    grids = [encoder.level_grid(level, grid) for level in (*levels, encoder.num_levels)]
    nested = all(_divides(fine, coarse) for fine, coarse in pairwise(grids))
    if not nested or not _divides(grids[0], grid):
        raise ConfigError(
            f"expected stages whose grids nest, the finest at least as fine as the tokens {grid.tokens}, for the predictor "
            f"'u_decoder', got {[g.tokens for g in grids]} for stages {levels} and the output: name a finer stage."
        )
