"""The layout of CLIP's ResNet image towers (openai/CLIP, mlfoundations/open_clip), as RemoteCLIP's RN50 is distributed.

Facts: blocks are counted within their stage, `layer<stage>.<number>`, stages from 1; where a block changes the width, its
shortcut is `downsample.0`, a convolution, and `downsample.1`, its norm; norms keep running statistics and a count of batches,
which nothing reads; the pooling's query, key and value are three matrices, ours is one. Its last matrix, `c_proj`, leads to
the joint space of images and texts and is left out, as `proj` of the ViT towers is (`core.layouts.open_clip`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from core.encoders.resnet import ResNetSpec

_NORM = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
_POOLS = ("q_proj", "k_proj", "v_proj")


def encoder_keys(spec: ResNetSpec, have: Collection[str]) -> set[str]:
    """Name the released keys that an encoder of this spec needs; `visual.` tells them from the text tower's."""
    pools = {f"visual.attnpool.{name}.{part}" for name in _POOLS for part in ("weight", "bias")}
    return {theirs for theirs, _ in _names(spec)} | pools


def encoder_weights(state: Mapping[str, Tensor], spec: ResNetSpec) -> dict[str, Tensor]:
    """Give the weights of `ResNet` with one input."""
    weights = {ours: state[theirs] for theirs, ours in _names(spec)}
    for part in ("weight", "bias"):
        weights[f"query_key_value.{part}"] = torch.cat([state[f"visual.attnpool.{name}.{part}"] for name in _POOLS])
    return weights


def _names(spec: ResNetSpec) -> Iterator[tuple[str, str]]:
    """Pair every released key that keeps its tensor with ours."""
    (entry,) = spec.contract.inputs
    yield "visual.attnpool.positional_embedding", f"tables.{entry.name}.rows"
    for number, ours in enumerate((f"stems.{entry.name}", "stem.layers.0", "stem.layers.1")):
        yield f"visual.conv{number + 1}.weight", f"{ours}.weight"
        yield from _norm(f"visual.bn{number + 1}", f"stem.norms.{number}")
    block, have = 0, spec.width
    for stage, depth in enumerate(spec.depths):
        for number in range(depth):
            theirs, ours, wide = f"visual.layer{stage + 1}.{number}", f"blocks.{block}", spec.stage_width(stage)
            for layer in range(3):
                yield f"{theirs}.conv{layer + 1}.weight", f"{ours}.layers.{layer}.weight"
                yield from _norm(f"{theirs}.bn{layer + 1}", f"{ours}.norms.{layer}")
            if have != wide:
                yield f"{theirs}.downsample.0.weight", f"{ours}.short.weight"
                yield from _norm(f"{theirs}.downsample.1", f"{ours}.short_norm")
            block, have = block + 1, wide


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for name, part in _NORM.items():
        yield f"{theirs}.{name}", f"{ours}.{part}"
