"""The layout of facebookresearch/mae and its many descendants (RETFound, FG-MAE, UrFound, MRM, ...).

Facts: the class row of the position table is stored first; the decoder predicts patches channel-last, (py, px, c).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from core.contract import Input
from core.encoders.base import EncoderSpec

VIT_KEYS = {
    "cls_token": "class_token",
    "pos_embed": "tables.{name}",
    "patch_embed.proj.": "stems.{name}.",
    "blocks.": "blocks.",
    "norm.": "norm.",
}
"""Of a plain ViT, as timm writes it and all descendants of its code do."""
ENCODER_KEYS = VIT_KEYS | {"fc_norm.": "norm."}  # fine-tuned with global pooling: the norm after the mean
PREDICTOR_KEYS = {
    "decoder_embed.": "embed.",
    "mask_token": "mask_token",
    "decoder_pos_embed": "tables.{name}",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "heads.{name}.0.",
}


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str], **parts: str) -> dict[str, Tensor]:
    """Take the keys that a table of prefixes knows and give them their new names; longest prefix first."""
    result = {}
    for key, value in state.items():
        for prefix in sorted(names, key=len, reverse=True):
            if key == prefix or (prefix.endswith(".") and key.startswith(prefix)):
                result[names[prefix].format(**parts) + key[len(prefix) :]] = value
                break
    return result


def released(ours: Iterable[str], names: Mapping[str, str], **parts: str) -> set[str]:
    """Give back the released names of our keys by the table that renames them; where two lead to one, the first of them.

    What no entry leads to, such as our vector for missing data, has none.
    """
    homes: dict[str, str] = {}
    for theirs, home in names.items():
        homes.setdefault(home.format(**parts), theirs)
    found = set()
    for key in ours:
        for home in sorted(homes, key=len, reverse=True):
            if key == home or (home.endswith(".") and key.startswith(home)):
                found.add(homes[home] + key[len(home) :])
                break
    return found


def keys_of(spec: EncoderSpec) -> set[str]:
    """List our keys of an encoder that weights fill, without making it: all but the vectors for missing data."""
    with torch.device("meta"):
        return {key for key in spec.build().state_dict() if not key.endswith(".nodata")}


def encoder_keys(spec: EncoderSpec, have: Collection[str]) -> set[str]:
    """List the released names of an encoder of one input; where `have` holds `fc_norm` for `norm`, so does the list."""
    return norm_as_in(have, released(keys_of(spec), ENCODER_KEYS, name=spec.contract.inputs[0].name))


def norm_as_in(have: Collection[str], keys: set[str]) -> set[str]:
    """Write the last norm among released keys as a file does, that has `fc_norm` in its place."""
    if any(key.startswith("fc_norm.") for key in have) and not any(key.startswith("norm.") for key in have):
        return {f"fc_{key}" if key.startswith("norm.") else key for key in keys}
    return keys


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input and a stored table; our nodata vector starts at zero."""
    weights = renamed(state, ENCODER_KEYS, name=entry.name)
    return weights | fresh_nodata(weights, [entry])


def predictor_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `TransformerPredictor` with one output layer, rows reordered band-major."""
    weights = renamed(state, PREDICTOR_KEYS, name=entry.name)
    for part in ("weight", "bias"):
        key = f"heads.{entry.name}.0.{part}"
        weights[key] = band_major(weights[key], entry)
    return weights


def band_major(rows: Tensor, entry: Input) -> Tensor:
    """Reorder the first axis from (*patch, c) to (c, *patch)."""
    apart = rows.reshape(*entry.patch, len(entry.bands), *rows.shape[1:])
    return apart.movedim(entry.ndim, 0).reshape(rows.shape)


def fresh_nodata(weights: Mapping[str, Tensor], entries: Iterable[Input]) -> dict[str, Tensor]:
    """Give what foreign encoders lack: a zero vector for missing data, per input."""
    return {f"stems.{e.name}.nodata": torch.zeros_like(weights[f"stems.{e.name}.bias"]) for e in entries}
