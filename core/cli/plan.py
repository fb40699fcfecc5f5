"""What a run would cost, from its config alone: parameters, tokens, operations, memory, length. Nothing is trained.

Operations follow the usual count (a multiply-add is 2, a training step is 3 forward passes): every linear layer 2 x
weights x tokens, every attention 4 n^2 d. Activations follow Korthikanti et al. 2022 (arXiv 2205.05198), equation 2
without the attention matrix, which fused attention never stores: 34 n d bytes per block in 16 bit. Both are rough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from core.contract import Input
from core.engine.config import Pretrain, Stream, run_id
from core.recipes.base import Recipe
from core.shapes import Grid

_STATE_BYTES = 16  # float32 weight, gradient and two moments
_ACTIVATION_BYTES = 34


@dataclass(frozen=True)
class Cost:
    """Cost of one sample of a stream.

    Attributes:
        tokens: of the whole image.
        seen: by the encoder, where it may drop hidden tokens.
        forward: operations.
        activations: bytes kept for the backward pass, in 16 bit.
    """

    tokens: int
    seen: int
    forward: float
    activations: float


def sketch(config: Pretrain) -> Recipe:
    """Build the recipe without memory for its weights."""
    with torch.device("meta"):
        return config.recipe.build()


def cost(recipe: Recipe, config: Pretrain, entry: Input) -> Cost:
    """Count one sample; layers that belong to another input are left out."""
    tokens = Grid.of(entry.size, entry.patch).num_tokens
    ratio = getattr(getattr(config.recipe, "masker", None), "ratio", 0.0)
    drops = "drop" in type(recipe.encoder).abilities
    seen = tokens - round(ratio * tokens) if drops else tokens
    others = {other.name for other in recipe.encoder.contract.inputs} - {entry.name}
    forward = activations = 0.0
    for name, module in recipe.named_modules():
        if others & set(name.split(".")):
            continue
        length = 1 + (seen if name.startswith("encoder.") else tokens)
        if isinstance(module, nn.Linear):
            forward += 2.0 * module.weight.numel() * length
        elif isinstance(getattr(module, "qkv", None), nn.Linear):
            width = module.get_submodule("qkv").get_parameter("weight").shape[1]
            forward += 4.0 * length * length * width
            activations += _ACTIVATION_BYTES * length * width
    return Cost(tokens, seen, forward, activations)


def plan_text(config: Pretrain, images: Mapping[str, int]) -> str:
    """Lay the plan out as text.

    Args:
        config: the run.
        images: training images per stream, where known; gives epochs.
    """
    recipe = sketch(config)
    encoder, everything = (sum(p.numel() for p in m.parameters()) for m in (recipe.encoder, recipe))
    lines = [
        f"encoder      {encoder / 1e6:.2f} M parameters",
        f"everything   {everything / 1e6:.2f} M parameters, {_bytes(_STATE_BYTES * everything)} with gradient and optimiser",
    ]
    streams = config.data.streams
    turns = sum(stream.turns for stream in streams)
    for stream in streams:
        steps = config.steps * stream.turns // turns
        lines += _stream_lines(stream, cost(recipe, config, _entry(recipe, stream)), steps, config, images)
    lines.append(f"run          {config.steps} steps, run id {run_id(config)}")
    return "\n".join(lines)


def _stream_lines(stream: Stream, one: Cost, steps: int, config: Pretrain, images: Mapping[str, int]) -> list[str]:
    samples = steps * stream.batch_size
    at_once = stream.batch_size // config.optim.accumulate
    epochs = f", {samples / images[stream.input]:.1f} epochs" if images.get(stream.input) else ""
    return [
        f"{stream.input:<12} {one.tokens} tokens per sample, {one.seen} seen by the encoder ({one.seen / one.tokens:.0%})",
        f"             {one.forward / 1e9:.3g} GFLOP forward per sample, "
        f"{3 * one.forward * stream.batch_size / 1e12:.3g} TFLOP per step of {stream.batch_size}",
        f"             about {_bytes(one.activations * at_once)} of activations in bf16, twice that in fp32 (one process)",
        f"             about {steps} steps, {samples} samples{epochs}",
    ]


def _entry(recipe: Recipe, stream: Stream) -> Input:
    return next(entry for entry in recipe.encoder.contract.inputs if entry.name == stream.input)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
