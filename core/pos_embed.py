"""Where a token is: sine-cosine positions of any 2D or 3D grid at any spacing, and resampling of stored tables.

Positions are computed, never stored, unless a foreign checkpoint brings a table of its own. One unit of position is one
patch at the input's nominal spacing, so one encoder serves several spacings and an image at the nominal one sees MAE's table.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.contract import Input
from core.errors import ShapeError
from core.shapes import Grid


def axis_widths(width: int, ndim: int) -> tuple[int, ...]:
    """Share D channels among the axes, in the order x, y(, z): equal even parts, the last takes what is left."""
    if width % 2 or width < 2 * ndim:
        raise ShapeError(f"expected an even width of at least {2 * ndim} for {ndim}D positions, got {width}.")
    part = width // (2 * ndim) * 2
    return (*(part for _ in range(ndim - 1)), width - part * (ndim - 1))


def sincos(position: Tensor, width: int) -> Tensor:
    """Encode positions (...) of one axis as (..., width): all sines, then all cosines (Vaswani 2017, 1706.03762, 3.5)."""
    half = width // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=position.dtype, device=position.device) / half)
    angle = position[..., None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def grid_positions(grid: Grid, width: int, scale: Tensor | None = None, origin: Tensor | None = None) -> Tensor:
    """Encode every token's place, (1 or B, N, D) float32.

    Source: He et al. 2021, arXiv 2111.06377 (2D tables). Deviations: any rank; a third axis appends its own channels,
    so that the x and y channels of a 3D position equal a 2D position of that width; spacing.

    Args:
        grid: the tokens.
        width: D, even.
        scale: (B, ndim) spacing of each sample divided by the nominal one, array order; None = nominal.
        origin: (B, ndim) place of the first token, in patches at the nominal spacing; None = 0.
    """
    precise = torch.float32 if scale is not None and scale.device.type == "mps" else torch.float64
    factor = torch.ones(1, grid.ndim, dtype=precise) if scale is None else scale.to(precise)
    batch, widths = factor.shape[0], axis_widths(width, grid.ndim)
    parts = []
    for channels, axis in zip(widths, reversed(range(grid.ndim)), strict=True):  # x is the last array axis
        steps = torch.arange(grid.tokens[axis], dtype=precise, device=factor.device)
        place = steps[None] * factor[:, axis, None]
        if origin is not None:
            place = place + origin[:, axis, None].to(precise)
        code = sincos(place, channels).to(torch.float32)
        shape = [batch, *(1 for _ in grid.tokens), channels]
        shape[1 + axis] = grid.tokens[axis]
        parts.append(code.reshape(shape).expand(batch, *grid.tokens, channels))
    return torch.cat(parts, dim=-1).reshape(batch, grid.num_places, width)


def batch_positions(batch: Batch, entry: Input, grid: Grid, width: int) -> Tensor:
    """Encode where every token of a batch is, (B, N, D): in its whole image, measured in patches at nominal spacing."""
    nominal = torch.tensor(entry.spacing, device=batch.spacing.device)
    patch = nominal * torch.tensor(entry.patch, device=nominal.device)
    origin = None if batch.origin is None else batch.origin / patch
    return grid_positions(grid, width, batch.spacing / nominal, origin)


def resample_table(table: Tensor, have: tuple[int, ...], want: tuple[int, ...]) -> Tensor:
    """Resample a stored table (1, R + N, D) from one token grid to another; the R leading rows stay as they are.

    2D: bicubic, corners not aligned, no antialiasing, as in the MAE fine-tuning code; 3D: trilinear.
    """
    if have == want:
        return table
    count = Grid(have, have).num_places
    prefix, body = table[:, : table.shape[1] - count], table[:, table.shape[1] - count :]
    if body.shape[1] != count or len(have) != len(want):
        raise ShapeError(f"expected a table for {have} tokens to be resampled to {want}, got {tuple(table.shape)}.")
    image = body.reshape(1, *have, -1).movedim(-1, 1)
    mode = "bicubic" if len(have) == 2 else "trilinear"
    image = functional.interpolate(image, size=want, mode=mode, align_corners=False)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2)], dim=1)
