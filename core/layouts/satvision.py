"""The layout of SatVision-TOA (nasa-nccs-hpda/pytorch-caney): SimMIM's with Swin V2, and the sizes that were released.

Facts: DeepSpeed stores bfloat16 weights below `module`, decoder included; a later Lightning run puts `model.` before each
key; "patch8" in the released names is the masked cell, the patch of the embedding is 4. The released encoder has norms
after every sixth block of a stage, which the authors' own fine-tuning leaves out without a word: here that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from core.contract import Contract
from core.encoders.swinv2 import SwinV2Spec
from core.layouts import simmim

Size = Literal["giant", "huge"]


def satvision_spec(size: Size, contract: Contract) -> SwinV2Spec:
    """Describe a released encoder: `giant`, 2.6 billion parameters, or `huge`, 0.65 billion."""
    width, third_stage, heads = {"giant": (512, 42, (16, 32, 64, 128)), "huge": (352, 18, (4, 8, 16, 32))}[size]
    return SwinV2Spec(
        contract=contract,
        width=width,
        depths=(2, 2, third_stage, 2),
        heads=heads,
        window=(8, 8),
        drop_path=0.1,
        extra_norm_period=6,
    )


def recipe_weights(file: Mapping[str, Any], spec: SwinV2Spec) -> dict[str, Tensor]:
    """Give the weights of the recipe `simmim` from a pretraining checkpoint as it was saved."""
    return simmim.recipe_weights(simmim.unwrapped(file), spec)


def encoder_weights(file: Mapping[str, Any], spec: SwinV2Spec) -> dict[str, Tensor]:
    """Give the weights of the encoder, from a checkpoint of pretraining or of the encoder alone.

    Decoder and mask token are what pretraining alone needs; every other key must find its place.
    """
    state = simmim.unwrapped(file)
    if any(key.startswith("encoder.") for key in state):
        unneeded = ("decoder.0.weight", "decoder.0.bias", "encoder.mask_token")
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key not in unneeded}
    return simmim.encoder_weights(state, spec)
