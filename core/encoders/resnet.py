"""Residual network of CLIP with attention pooling, for images and, slice by slice, for volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input
from core.encoders._pool import pooled, valid_mean
from core.encoders._prepare import prepared
from core.encoders.base import Ability, Backbone, EncoderSpec, Pool, Tokens
from core.encoders.convnet import stage_strides
from core.errors import ConfigError
from core.plan import Plan
from core.pos_embed import resample_table
from core.shapes import Grid, unpatchify

EXPANSION = 4


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(EncoderSpec):
    """Describe the ResNet of CLIP (Radford et al. 2021, arXiv 2103.00020, 2.4).

    Three convolutions as stem, averages before every stride (ResNet-D, He et al. 2018, arXiv 1812.01187), and one token that
    attends to the last map. It is there to be loaded: norms keep the statistics that were stored with them, so batch mates
    never matter. A token is a place of the last map; the attending one stands where others have a class token.

    Deviations: hidden, missing and padded voxels are 0, the mean of the value space, and no token attends to theirs; volumes
    are read slice by slice with the same kernels, and slices of one patch are averaged.

    Attributes:
        contract: the inputs it reads; without band groups, with patches in Y and X that are powers of two.
        width: channels after the stem, 64 in RN50; D is `width * 4 * 2^(stages - 1)`.
        depths: blocks of each stage, (3, 4, 6, 3) in RN50.
        heads: attention heads of the pooling, dividing D, 32 in RN50.
    """

    contract: Contract
    width: int
    depths: tuple[int, ...]
    heads: int

    def __post_init__(self) -> None:
        if not self.depths or min(*self.depths, self.width) < 1 or self.width % 2 or self.features % self.heads:
            raise ConfigError(
                f"expected an even width, a block in each stage and heads that divide {self.features} features, got width "
                f"{self.width}, depths {self.depths} and {self.heads} heads."
            )
        for entry in self.contract.inputs:
            if entry.groups:
                raise ConfigError(
                    f"input '{entry.name}': expected bands that share their tokens, got the groups {entry.groups}: a "
                    "convolution has one map for all bands; leave the groups out, or choose the encoder 'vit'."
                )
            stage_strides(entry.patch[-2:], len(self.depths))

    @property
    def depth(self) -> int:
        """Blocks of all stages, which layer-wise learning rates count."""
        return sum(self.depths)

    @property
    def features(self) -> int:
        """D."""
        return self.stage_width(len(self.depths) - 1)

    def stage_width(self, stage: int) -> int:
        """Channels after a stage, counted from 0."""
        return self.width * EXPANSION * int(2**stage)

    def build(self) -> ResNet:
        """Make the module, initialised as He et al. 2015 (arXiv 1502.01852), branches small for want of statistics."""
        return ResNet(self)


class ResNet(Backbone):
    """The module; see `ResNetSpec`."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"drop", "dense"})

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.spec: ResNetSpec = spec
        self.num_features, self.num_levels = spec.features, 1
        half, width = spec.width // 2, spec.width
        self.stems = nn.ModuleDict({e.name: convolution(len(e.bands), half, 3) for e in spec.contract.inputs})
        self.stem = Stem(half, width)
        self.blocks, have = nn.ModuleList(), width
        for stage, depth in enumerate(spec.depths):
            for _ in range(depth):
                self.blocks.append(Bottleneck(have, spec.stage_width(stage), branch=spec.depth**-0.5))
                have = spec.stage_width(stage)
        self.tables = nn.ModuleDict({e.name: Table(math.prod(e.grid().tokens) + 1, have) for e in spec.contract.inputs})
        self.query_key_value = nn.Linear(have, 3 * have)
        nn.init.normal_(self.query_key_value.weight, std=have**-0.5)
        nn.init.zeros_(self.query_key_value.bias)

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""
        return self.spec.contract

    def level_width(self, level: int) -> int:
        """D: its one level is the last map."""
        return self.num_features

    def level_grid(self, level: int, grid: Grid) -> Grid:
        """The grid of the tokens."""
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
        """Encode; what is hidden or missing is 0 before the first convolution.

        Raises:
            ConfigError: a mask token, inner levels or attention are asked for.
        """
        asked = {"a mask token": mask_token is not None, "inner levels": bool(levels), "class attention": attention}
        if any(asked.values()):
            wanted = " and ".join(name for name, is_asked in asked.items() if is_asked)
            raise ConfigError(f"expected an encoder that has {wanted}, got ResNet: choose 'vit' or 'swinv2'.")
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = entry.grid(batch.size)
        active = valid_tokens(batch, grid) if plan is None else plan.see
        image = batch.image
        if not bool(active.all()):
            voxels = unpatchify(active[..., None].expand(-1, -1, grid.voxels), grid)
            image = torch.where(voxels, image, 0.0)
        value = self._map(image, entry, grid)
        prefix = self._attended(value, active, entry, grid)
        ok = None if bool(active.all()) else active
        if plan is not None:
            index, ok = plan.seen_index
            value = value.gather(1, index[..., None].expand(-1, -1, value.shape[2]))
        if ok is not None:
            value = torch.where(ok[..., None], value, 0.0)
        return Tokens(value, ok, prefix, grid, plan is None)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise as (B, D), or (B, 2 D); `cls` is the attending token, and there is no last norm."""
        tokens = self(batch)
        return pooled(pool, tokens.value, tokens.ok, tokens.prefix[:, 0], nn.Identity())

    def _map(self, image: Tensor, entry: Input, grid: Grid) -> Tensor:
        """Give the last map of images (B, C, *S) as tokens (B, N, D)."""
        count, deep = len(image), grid.patch[0] if grid.ndim == 3 else 1
        cells = image.transpose(1, 2).flatten(0, 1) if grid.ndim == 3 else image
        first, *rest = stage_strides(entry.patch[-2:], len(self.spec.depths))
        halves = tuple(min(stride, 2) for stride in first)
        cells = functional.conv2d(cells, self.stems[entry.name].weight, None, halves, 1)  # type: ignore[arg-type]
        cells = self.stem(cells, tuple(stride // half for stride, half in zip(first, halves, strict=True)))
        blocks = iter(self.blocks)
        for depth, stride in zip(self.spec.depths, ((1, 1), *rest), strict=True):
            for number in range(depth):
                cells = next(blocks)(cells, (1, 1) if number else stride)
        planes = cells.flatten(2).transpose(1, 2)  # slices, places of one slice, D
        tokens: Tensor = planes.unflatten(0, (count, -1, deep)).mean(2).flatten(1, 2)
        return tokens

    def _attended(self, value: Tensor, active: Tensor, entry: Input, grid: Grid) -> Tensor:
        """Let the mean of the active tokens attend to them and itself, (B, 1, D)."""
        table = resample_table(self.tables[entry.name].rows[None], entry.grid().tokens, grid.tokens)  # type: ignore[index]
        ok = None if bool(active.all()) else active
        tokens = torch.cat([valid_mean(value, ok)[:, None], value], dim=1) + table
        apart = self.query_key_value(tokens).unflatten(-1, (3, self.spec.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, content = apart.unbind(0)
        keys = None if ok is None else functional.pad(ok, (1, 0), value=True)[:, None, None]
        seen = functional.scaled_dot_product_attention(query[:, :, :1], key, content, attn_mask=keys)
        return seen.transpose(1, 2).flatten(2)


class Stem(nn.Module):
    """What follows the first convolution, of which each input has its own."""

    def __init__(self, half: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([convolution(half, half, 3), convolution(half, width, 3)])
        self.norms = nn.ModuleList(StoredNorm(channels) for channels in (half, half, width))

    def forward(self, cells: Tensor, stride: tuple[int, ...]) -> Tensor:
        """Map (B, half, Y, X) to (B, width, Y / stride, X / stride)."""
        first, *norms = self.norms
        cells = first(cells).relu()
        for layer, norm in zip(self.layers, norms, strict=True):
            cells = norm(layer(cells)).relu()
        return blurred(cells, stride)


class Bottleneck(nn.Module):
    """Narrow, look around, widen, and add to what was there; strides average before they skip."""

    def __init__(self, have: int, wide: int, branch: float) -> None:
        super().__init__()
        planes = wide // EXPANSION
        self.layers = nn.ModuleList(
            [convolution(have, planes, 1), convolution(planes, planes, 3), convolution(planes, wide, 1)]
        )
        self.norms = nn.ModuleList([StoredNorm(planes), StoredNorm(planes), StoredNorm(wide, weight=branch)])
        self.short = convolution(have, wide, 1) if have != wide else None
        self.short_norm = StoredNorm(wide) if have != wide else None

    def forward(self, cells: Tensor, stride: tuple[int, ...]) -> Tensor:
        """Map (B, C, Y, X) to (B, C', Y / stride, X / stride)."""
        inner = cells
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            inner = norm(layer(blurred(inner, stride) if number == 2 else inner))
            inner = inner.relu() if number < 2 else inner
        cells = blurred(cells, stride)
        if self.short is not None and self.short_norm is not None:
            cells = self.short_norm(self.short(cells))
        return (cells + inner).relu()


class StoredNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167) that always uses its stored statistics."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((channels,), weight)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, cells: Tensor) -> Tensor:
        """Norm (B, C, Y, X) channel by channel."""
        return functional.batch_norm(cells, self.mean, self.variance, self.weight, self.bias, training=False)


class Table(nn.Module):
    """Learned positions of the token that attends, first, and of those it attends to."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(count, width) * width**-0.5)


def convolution(have: int, want: int, kernel: int) -> nn.Conv2d:
    """Make a convolution without bias that keeps the size."""
    made = nn.Conv2d(have, want, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    return made


def blurred(cells: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Average blocks of cells; a stride of 1 leaves them."""
    return cells if max(stride) == 1 else functional.avg_pool2d(cells, stride)
