"""The layout of OpenCLIP's image towers (mlfoundations/open_clip), as RemoteCLIP and OpenAI's own CLIP are distributed.

Facts: the image tower lies below `visual.`, the text tower beside it; class embedding and position table have no batch axis,
the class row comes first; the stem has no bias; query, key and value are one matrix, as ours. Nothing in a file says which
activation it was trained with: those that began from OpenAI's weights need `quick_gelu`, and the other one loads too.

The projection onto the joint space of images and texts, `proj`, is no part of the encoder: linear probes read what comes
before it (Radford et al. 2021, arXiv 2103.00020, A.3). `joint_projection` gives it to those who compare with texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from core.encoders.vit import ViTSpec
from core.layouts.mae import fresh_nodata, renamed

_BLOCK = {
    "ln_1.": "norm1.",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.": "attn.proj.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_ENCODER = {
    "visual.class_embedding": "class_token",
    "visual.positional_embedding": "tables.{name}",
    "visual.conv1.weight": "stems.{name}.weight",
    "visual.ln_pre.": "stem.norm.",
    "visual.ln_post.": "norm.",
}


def encoder_keys(spec: ViTSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs; `visual.` tells them from the text tower's."""
    names = _names(spec.depth)
    whole = {name for name in names if not name.endswith(".")}
    return whole | {name + part for name in names.keys() - whole for part in ("weight", "bias")}


def encoder_weights(state: Mapping[str, Tensor], spec: ViTSpec) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input, a stored table and a norm before the blocks; our stem's bias is zero."""
    (entry,) = spec.contract.inputs
    weights = renamed(state, _names(spec.depth), name=entry.name)
    stem, table = f"stems.{entry.name}", f"tables.{entry.name}"
    weights["class_token"] = weights["class_token"][None, None]
    weights[table] = weights[table][None]
    weights[f"{stem}.bias"] = torch.zeros_like(weights[f"{stem}.weight"][:, 0, 0, 0])
    return weights | fresh_nodata(weights, [entry])


def joint_projection(state: Mapping[str, Tensor]) -> Tensor:
    """Give the matrix (D, E) that takes features of the class token to the joint space: `features @ matrix`."""
    return state["visual.proj"]


def _names(depth: int) -> dict[str, str]:
    blocks = {
        f"visual.transformer.resblocks.{number}.{theirs}": f"blocks.{number}.{ours}"
        for number in range(depth)
        for theirs, ours in _BLOCK.items()
    }
    return _ENCODER | blocks
