"""Vision transformer for 2D and 3D inputs: per-input patch embeddings, one shared stack of timm blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._pool import summarised
from core.encoders._prepare import prepared, reading
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.errors import ConfigError
from core.patch_embed import patch_embed
from core.plan import Plan
from core.pos_embed import OURS, PositionRule, batch_positions, by_groups, grid_positions, resample_table
from core.shapes import Grid

Activation = Literal["gelu", "quick_gelu", "swiglu"]


@dataclass(frozen=True, kw_only=True)
class ViTSpec(EncoderSpec):
    """Describe a ViT (Dosovitskiy et al. 2020, arXiv 2010.11929), pre-norm, GELU, class token, as MAE builds it.

    Deviations: several inputs of either rank share the blocks (Uni4Eye, Cai et al. 2022, arXiv 2203.04614, 3.1);
    positions are computed from grid and spacing unless a table is stored. What other releases do otherwise are options.

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
        positions: how computed positions count: in metres for Scale-MAE, frame by frame for Prithvi, by date for SatMAE's series.
        activation: of the MLP: `gelu`; `quick_gelu`, x sigmoid(1.702 x), of CLIP as OpenAI trained it (Radford et al.
            2021, arXiv 2103.00020); `swiglu` (Shazeer 2020, arXiv 2002.05202), whose `mlp_ratio` counts gate and value.
        layer_scale: start of a learned factor on each branch (Touvron et al. 2021, arXiv 2103.17239), 1e-5 in DINOv2
            (Oquab et al. 2023, arXiv 2304.07193); none = no factor.
        norm_first: norm the tokens before the first block, as CLIP does.
        norm_eps: what norms add to the variance; 1e-5 in CLIP.
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
    positions: PositionRule = OURS
    activation: Activation = "gelu"
    layer_scale: float | None = None
    norm_first: bool = False
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"expected an even width that the heads divide, got {self.width} and {self.heads} heads.")
        if self.norm_eps <= 0 or (self.layer_scale is not None and self.layer_scale <= 0):
            raise ConfigError(
                f"expected positive norm_eps and layer_scale, got {self.norm_eps} and {self.layer_scale}: leave "
                "layer_scale out for branches without a factor."
            )
        for entry in self.contract.inputs:
            self.positions.check(self.place_channels, entry)
        unknown = set(self.tables) - {entry.name for entry in self.contract.inputs}
        if unknown:
            raise ConfigError(f"expected position tables for inputs of the contract, got tables for {sorted(unknown)}.")
        if self.tables and self.positions.frames == "time":
            raise ConfigError("expected no position tables where frames are told apart by time, which no table knows.")

    @property
    def place_channels(self) -> int:
        """Channels of a position that say where; the others of D say which band group."""
        return self.width - self.positions.group_channels

    def build(self) -> ViT:
        """Make the module, initialised as MAE does: Xavier uniform, zero biases, tokens of deviation 0.02."""
        return ViT(self)


