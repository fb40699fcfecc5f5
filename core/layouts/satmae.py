"""The layout of SatMAE's group-channel models (sustainlab-group/SatMAE), pretrained and fine-tuned.

Facts: a token's position and its group's code stand side by side in the channels, which is what a table per group adds;
the class token of a pretrained encoder has no position, that of a fine-tuned one has; the decoder's class token has a code
of its own, the last; the decoder's outputs are band-major. Ours pads every group's outputs to those of the largest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from core.contract import Input
from core.encoders.vit import ViTSpec
from core.layouts.mae import keys_of, released, renamed

_ENCODER = {
    "cls_token": "class_token",
    "blocks.": "blocks.",
    "norm.": "norm.",
    "fc_norm.": "norm.",  # fine-tuned with global pooling: the norm after the mean
}
_PREDICTOR = {
    "decoder_embed.": "embed.",
    "mask_token": "mask_token",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "heads.{name}.",
}


def encoder_keys(spec: ViTSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs; the class token's code is only in fine-tuned files."""
    (entry,) = spec.contract.inputs
    last = "fc_norm." if "fc_norm.weight" in have else "norm."
    shared = [key for key in keys_of(spec) if not key.startswith(("stems.", "tables."))]
    needed = released(shared, {"cls_token": "class_token", "blocks.": "blocks.", last: "norm."})
    needed |= {f"patch_embed.{n}.proj.{part}" for n in range(len(entry.groups)) for part in ("weight", "bias")}
    return needed | {"pos_embed", "channel_embed"} | ({"channel_cls_embed"} & set(have))


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input of as many groups and a stored table; what ours adds starts at zero."""
    numbers = range(len(entry.groups))
    stems = {f"patch_embed.{number}.proj.": f"stems.{{name}}.embeddings.{number}." for number in numbers}
    weights = renamed(state, _ENCODER | stems, name=entry.name)
    first = torch.zeros_like(state["cls_token"])
    if "channel_cls_embed" in state:
        first = torch.cat([state["pos_embed"][:, :1], state["channel_cls_embed"]], dim=2)
    weights[f"tables.{entry.name}"] = _table(first, state["pos_embed"][:, 1:], state["channel_embed"])
    weights[f"stems.{entry.name}.group"] = first.new_zeros(len(entry.groups), first.shape[2])
    for number in numbers:
        weights[f"stems.{entry.name}.embeddings.{number}.nodata"] = first.new_zeros(first.shape[2])
    return weights


def predictor_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `TransformerPredictor` with a stored table."""
    weights = renamed(state, _PREDICTOR, name=entry.name)
    rows = max(len(group) for group in entry.groups) * entry.grid().voxels
    for key in [key for key in weights if key.startswith("heads.")]:
        missing = rows - len(weights[key])
        weights[key] = functional.pad(weights[key], (*(0, 0) * (weights[key].ndim - 1), 0, missing))
    positions, codes = state["decoder_pos_embed"], state["decoder_channel_embed"]
    first = torch.cat([positions[:, :1], codes[:, -1:]], dim=2)
    weights[f"tables.{entry.name}"] = _table(first, positions[:, 1:], codes[:, :-1])
    weights[f"groups.{entry.name}"] = first.new_zeros(len(entry.groups), first.shape[2])
    return weights


def _table(first: Tensor, positions: Tensor, codes: Tensor) -> Tensor:
    """Lay out one table for all groups (1, 1 + G N, D) from positions (1, N, D1) and codes (1, G, D2)."""
    places, groups = positions.shape[1], codes.shape[1]
    side_by_side = [positions.repeat(1, groups, 1), codes.repeat_interleave(places, dim=1)]
    return torch.cat([first, torch.cat(side_by_side, dim=2)], dim=1)
