"""The layout of DINOv2 (facebookresearch/dinov2), as RETFound's DINOv2 models are distributed.

Facts: a training file holds the averaged model under `teacher`, its backbone below `backbone.` beside the heads; blocks
trained under FSDP lie in chunks, `blocks.<chunk>.<number>.`; each branch has a factor, `ls1.gamma`; the position table is
learned and its class row first; the gated MLP of the giant is `mlp.w12` and `mlp.w3`; the mask token is what pretraining
alone needs. A table of another grid is resampled as RETFound's fine-tuning does: bicubic, without antialiasing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from core.contract import Input
from core.encoders.vit import ViTSpec
from core.layouts.mae import VIT_KEYS, fresh_nodata, keys_of, released, renamed
from core.pos_embed import resample_table

_GATED = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")


def encoder_keys(spec: ViTSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs, chunked and gated as the file's are."""
    (entry,) = spec.contract.inputs
    plain = {_plain(key): key for key in have}
    return {plain.get(key, key) for key in released(keys_of(spec), VIT_KEYS, name=entry.name)}


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input, factors on its branches and a stored table for the input's own size."""
    weights = renamed({_plain(key): value for key, value in state.items()}, VIT_KEYS, name=entry.name)
    table = f"tables.{entry.name}"
    edge = round((weights[table].shape[1] - 1) ** 0.5)
    weights[table] = resample_table(weights[table], (edge, edge), entry.grid().tokens)
    return weights | fresh_nodata(weights, [entry])


def _plain(key: str) -> str:
    """Write a key as the unchunked, ungated layout does."""
    key = _CHUNK.sub("blocks.", key)
    for theirs, ours in _GATED.items():
        key = key.replace(theirs, ours)
    return key
