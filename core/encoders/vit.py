"""Vision transformer for 2D and 3D inputs: per-input patch embeddings, one shared stack of timm blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input
from core.encoders.base import Backbone, EncoderSpec, Pool, Tokens
from core.errors import ConfigError, DataError
from core.patch_embed import PatchEmbed
from core.plan import Plan, visible_index
from core.pos_embed import batch_positions, grid_positions, resample_table
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class ViTSpec(EncoderSpec):
    """Describe a ViT (Dosovitskiy et al. 2020, arXiv 2010.11929), pre-norm, GELU, class token, as MAE builds it.

    Deviations: several inputs of either rank share the blocks (Uni4Eye, Cai et al. 2022, arXiv 2203.04614, 3.1);
    positions are computed from grid and spacing unless a table is stored.

    Attributes:
        contract: the inputs it reads.
        width: D.
        depth: blocks.
        heads: attention heads, dividing `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016, arXiv 1603.09382).
        class_token: prepend one learned token.
        tables: token grid of a stored position table, per input name; an input that is absent computes its positions.
        train_tables: let the optimiser change stored tables.
    """

    contract: Contract
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    class_token: bool = True
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    train_tables: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"expected an even width that the heads divide, got {self.width} and {self.heads} heads.")
        unknown = set(self.tables) - {entry.name for entry in self.contract.inputs}
        if unknown:
            raise ConfigError(f"expected position tables for inputs of the contract, got tables for {sorted(unknown)}.")

    def build(self) -> ViT:
        """Make the module, initialised as MAE does: Xavier uniform, zero biases, tokens of deviation 0.02."""
        return ViT(self)


class ViT(Backbone):
    """The module; see `ViTSpec`."""

    abilities: ClassVar[frozenset[str]] = frozenset({"drop"})

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.spec: ViTSpec = spec
        self.num_features = spec.width
        self.stems = nn.ModuleDict({entry.name: PatchEmbed(entry, spec.width) for entry in spec.contract.inputs})
        self.class_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02) if spec.class_token else None
        self.tables = nn.ParameterDict()
        for name, tokens in spec.tables.items():
            grid = Grid(tokens, tokens)
            prefix = torch.zeros(1, int(spec.class_token), spec.width)
            table = torch.cat([prefix, grid_positions(grid, spec.width)], dim=1)
            self.tables[name] = nn.Parameter(table, requires_grad=spec.train_tables)
        self.blocks = make_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio, spec.drop_path)
        self.norm = LAYER_NORM(spec.width)

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        """Normalise, order bands by name, and name the input.

        Raises:
            BandError: no input has this rank and these bands.
            DataError: spacing comes in another unit than the input's.
        """
        entry = self.contract.input_for(len(batch.size), batch.bands)
        if batch.unit != entry.unit:
            raise DataError(
                f"input '{entry.name}': expected spacing in {entry.unit}, got {batch.unit}: "
                "declare the spacing of the files, or use an encoder trained without it."
            )
        return batch.aligned(entry.bands).normalised(), entry

    def forward(self, batch: Batch, plan: Plan | None = None) -> Tokens:
        """Encode; with a plan, hidden and invalid patches are never read, nor are the padded slots of ragged samples."""
        grid, prefix, value, ok = self._run(batch, plan)
        return Tokens(self.norm(value), ok, self.norm(prefix), grid)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`.

        Raises:
            ConfigError: an unknown pool, or `cls` without a class token.
        """
        _, prefix, value, ok = self._run(batch, None)
        norm: Callable[[Tensor], Tensor] = self.norm
        if pool == "cls":
            if self.class_token is None:
                raise ConfigError("expected an encoder with a class token for pool='cls': choose pool='mean'.")
            return norm(prefix[:, 0])
        if pool == "mean":
            return valid_mean(norm(value), ok)
        if pool == "mean_std":
            return valid_mean_std(norm(value), ok)
        if pool == "mean_then_norm":
            return norm(valid_mean(value, ok))
        raise ConfigError(f"expected pool 'mean', 'mean_std', 'cls' or 'mean_then_norm', got '{pool}'.")

    def _run(self, batch: Batch, plan: Plan | None) -> tuple[Grid, Tensor, Tensor, Tensor | None]:
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = batch.grid(entry.patch)
        prefix_position, position = self._positions(entry, grid, batch)
        if plan is None:
            index, ok = None, valid_tokens(batch, grid)
        else:
            index, ok = visible_index(plan.see)
        whole = bool(ok.all())
        tokens = self.stems[entry.name](batch, index)
        if index is not None:
            position = position.expand(len(batch), -1, -1)
            position = position.gather(1, index[..., None].expand(-1, -1, position.shape[2]))
        tokens = tokens + position
        if not whole:
            tokens = torch.where(ok[..., None], tokens, 0.0)  # a padded slot holds nothing, not a hidden patch
        if self.class_token is not None:
            head = (self.class_token + prefix_position).expand(len(batch), -1, -1)
            tokens = torch.cat([head.to(tokens.dtype), tokens], dim=1)
        tokens = run_blocks(self.blocks, tokens, None if whole else ok)
        count = tokens.shape[1] - ok.shape[1]
        return grid, tokens[:, :count], tokens[:, count:], None if whole else ok

    def _positions(self, entry: Input, grid: Grid, batch: Batch) -> tuple[Tensor | float, Tensor]:
        if entry.name not in self.tables:
            return 0.0, batch_positions(batch, entry, grid, self.spec.width)
        table = resample_table(self.tables[entry.name], self.spec.tables[entry.name], grid.tokens)
        count = int(self.spec.class_token)
        return table[:, :count], table[:, count:]


LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # MAE and all its descendants


def make_blocks(width: int, depth: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> nn.ModuleList:
    """Build the stack of pre-norm blocks that encoder and predictor share in kind, initialised as MAE does."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    blocks = nn.ModuleList(
        Block(width, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=LAYER_NORM)  # type: ignore[arg-type]
        for rate in rates
    )
    blocks.apply(init_linear)
    return blocks


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer with Xavier uniform weights and zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, ok: Tensor | None) -> Tensor:
    """Run tokens (B, R + V, D) through blocks; of the last V only those that are `ok` (B, V) serve as keys."""
    mask = None
    if ok is not None:
        prefix = ok.new_ones(len(ok), tokens.shape[1] - ok.shape[1])
        keys = torch.cat([prefix, ok], dim=1)
        keys = keys | ~keys.any(dim=1, keepdim=True)  # a sample without any key attends to its zeros, not to NaN
        mask = keys[:, None, None, :]
    for block in blocks:
        tokens = block(tokens, attn_mask=mask)
    return tokens


def valid_mean(value: Tensor, ok: Tensor | None) -> Tensor:
    """Average tokens (B, V, D) over those that are ok; a sample without any gives 0."""
    if ok is None:
        return value.mean(dim=1)
    weight = ok.to(value.dtype)[..., None]
    return (value * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def valid_mean_std(value: Tensor, ok: Tensor | None) -> Tensor:
    """Average tokens (B, V, D) and measure their spread, side by side (B, 2 D), over those that are ok."""
    mean = valid_mean(value, ok)
    variance = valid_mean((value - mean[:, None]).square(), ok)
    return torch.cat([mean, (variance + 1e-12).sqrt()], dim=1)  # the root of exactly 0 has no gradient
