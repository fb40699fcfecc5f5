"""Convolution over maps that hold nothing at inactive places, in 2D and 3D; which places are active is an argument.

Maps are channels-last, (B, *T, D). What mixes places is computed on the whole map, whose inactive places are exactly 0;
what does not (norms, MLPs: nearly all of the compute) is computed on the active places alone. After each convolution
inactive places are 0 again, so that nothing spreads into what is hidden or missing (the sparse convolution of SparK, Tian
et al. 2023, arXiv 2301.03580, 3.1, and of submanifold networks, Graham & van der Maaten 2017, arXiv 1706.01307).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.encoders.vit import LAYER_NORM
from core.errors import ShapeError
from core.shapes import Grid

_CONVOLUTION: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def at_grid(tokens: Tensor, grid: Grid, other: Grid) -> Tensor:
    """Carry a choice of tokens (B, N) bool to another grid of the same image, (B, *T) bool.

    A finer cell has what its token has; a coarser one is chosen where any of its tokens is.

    Raises:
        ShapeError: along an axis neither grid divides the other.
    """
    found = tokens.reshape(len(tokens), *grid.tokens)
    for axis, (have, want) in enumerate(zip(grid.tokens, other.tokens, strict=True), start=1):
        if max(have, want) % min(have, want):
            raise ShapeError(f"expected grids of which one divides the other, got {grid.tokens} and {other.tokens}.")
        if want >= have:
            found = found.repeat_interleave(want // have, dim=axis)
        else:
            found = found.unflatten(axis, (want, have // want)).any(axis + 1)
    return found


def active_rows(active: Tensor) -> Tensor:
    """Number the active places of (B, *T) bool in the flattened map, (M,) int64."""
    return active.flatten().nonzero()[:, 0]


def on_active(cells: Tensor, rows: Tensor | None, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of single places to the active ones of a map (B, *T, D); elsewhere the result is exactly 0.

    Args:
        cells: the map.
        rows: from `active_rows`; None = every place is active.
        function: (M, D) to (M, D'), or with more leading axes.
    """
    if rows is None:
        return function(cells)
    flat = cells.flatten(0, -2)
    found = function(flat.index_select(0, rows))
    whole = found.new_zeros(len(flat), found.shape[-1]).index_copy(0, rows, found)
    return whole.reshape(*cells.shape[:-1], found.shape[-1])


def grouped_cells(cells: Tensor, block: tuple[int, ...]) -> Tensor:
    """Lay blocks of neighbouring places of a map (B, *T, D) side by side, raster order: (B, *T / block, D * places)."""
    batch, *tokens, width = cells.shape
    count = len(block)
    split = [n for length, b in zip(tokens, block, strict=True) for n in (length // b, b)]
    order = [0, *range(1, 1 + 2 * count, 2), *range(2, 2 + 2 * count, 2), 1 + 2 * count]
    return cells.reshape(batch, *split, width).permute(order).flatten(1 + count)


class RankConv(nn.ModuleDict):
    """One convolution of maps (B, *T, D) for each rank, stride 1, zeros beyond the border."""

    def __init__(self, width: int, out: int, kernels: dict[int, int], groups: int = 1, bias: bool = True) -> None:
        made = {
            f"{ndim}d": _CONVOLUTION[ndim](width, out, size, padding=size // 2, groups=groups, bias=bias)
            for ndim, size in kernels.items()
        }
        super().__init__(made)
        for convolution in made.values():
            nn.init.trunc_normal_(convolution.weight, std=0.02)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """Convolve with the kernel of the map's rank."""
        convolved: Tensor = self[f"{cells.ndim - 2}d"](cells.movedim(-1, 1))
        return convolved.movedim(1, -1)


class Merge(nn.Module):
    """Normalise and join two neighbours along each strided axis: a convolution of kernel and stride 2.

    Inputs of one rank may have different strides and share the kernel: an axis that is not strided is read as if each place
    were two of half the size, which is the kernel summed along it. So a thick slice is merged as two thin equal ones.
    """

    def __init__(self, width: int, out: int, ndims: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = LAYER_NORM(width)
        self.kernel = nn.ParameterDict({f"{n}d": nn.Parameter(torch.empty(out, width, *(2,) * n)) for n in ndims})
        self.bias = nn.Parameter(torch.zeros(out))
        for kernel in self.kernel.values():
            nn.init.trunc_normal_(kernel, std=0.02)

    def forward(self, cells: Tensor, strides: tuple[int, ...], rows: Tensor | None) -> Tensor:
        """Merge (B, *T, D) into (B, *T / strides, D'), at the active places of the result."""
        kernel = self.kernel[f"{len(strides)}d"]
        for axis, stride in enumerate(strides, start=2):
            kernel = kernel if stride == 2 else kernel.sum(axis, keepdim=True)
        weight = kernel.movedim(1, -1).flatten(1)

        def merged(blocks: Tensor) -> Tensor:
            normed = self.norm(blocks.unflatten(-1, (-1, cells.shape[-1])))
            return functional.linear(normed.flatten(-2), weight, self.bias)

        return on_active(grouped_cells(cells, strides), rows, merged)


class ConvBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv 2201.03545, figure 4): depthwise convolution, norm, MLP, all residual.

    The first block of a stage merges before that.
    """

    def __init__(
        self,
        width: int,
        kernels: dict[int, int],
        *,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float,
        merged_from: int | None = None,
    ) -> None:
        from timm.layers.drop import DropPath

        super().__init__()
        self.merge = None if merged_from is None else Merge(merged_from, width, tuple(kernels))
        self.depthwise = RankConv(width, width, kernels, groups=width)
        self.norm = LAYER_NORM(width)
        self.widen = nn.Linear(width, int(width * mlp_ratio))
        self.narrow = nn.Linear(int(width * mlp_ratio), width)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)
        for linear in (self.widen, self.narrow):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, cells: Tensor, strides: tuple[int, ...], rows: Tensor | None) -> Tensor:
        """Compute (B, *T, D) at the active places `rows`; strides are those of the stage."""
        if self.merge is not None:
            cells = self.merge(cells, strides, rows)
        added: Tensor = self.drop_path(on_active(self.depthwise(cells), rows, self._mlp))
        return cells + added

    def _mlp(self, cells: Tensor) -> Tensor:
        hidden = functional.gelu(self.widen(self.norm(cells)))
        scaled: Tensor = self.scale * self.narrow(hidden)
        return scaled