class ViT(Backbone):
    """The module; see `ViTSpec`. Level i is the output of block i, counted from 1."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"drop", "token", "dense", "levels", "attention"})

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.spec: ViTSpec = spec
        self.num_features, self.num_levels = spec.width, spec.depth
        self.stems = nn.ModuleDict({entry.name: patch_embed(entry, spec.width) for entry in spec.contract.inputs})
        self.class_token = nn.Parameter(torch.randn(1, 1, spec.width) * 0.02) if spec.class_token else None
        self.tables = nn.ParameterDict()
        for entry in spec.contract.inputs:
            if entry.name in spec.tables:
                grid = Grid(spec.tables[entry.name], entry.patch, entry.groups)
                prefix = torch.zeros(1, int(spec.class_token), spec.width)
                places = grid_positions(grid.plain, spec.place_channels, shares=spec.positions.shares)
                places = by_groups(places, grid.num_groups, spec.positions.group_channels)
                self.tables[entry.name] = nn.Parameter(torch.cat([prefix, places], 1), requires_grad=spec.train_tables)
        self.blocks = make_blocks(
            spec.width,
            spec.depth,
            spec.heads,
            spec.mlp_ratio,
            spec.drop_path,
            activation=spec.activation,
            layer_scale=spec.layer_scale,
            norm_eps=spec.norm_eps,
        )
        self.stem = nn.ModuleDict({"norm": nn.LayerNorm(spec.width, spec.norm_eps)} if spec.norm_first else {})
        self.norm = nn.LayerNorm(spec.width, spec.norm_eps)

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def level_width(self, level: int) -> int:
        """D, at every level."""
        return self.spec.width

    def level_grid(self, level: int, grid: Grid) -> Grid:
        """The same grid at every level."""
        return grid

    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        """Normalise, order bands by name, and name the input; errors as `core.encoders._prepare.prepared`."""
        return prepared(self.contract, batch)

    def forward(
        self,
        batch: Batch,
        plan: Plan | None = None,
        *,
        mask_token: Tensor | None = None,
        stage: int = 0,
        levels: tuple[int, ...] = (),
        attention: bool = False,
    ) -> Tokens:
        """Encode; hidden and invalid patches are never read, nor are the padded slots of ragged samples.

        Raises:
            ConfigError: attention of a class token that it lacks.
        """
        if attention and self.class_token is None:
            raise ConfigError(
                "expected an encoder with a class token for attention: set --recipe.encoder.class_token=true."
            )
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        read = reading(batch, grid, plan, mask_token, stage)
        index, ok, count = read.index, read.ok, int(self.spec.class_token)
        prefix_position, position = self._positions(entry, grid, batch)
        tokens = read.replaced(self.stems[entry.name](batch, index), 0, level=0)
        if index is not None:
            position = position.expand(len(batch), -1, -1)
            position = position.gather(1, index[..., None].expand(-1, -1, position.shape[2]))
        tokens = tokens + position
        if ok is not None:
            tokens = torch.where(ok[..., None], tokens, 0.0)  # a padded slot holds nothing, not a hidden patch
        if self.class_token is not None:
            head = (self.class_token + prefix_position).expand(len(batch), -1, -1)
            tokens = torch.cat([head.to(tokens.dtype), tokens], dim=1)
        for layer in self.stem.values():
            tokens = layer(tokens)

        keys, inner, seen = key_mask(ok, count), {}, None
        for number, block in enumerate(self.blocks, start=1):
            if attention and number == len(self.blocks):
                seen = class_attention(block, tokens, keys)[..., count:]
            tokens = read.replaced(block(tokens, attn_mask=keys), count, level=number)
            if number in levels:
                inner[number] = Tokens(tokens[:, count:], ok, tokens[:, :count], grid, index is None)
        normed = self.norm(tokens)
        return Tokens(normed[:, count:], ok, normed[:, :count], grid, index is None, inner, seen)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`, errors at `core.encoders._pool.pooled`."""
        return summarised(self, self.norm, batch, pool)

    def _positions(self, entry: Input, grid: Grid, batch: Batch) -> tuple[Tensor | float, Tensor]:
        """Of the prefix and of every token, (1 or B, N, D)."""
        if entry.name not in self.tables:
            places = batch_positions(batch, entry, grid, self.spec.place_channels, self.spec.positions)
            return 0.0, by_groups(places, grid.num_groups, self.spec.positions.group_channels)
        table, count = self.tables[entry.name], int(self.spec.class_token)
        groups = table[:, count:].reshape(grid.num_groups, -1, self.spec.width)
        have = self.spec.tables[entry.name]
        places = torch.cat([resample_table(group[None], have, grid.tokens) for group in groups], dim=1)
        return table[:, :count], places


LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)  # MAE and all its descendants


def make_blocks(
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    drop_path: float = 0.0,
    *,
    activation: Activation = "gelu",
    layer_scale: float | None = None,
    norm_eps: float = 1e-6,
) -> nn.ModuleList:
    """Build the stack of pre-norm blocks that encoder and predictor share in kind, initialised as MAE does."""
    from timm.layers.activations import QuickGELU
    from timm.layers.mlp import Mlp, SwiGLUPacked
    from timm.models.vision_transformer import Block

    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    act, mlp = {"gelu": (nn.GELU, Mlp), "quick_gelu": (QuickGELU, Mlp), "swiglu": (nn.SiLU, SwiGLUPacked)}[activation]
    blocks = nn.ModuleList(
        Block(
            width,
            heads,
            mlp_ratio,
            qkv_bias=True,
            init_values=layer_scale,
            drop_path=rate,
            act_layer=act,
            norm_layer=partial(nn.LayerNorm, eps=norm_eps),  # type: ignore[arg-type]
            mlp_layer=mlp,  # type: ignore[arg-type]
        )
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


def key_mask(ok: Tensor | None, prefix: int) -> Tensor | None:
    """Say which of R + V tokens serve as keys, (B, 1, 1, R + V) bool: the prefix and what is ok (B, V); None = all."""
    if ok is None:
        return None
    keys = torch.cat([ok.new_ones(len(ok), prefix), ok], dim=1)
    keys = keys | ~keys.any(dim=1, keepdim=True)  # a sample without any key attends to its zeros, not to NaN
    return keys[:, None, None, :]


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, ok: Tensor | None) -> Tensor:
    """Run tokens (B, R + V, D) through blocks; of the last V only those that are `ok` (B, V) serve as keys."""
    mask = key_mask(ok, 0 if ok is None else tokens.shape[1] - ok.shape[1])
    for block in blocks:
        tokens = block(tokens, attn_mask=mask)
    return tokens


def class_attention(block: nn.Module, tokens: Tensor, keys: Tensor | None) -> Tensor:
    """Compute how much the first token attends to each in a block that is about to read them, (B, heads, R + V)."""
    attention: Any = block.attn
    batch, length, _ = tokens.shape
    qkv = attention.qkv(block.norm1(tokens))  # type: ignore[operator]
    query, key, _ = qkv.reshape(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    weights = (query * attention.scale) @ key.transpose(-2, -1)
    if keys is not None:
        weights = weights.masked_fill(~keys, -torch.inf)
    shares: Tensor = weights.softmax(dim=-1)[:, :, 0].to(torch.float32)
    return shares
