"""Windows over an n-dimensional token grid: cutting, shifting, padding, and attention within them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.encoders._relative import offset_index


@dataclass(frozen=True)
class Windows:
    """How one grid is cut into windows, W of them with M tokens each.

    Attributes:
        tokens: the grid.
        window: tokens of a window along each axis, at most the grid's.
        shift: tokens by which the grid is rolled back before it is cut; 0 where one window spans the axis.
        index: (M, M) number of the offset between two tokens of a window.
        allowed: (1 or B, W, M, M) bool, whether a token attends to another; None = each to all of its window.
    """

    tokens: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]
    index: Tensor
    allowed: Tensor | None

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each axis; the last one may reach beyond the grid."""
        return tuple(-(-t // w) for t, w in zip(self.tokens, self.window, strict=True))


def cut_windows(
    tokens: tuple[int, ...], window: tuple[int, ...], shifted: bool, ok: Tensor | None, device: torch.device
) -> Windows:
    """Lay windows over a grid (Swin, Liu et al. 2021, arXiv 2103.14030, 3.2), shifted by half a window or not.

    Args:
        tokens: the grid.
        window: wanted tokens per axis; one that is larger than the grid spans it, unshifted.
        shifted: roll the grid by half a window.
        ok: (B, N) bool, which tokens may be read; None = all.
        device: of the tokens.
    """
    size = tuple(min(w, t) for w, t in zip(window, tokens, strict=True))
    shift = tuple(w // 2 if shifted and w < t else 0 for w, t in zip(size, tokens, strict=True))
    bare = Windows(tokens, size, shift, offset_index(size, device), None)
    padded = any(t % w for t, w in zip(tokens, size, strict=True))
    if ok is None and not padded and not any(shift):
        return bare
    if ok is None:
        ok = torch.ones(1, math.prod(tokens), dtype=torch.bool, device=device)
    allowed = split(ok[..., None], bare)[..., 0][:, :, None, :]
    if any(shift):
        wrapped = split(_wrapped(bare, device), bare)
        allowed = allowed & (wrapped[:, :, :, None] == wrapped[:, :, None, :]).all(dim=-1)
    # what has nobody to attend to attends to itself: a softmax over nothing is NaN, and nobody reads its result
    allowed = allowed | torch.eye(math.prod(size), dtype=torch.bool, device=device)
    return Windows(tokens, size, shift, bare.index, allowed)


def _wrapped(windows: Windows, device: torch.device) -> Tensor:
    """Mark tokens that rolling brings to the other end of an axis, (1, N, ndim) bool: no neighbours of those there."""
    axes = [torch.arange(t, device=device) < s for t, s in zip(windows.tokens, windows.shift, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)[None]


def split(tokens: Tensor, windows: Windows) -> Tensor:
    """Cut tokens (B, N, D) into windows (B, W, M, D); what reaches beyond the grid holds zeros."""
    batch, width, nd = tokens.shape[0], tokens.shape[2], len(windows.tokens)
    axes = tuple(range(1, 1 + nd))
    grid = tokens.reshape(batch, *windows.tokens, width)
    missing = [c * w - t for c, w, t in zip(windows.counts, windows.window, windows.tokens, strict=True)]
    if any(missing):
        grid = functional.pad(grid, [0, 0, *(pad for m in reversed(missing) for pad in (0, m))])
    if any(windows.shift):
        grid = grid.roll([-s for s in windows.shift], axes)
    apart = grid.reshape(batch, *(n for pair in zip(windows.counts, windows.window, strict=True) for n in pair), width)
    order = [0, *range(1, 1 + 2 * nd, 2), *range(2, 2 + 2 * nd, 2), 1 + 2 * nd]  # B, windows..., within..., D
    return apart.permute(order).reshape(batch, math.prod(windows.counts), math.prod(windows.window), width)


def join(pieces: Tensor, windows: Windows) -> Tensor:
    """Put windows (B, W, M, D) back on the grid (B, N, D); the inverse of `split`."""
    batch, width, nd = pieces.shape[0], pieces.shape[3], len(windows.tokens)
    apart = pieces.reshape(batch, *windows.counts, *windows.window, width)
    order = [0, *(axis for i in range(nd) for axis in (1 + i, 1 + nd + i)), 1 + 2 * nd]  # B, (window, within)..., D
    full = tuple(c * w for c, w in zip(windows.counts, windows.window, strict=True))
    grid = apart.permute(order).reshape(batch, *full, width)
    if any(windows.shift):
        grid = grid.roll(windows.shift, tuple(range(1, 1 + nd)))
    if full != windows.tokens:
        grid = grid[(slice(None), *(slice(0, t) for t in windows.tokens))]
    return grid.reshape(batch, -1, width)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, allowed: Tensor | None) -> Tensor:
    """Attend within windows, to (B, W, M, heads * d); query and key come scaled.

    Args:
        query: (B, W, M, heads, d), as key and value.
        key: what is asked.
        value: what is mixed.
        bias: (1 or B, heads, M, M), added to the products.
        allowed: (1 or B, W, M, M) bool.
    """
    batch, count, length, heads, _ = query.shape
    mask = bias[:, None]
    if allowed is not None:
        mask = torch.where(allowed[:, :, None], mask, -torch.inf)
    # windows and heads share an axis, so that a mask that all samples share is never copied for each
    mask = mask.expand(-1, count, -1, -1, -1).flatten(1, 2).to(query.dtype)
    query, key, value = (part.transpose(2, 3).reshape(batch, count * heads, length, -1) for part in (query, key, value))
    mixed: Tensor = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    apart: Tensor = mixed.unflatten(1, (count, heads))
    return apart.transpose(2, 3).flatten(3)
