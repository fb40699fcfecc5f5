"""The layout of iBOT's vision transformers (bytedance/ibot), whose AttMask uses the same.

Facts: the mask token is `masked_embed` (1, D) and enters before the positions; the position table is learned, its class row
first; for another image size the release resamples it by a scale factor of (wanted + 0.1) / stored, which gives other
numbers than resampling to a size. Published files hold a backbone per branch, under `student` and `teacher`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from core.contract import Input
from core.layouts.mae import VIT_KEYS, fresh_nodata, renamed


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input and a stored table for the input's own size."""
    weights = renamed(state, VIT_KEYS, name=entry.name)
    table = f"tables.{entry.name}"
    weights[table] = resampled_table(weights[table], entry.grid().tokens)
    return weights | fresh_nodata(weights, [entry])


def mask_token(state: Mapping[str, Tensor]) -> Tensor:
    """Give the mask token (1, 1, D)."""
    return state["masked_embed"][None]


def resampled_table(table: Tensor, want: tuple[int, ...]) -> Tensor:
    """Resample a square 2D table (1, 1 + N, D) as the release does; a table of the wanted size is left alone."""
    edge = round((table.shape[1] - 1) ** 0.5)
    if (edge, edge) == want:
        return table
    image = table[:, 1:].reshape(1, edge, edge, -1).movedim(-1, 1)
    factors = tuple((count + 0.1) / edge for count in want)
    image = functional.interpolate(image, scale_factor=factors, mode="bicubic")
    return torch.cat([table[:, :1], image.flatten(2).transpose(1, 2)], dim=1)
