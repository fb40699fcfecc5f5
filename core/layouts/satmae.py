"""The layout of SatMAE's models (sustainlab-group/SatMAE): band groups, pretrained and fine-tuned, and series of dated frames.

Facts: a token's position and its group's code stand side by side in the channels, which is what a table per group adds;
the class token of a pretrained encoder has no position, that of a fine-tuned one has; the decoder's class token has a code
of its own, the last; the decoder's outputs are band-major. Ours pads every group's outputs to those of the largest.
Frames of a series share one embedding and one table, which when pretrained is the plane's sines and cosines, as we compute
them, and a zero for the class token; the channels beside it hold each frame's time. Decoder's outputs are band-last there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from core.contract import Input
from core.encoders.vit import ViTSpec
from core.errors import CheckpointError
from core.layouts.mae import band_major, fresh_nodata, keys_of, released, renamed
from core.pos_embed import grid_positions
from core.shapes import Grid

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
_STEM = ("patch_embed.proj.weight", "patch_embed.proj.bias")  # of series


def encoder_keys(spec: ViTSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs; the class token's code is only in fine-tuned files.

    Without band groups it reads a series of frames.
    """
    (entry,) = spec.contract.inputs
    last = "fc_norm." if "fc_norm.weight" in have else "norm."
    shared = [key for key in keys_of(spec) if not key.startswith(("stems.", "tables."))]
    needed = released(shared, {"cls_token": "class_token", "blocks.": "blocks.", last: "norm."})
    if not entry.groups:
        return needed | set(_STEM) | {"pos_embed"}
    needed |= {f"patch_embed.{n}.proj.{part}" for n in range(len(entry.groups)) for part in ("weight", "bias")}
    return needed | {"pos_embed", "channel_embed"} | ({"channel_cls_embed"} & set(have))


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input of as many groups and a stored table; what ours adds starts at zero.

    An input without groups is a series of frames, whose positions are computed.

    Raises:
        CheckpointError: the positions of a series are others than those that are computed.
    """
    if not entry.groups:
        _check_computed(state["pos_embed"], entry)
        weights = renamed(state, _ENCODER | {"patch_embed.proj.": "stems.{name}."}, name=entry.name)
        weights[f"stems.{entry.name}.weight"] = state[_STEM[0]].unsqueeze(2)  # a patch of one frame
        return weights | fresh_nodata(weights, [entry])
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
    """Give the weights of `TransformerPredictor`, with a stored table where there are band groups."""
    if not entry.groups:
        weights = renamed(state, _PREDICTOR | {"decoder_pred.": "heads.{name}.0."}, name=entry.name)
        heads = {key: band_major(rows, entry) for key, rows in weights.items() if key.startswith("heads.")}
        return weights | heads
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


def _check_computed(table: Tensor, entry: Input) -> None:
    """Refuse positions of a frame (1, 1 + places, D1) that fine-tuning has changed."""
    if table.is_meta:
        return
    frame = Grid.of(entry.size[1:], entry.patch[1:])
    places = grid_positions(frame, table.shape[2])
    expected = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1)
    precision = max(1e-5, torch.finfo(table.dtype).eps)
    if table.shape != expected.shape or not torch.allclose(table.float(), expected, rtol=0.0, atol=precision):
        raise CheckpointError(
            f"pos_embed: expected the sines and cosines of {frame.tokens} patches, which ours computes, got a table "
            f"{tuple(table.shape)} of other numbers: this encoder reads pretrained files, not fine-tuned ones."
        )


def _table(first: Tensor, positions: Tensor, codes: Tensor) -> Tensor:
    """Lay out one table for all groups (1, 1 + G N, D) from positions (1, N, D1) and codes (1, G, D2)."""
    places, groups = positions.shape[1], codes.shape[1]
    side_by_side = [positions.repeat(1, groups, 1), codes.repeat_interleave(places, dim=1)]
    return torch.cat([first, torch.cat(side_by_side, dim=2)], dim=1)
