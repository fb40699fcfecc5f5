"""Attention by where two tokens lie to each other: offsets on an n-dimensional grid, and tables of biases over them.

An offset is counted in tokens at the nominal spacing of the input, so that one table serves several spacings. A rank is
the number of axes of a table; an input of lower rank lies at offset 0 of the axes that it lacks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch
from core.contract import Input


def offset_index(tokens: tuple[int, ...], device: torch.device) -> Tensor:
    """Number the offset from every token to every other, query minus key, (N, N) in the raster of 2 t - 1 per axis."""
    axes = [torch.arange(t, device=device) for t in tokens]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    index = torch.zeros(len(place), len(place), dtype=torch.int64, device=device)
    for axis, count in enumerate(tokens):
        index = index * (2 * count - 1) + (place[:, None, axis] - place[None, :, axis] + count - 1)
    return index


def axis_offsets(tokens: tuple[int, ...], scale: Tensor) -> tuple[Tensor, ...]:
    """Give the offsets that occur along each axis, in tokens at nominal spacing: per axis (1 or B, 2 t - 1)."""
    return tuple(
        torch.arange(1 - t, t, device=scale.device, dtype=torch.float32) * scale[:, axis, None]
        for axis, t in enumerate(tokens)
    )


def relative_spacing(batch: Batch, entry: Input) -> Tensor:
    """Divide each sample's spacing by the nominal one, (B, ndim); (1, ndim) where all samples agree."""
    scale = batch.spacing / torch.tensor(entry.spacing, device=batch.spacing.device)
    return scale[:1] if bool((scale == scale[:1]).all()) else scale


def coordinates(offsets: tuple[Tensor, ...]) -> Tensor:
    """Combine offsets per axis (b, o_a) into all offsets of the raster, (b, o_1 * o_2 * ..., ndim)."""
    counts = [offset.shape[1] for offset in offsets]
    parts = []
    for axis, offset in enumerate(offsets):
        shape = [len(offset), *(1 for _ in counts)]
        shape[1 + axis] = counts[axis]
        parts.append(offset.reshape(shape).expand(len(offset), *counts))
    return torch.stack(parts, dim=-1).flatten(1, -2)


def between(offsets: tuple[Tensor, ...], extent: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Say how to read a table of `extent` at real offsets: per axis the shares (b, o, 2 e - 1) of its two neighbours.

    An offset beyond the table is read at its edge.
    """
    shares = []
    for offset, reach in zip(offsets, extent, strict=True):
        entries = torch.arange(1 - reach, reach, device=offset.device, dtype=offset.dtype)
        inside = offset.clamp(min=1 - reach, max=reach - 1)
        shares.append((1.0 - (inside[..., None] - entries).abs()).clamp(min=0.0))
    return tuple(shares)


def read_table(table: Tensor, extent: tuple[int, ...], shares: tuple[Tensor, ...]) -> Tensor:
    """Read a table of biases (entries, heads) at the offsets that `between` describes, (b, offsets, heads)."""
    heads = table.shape[1]
    view = table.reshape(*(2 * e - 1 for e in extent), heads)
    for reach in extent[: len(extent) - len(shares)]:
        view = view[reach - 1]
    read = view[None]
    for axis, share in enumerate(shares, start=1):
        front = read.movedim(axis, 1)
        mixed = share @ front.flatten(2)
        read = mixed.reshape(*mixed.shape[:2], *front.shape[2:]).movedim(1, axis)
    return read.flatten(1, -2)


def pair_bias(biases: Tensor, index: Tensor) -> Tensor:
    """Give every pair of tokens the bias (b, offsets, heads) of its offset: (b, heads, N, N).

    Args:
        biases: of every offset; b = 1 serves every sample.
        index: (N, N), or (B, N, N) where samples have tokens of their own.
    """
    if index.ndim == 2:
        pairs: Tensor = biases[:, index.flatten()].unflatten(1, index.shape)
        return pairs.permute(0, 3, 1, 2)
    sample = torch.arange(len(index), device=index.device) % len(biases)
    return biases[sample[:, None, None], index].permute(0, 3, 1, 2)


def entries(extent: tuple[int, ...]) -> int:
    """Count the offsets that occur within an extent."""
    return math.prod(2 * reach - 1 for reach in extent)


def qkv_without_key_bias(tokens: Tensor, weight: Tensor, query_bias: Tensor, value_bias: Tensor) -> Tensor:
    """Project tokens (..., D) to query, key and value (..., 3 D); a bias of the key would cancel in the softmax."""
    bias = torch.cat([query_bias, torch.zeros_like(query_bias), value_bias])
    return functional.linear(tokens, weight, bias)


def init_truncated(module: nn.Module) -> None:
    """Initialise a linear layer with truncated normal weights of deviation 0.02 and zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
