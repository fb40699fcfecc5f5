"""Convolutional encoder for 2D and 3D inputs, whose convolutions read only what is active: visible, and measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input
from core.encoders._masked_conv import ConvBlock, active_rows, at_grid
from core.encoders._pool import summarised
from core.encoders._prepare import prepared
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.encoders.vit import LAYER_NORM
from core.errors import ConfigError
from core.patch_embed import PatchEmbed
from core.plan import Plan
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class ConvNetSpec(EncoderSpec):
    """Describe a ConvNeXt (Liu et al. 2022, arXiv 2201.03545) with sparse convolution (SparK, arXiv 2301.03580, 3.1).

    A token is a place of the last stage: an input's patch is the total stride. Along each axis later stages halve first
    and the stem takes the rest, 1, 2 or 4: with four stages a patch of 32 is 4 x 2 x 2 x 2 and one of 2 is 1 x 1 x 1 x 2,
    so that thick slices are merged last, when the voxels' footprint has become nearly cubic.

    Deviations: several inputs of either rank share norms and MLPs, and each rank has its own kernels; missing voxels add a
    learned vector in the stem and missing tokens are inactive; `layer_scale` starts at 0.1, not 1e-6, with which hidden
    places would at first learn from gradients smaller than the epsilon of Adam. As the reference, it has no positions, and
    it is not told the spacing.

    Attributes:
        contract: the inputs it reads; without band groups, and with patches that are powers of two.
        widths: D of each stage, (96, 192, 384, 768) in ConvNeXt-T.
        depths: blocks of each stage, (3, 3, 9, 3) in ConvNeXt-T.
        kernel_2d: places of the depthwise convolution along each axis of an image.
        kernel_3d: the same for volumes; 343 products per place for 7 would outweigh the MLP of narrow stages.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        layer_scale: start value of the learned factor on each block's contribution.
    """

    contract: Contract
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernel_2d: int = 7
    kernel_3d: int = 5
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    layer_scale: float = 0.1

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) or len(self.widths) < 2 or min(*self.widths, *self.depths) < 1:
            raise ConfigError(
                f"expected a width and a number of blocks for each of at least two stages, got {self.widths} and {self.depths}."
            )
        if min(self.kernel_2d, self.kernel_3d) < 1 or not self.kernel_2d % 2 or not self.kernel_3d % 2:
            raise ConfigError(f"expected odd kernels, got {self.kernel_2d} in 2D and {self.kernel_3d} in 3D.")
        for entry in self.contract.inputs:
            if entry.groups:
                raise ConfigError(
                    f"input '{entry.name}': expected bands that share their tokens, got the groups {entry.groups}: a "
                    "convolution has one map for all bands; leave the groups out, or choose the encoder 'vit'."
                )
            stage_strides(entry.patch, len(self.widths))

    @property
    def depth(self) -> int:
        """Blocks of all stages, which layer-wise learning rates count."""
        return sum(self.depths)

    def build(self) -> ConvNet:
        """Make the module, initialised as ConvNeXt: truncated normal of deviation 0.02, zero biases."""
        return ConvNet(self)


class ConvNet(Backbone):
    """The module; see `ConvNetSpec`. Level i is the output of stage i; levels are whole maps, 0 where inactive."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"drop", "token", "dense", "levels"})

    def __init__(self, spec: ConvNetSpec) -> None:
        super().__init__()
        self.spec: ConvNetSpec = spec
        self.num_features, self.num_levels = spec.widths[-1], len(spec.widths)
        kernels = {n: size for n, size in ((2, spec.kernel_2d), (3, spec.kernel_3d)) if n in self._ranks()}
        self.stems = nn.ModuleDict(
            {
                entry.name: Stem(len(entry.bands), stage_strides(entry.patch, self.num_levels)[0], spec.widths[0])
                for entry in spec.contract.inputs
            }
        )
        self.blocks = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(spec.widths, spec.depths, strict=True)):
            for i in range(depth):
                block = ConvBlock(
                    width,
                    kernels,
                    mlp_ratio=spec.mlp_ratio,
                    drop_path=spec.drop_path * len(self.blocks) / max(spec.depth - 1, 1),
                    layer_scale=spec.layer_scale,
                    merged_from=spec.widths[stage - 1] if stage and i == 0 else None,
                )
                self.blocks.append(block)
        self.norm = LAYER_NORM(self.num_features)

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def level_width(self, level: int) -> int:
        """D of a stage; the stem has that of the first."""
        return self.spec.widths[max(level, 1) - 1]

    def level_grid(self, level: int, grid: Grid) -> Grid:
        """Lay out the places of a stage: finer than the tokens until the last."""
        strides = stage_strides(grid.patch, self.num_levels)[: max(level, 1)]
        return Grid.of(grid.size, tuple(math.prod(axis) for axis in zip(*strides, strict=True)))

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
        """Encode; without a mask token only seen tokens are active, with one every valid token is.

        A mask token of a stage above 0 comes after convolutions that read hidden voxels as the batch holds them, next to
        them too: fill the batch first.

        Raises:
            ConfigError: attention is asked for.
        """
        if attention:
            raise ConfigError("expected an encoder with a class token for attention, got ConvNet: choose 'vit'.")
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        active, hidden = valid_tokens(batch, grid), None
        if plan is not None:
            active, hidden = (plan.see, None) if mask_token is None else (plan.see | plan.hide, plan.hide)
        whole = bool(active.all())

        def replaced(cells: Tensor, level: int) -> Tensor:
            if hidden is None or mask_token is None or level != stage:
                return cells
            chosen = at_grid(hidden, grid, self.level_grid(level, grid))
            return torch.where(chosen[..., None], mask_token.reshape(-1).to(cells.dtype), cells)

        start = self.level_grid(0, grid)
        cells = self.stems[entry.name](batch).unflatten(1, start.tokens)
        if not whole:
            cells = torch.where(at_grid(active, grid, start)[..., None], cells, 0.0)
        cells = replaced(cells, 0)
        inner = {}
        bounds = [0, *accumulate(self.spec.depths)]
        for number, strides in enumerate(stage_strides(entry.patch, self.num_levels), start=1):
            level = self.level_grid(number, grid)
            present = None if whole else at_grid(active, grid, level)
            rows = None if present is None else active_rows(present)
            for i in range(bounds[number - 1], bounds[number]):
                cells = self.blocks[i](cells, strides, rows)
            cells = replaced(cells, number)
            if number in levels:
                ok = None if present is None else present.flatten(1)
                inner[number] = Tokens(cells.flatten(1, -2), ok, _no_prefix(cells), level, True)
        value, ok = cells.flatten(1, -2), None if whole else active
        dropped = plan is not None and mask_token is None
        if plan is not None and mask_token is None:
            index, ok = plan.seen_index
            value = value.gather(1, index[..., None].expand(-1, -1, value.shape[2]))
        value = self.norm(value)
        if ok is not None:
            value = torch.where(ok[..., None], value, 0.0)
        return Tokens(value, ok, _no_prefix(cells), grid, not dropped, inner)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); the pools are explained at `Pool`, errors at `core.encoders._pool.pooled`."""
        return summarised(self, self.norm, batch, pool)

    def _ranks(self) -> set[int]:
        return {entry.ndim for entry in self.contract.inputs}


class Stem(nn.Module):
    """Embed the places of the first stage and norm them; where all is missing the norm sees the learned vector."""

    def __init__(self, num_bands: int, stride: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.embed, self.norm = PatchEmbed(num_bands, stride, width), LAYER_NORM(width)
        nn.init.trunc_normal_(self.embed.nodata, std=0.02)  # from 0 the norm would multiply gradients by 1000

    def forward(self, batch: Batch) -> Tensor:
        """Embed (B, N, D)."""
        embedded: Tensor = self.norm(self.embed(batch))
        return embedded


def stage_strides(patch: tuple[int, ...], stages: int) -> tuple[tuple[int, ...], ...]:
    """Factor a patch into the stride of each stage and axis: 1, 2 or 4 for the first, which is the stem, then 1 or 2.

    Raises:
        ConfigError: a side of the patch is no such product.
    """
    axes = []
    for side in patch:
        later: list[int] = []
        rest = side
        for _ in range(stages - 1):
            later.insert(0, 2 if rest % 2 == 0 else 1)
            rest //= later[0]
        if rest not in (1, 2, 4):
            raise ConfigError(
                f"expected a patch whose sides are powers of two up to {4 * 2 ** (stages - 1)} for {stages} stages, got "
                f"{patch}: choose another patch, or another number of stages."
            )
        axes.append((rest, *later))
    return tuple(zip(*axes, strict=True))


def _no_prefix(cells: Tensor) -> Tensor:
    return cells.new_zeros(len(cells), 0, cells.shape[-1])
