"""The layout of Prithvi-EO 1.0 and 2.0 (ibm-nasa-geospatial): MAE's keys around patches of one frame.

Facts: a patch is (1, p, p) of (frames, Y, X), so its weight has an axis of one for time; positions are computed from the
number of frames, whatever the file holds; version 2 writes `encoder.` and `decoder.` before its keys, version 1 nothing, and
files that went through terratorch `_timm_module.`. The TL models add codes of date and place, each with one learned factor:
where neither is given they add nothing, and ours is never given any.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from core.encoders.vit import ViTSpec
from core.layouts.mae import fresh_nodata, keys_of, released, renamed

_BODY = {"cls_token": "class_token", "blocks.": "blocks.", "norm.": "norm."}
_STEM = ("patch_embed.proj.weight", "patch_embed.proj.bias")


def encoder_keys(spec: ViTSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs; every input reads the one stem."""
    shared = [key for key in keys_of(spec) if not key.startswith("stems.")]
    return released(shared, _BODY) | set(_STEM)


def encoder_weights(state: Mapping[str, Tensor], spec: ViTSpec) -> dict[str, Tensor]:
    """Give the weights of `ViT` for time series and single scenes alike; a scene is a series of one frame."""
    weights = renamed(state, _BODY)
    weight, bias = (state[key] for key in _STEM)
    for entry in spec.contract.inputs:
        stem = f"stems.{entry.name}"
        weights |= {f"{stem}.weight": weight if entry.ndim == 3 else weight[:, :, 0], f"{stem}.bias": bias}
    return weights | fresh_nodata(weights, spec.contract.inputs)
