"""What a run would cost, from its config alone: parameters, tokens, operations, memory, length. Nothing is trained.

Operations follow the usual count (a multiply-add is 2, a training step is 3 forward passes): every linear layer 2 x
weights x tokens, every attention 4 n k d, of k keys. Activations follow Korthikanti et al. 2022 (arXiv 2205.05198),
equation 2 without the attention matrix, which fused attention never stores: 34 n d bytes per block in 16 bit. Both are
rough; what is left out is said. What many cards make of a run is `core.cli.gpus`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from core.cli.gpus import check_shares, gpu_lines, show_bytes
from core.contract import Input
from core.encoders.base import Backbone
from core.engine.config import Pretrain, Stream, run_id
from core.recipes.base import Recipe, RecipeSpec
from core.registry import name_of

_STATE_BYTES = 16  # float32 weight, gradient and two moments
_WEIGHT_BYTES = 4  # of a teacher's
_ACTIVATION_BYTES = 34
_COSINE_BYTES = 14  # queries and keys normalised in float32, and what the cast back to 16 bit makes of them
_INPUT_BYTES = 4  # of a block: tokens travel in float32 between blocks, under autocast too
_PIECES = 30_000  # of a vocabulary that the run will make for itself: at most


@dataclass(frozen=True)
class Cost:
    """Cost of one sample of a stream.

    Attributes:
        tokens: of the whole image.
        seen: by the encoder, where it may drop hidden tokens.
        forward: operations.
        activations: bytes kept for the backward pass, in 16 bit.
        recomputed: the same where blocks run again (`how.checkpoint_activations`): their inputs, and the largest block.
    """

    tokens: int
    seen: int
    forward: float
    activations: float
    recomputed: float


@dataclass(frozen=True)
class _Kept:
    """What a block keeps of a sample: bytes of activations, and numbers in its input."""

    activations: float
    values: float


def sketch(config: Pretrain) -> Recipe:
    """Build the recipe without memory for its weights; with it where a part reads a stored network or tries itself out.

    Raises:
        HalfseenError: what building it refuses.
    """
    with TemporaryDirectory() as folder:
        recipe = _with_vocabulary(config.recipe, Path(folder) / "tokenizer.json")
        try:
            with torch.device("meta"):
                return recipe.build()
        except RuntimeError:  # what has no memory cannot be read
            return recipe.build()


def _with_vocabulary(recipe: RecipeSpec, file: Path) -> RecipeSpec:
    """Stand in for the vocabulary that the run will make from its reports: as large as it may become."""
    known: Any = recipe
    if not hasattr(recipe, "text") or known.text.tokenizer:
        return recipe
    names = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", *(str(number) for number in range(4, _PIECES))]
    special = [{"id": number, "content": name, "special": True} for number, name in enumerate(names[:4])]
    model = {"continuing_subword_prefix": "##", "vocab": {name: number for number, name in enumerate(names)}}
    file.write_text(json.dumps({"model": model, "added_tokens": special}), encoding="utf-8")
    changed: RecipeSpec = replace(known, text=replace(known.text, tokenizer=str(file)))
    return changed


def cost(recipe: Recipe, config: Pretrain, entry: Input) -> Cost:
    """Count one sample; layers that belong to another input are left out, and those of a teacher run forward only."""
    tokens = entry.grid().num_tokens
    ratio = getattr(getattr(config.recipe, "masker", None), "ratio", 0.0)
    drops = "drop" in config.recipe.needs
    seen = tokens - round(ratio * tokens) if drops else tokens
    others = {other.name for other in recipe.encoder.contract.inputs} - {entry.name}
    looks = 2 if hasattr(config.recipe, "views") else 1
    forward, kept = 0.0, [_Kept(0.0, 0.0)]
    for name, module in recipe.named_modules():
        pieces = name.split(".")
        if others & set(pieces) or f"{5 - entry.ndim}d" in pieces or pieces[-2:] == ["reductions", str(5 - entry.ndim)]:
            continue
        learns = pieces[0] != "teacher"
        share = looks * (1.0 if learns else 1 / 3)  # of a step's forward and backward pass
        places = _places(recipe, pieces, entry, config)
        length = 1 + (round(places * seen / tokens) if pieces[0] == "encoder" else places)
        if isinstance(module, nn.Linear):
            forward += 2.0 * share * module.weight.numel() * length
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            forward += 2.0 * share * module.weight.numel() * places
        elif isinstance(getattr(module, "qkv", None), nn.Linear):
            width = module.get_submodule("qkv").get_parameter("weight").shape[1]
            forward += 4.0 * share * length * min(length, _window(recipe, pieces, entry)) * width
            cosine = _COSINE_BYTES * hasattr(module, "logit_scale")
            values = looks * learns * length * width
            kept.append(_Kept((_ACTIVATION_BYTES + cosine) * values, values))
        elif isinstance(getattr(module, "widen", None), nn.Linear):  # a convolutional block
            values = looks * learns * length * module.get_submodule("widen").in_features
            kept.append(_Kept(_ACTIVATION_BYTES * values, values))
    activations = sum(block.activations for block in kept)
    recomputed = _INPUT_BYTES * sum(block.values for block in kept) + max(block.activations for block in kept)
    return Cost(tokens, seen, forward, activations, recomputed)


def _encoder_of(recipe: Recipe, pieces: list[str]) -> Backbone | None:
    """Give the encoder that a module lies in: the recipe's own, or its teacher's."""
    if pieces[0] == "encoder":
        return recipe.encoder
    inside = pieces[:2] == ["teacher", "encoder"]
    return recipe.get_submodule("teacher.encoder") if inside else None  # type: ignore[return-value]


def _places(recipe: Recipe, pieces: list[str], entry: Input, config: Pretrain) -> int:
    """Count the tokens that pass a module: fewer in the late stages of an encoder that merges them, pieces in a text."""
    if pieces[0] == "text":
        return int(config.recipe.text.length)  # type: ignore[attr-defined]
    owner = _encoder_of(recipe, pieces)
    encoder = owner or recipe.encoder  # what comes after it gets the tokens that leave it
    level = encoder.num_levels
    if owner is None:
        return encoder.level_grid(level, entry.grid()).num_tokens
    block = next(((a, int(b)) for a, b in pairwise(pieces) if a in ("blocks", "merges") and b.isdigit()), None)
    if block is not None:
        ends = list(accumulate(getattr(encoder.spec, "depths", (1,) * encoder.num_levels)))
        level = next(stage for stage, end in enumerate(ends, start=1) if block[1] < end) + (block[0] == "merges")
    elif "stems" in pieces:
        level = 0
    return 0 if "pos_mlp" in pieces else encoder.level_grid(level, entry.grid()).num_tokens


def _window(recipe: Recipe, pieces: list[str], entry: Input) -> float:
    """Count the keys that a token may attend to, where an encoder has windows."""
    window = getattr(getattr(_encoder_of(recipe, pieces), "spec", None), "window", ())
    return math.prod(window[-entry.ndim :]) if window else math.inf


def plan_text(config: Pretrain, images: Mapping[str, int], *, num_gpus: int | None = None) -> str:
    """Lay the plan out as text.

    Args:
        config: the run.
        images: training images per stream, where known; gives epochs.
        num_gpus: cards to tell memory, rate and days for; none = leave that out.

    Raises:
        ConfigError: so many cards cannot share the batches.
    """
    if num_gpus is not None:
        check_shares(config, num_gpus)
    recipe = sketch(config)
    encoder, everything = (sum(p.numel() for p in m.parameters()) for m in (recipe.encoder, recipe))
    learnt = sum(p.numel() for p in recipe.parameters() if p.requires_grad)
    held = show_bytes(_STATE_BYTES * learnt + _WEIGHT_BYTES * (everything - learnt))
    name = name_of(config.recipe)
    lines = [
        f"recipe       {name}: {config.recipe.cost:.2f} times the compute of mae with the same encoder, for ViT-B at 196 tokens",
        f"encoder      {encoder / 1e6:.2f} M parameters",
        f"everything   {everything / 1e6:.2f} M parameters, {held} with gradient and optimiser",
    ]
    streams = config.data.streams
    turns = sum(stream.turns for stream in streams)
    costs = [cost(recipe, config, _entry(recipe, stream)) for stream in streams]
    for stream, one in zip(streams, costs, strict=True):
        lines += _stream_lines(stream, one, config.steps * stream.turns // turns, config, images)
    if num_gpus is not None:
        lines += gpu_lines(recipe, config, costs, num_gpus)
    lines += _left_out(recipe, config)
    lines.append(f"run          {config.steps} steps, run id {run_id(config)}")
    return "\n".join(lines)


def _left_out(recipe: Recipe, config: Pretrain) -> list[str]:
    """Say what the count leaves out or guesses."""
    notes = []
    if hasattr(recipe.encoder.spec, "depths"):
        notes.append(
            "rough: of an encoder in stages each is counted by its tokens; a decoder as if it had the tokens alone"
        )
    if hasattr(config.recipe, "views"):
        notes.append("rough: two views of each image; its head is counted for every token, it reads the hidden ones")
    if hasattr(config.recipe, "text") and not config.recipe.text.tokenizer:
        notes.append(f"the vocabulary, of at most {_PIECES:,} pieces, is made from the reports when the run begins")
    if config.recipe.detail > 1:
        notes.append(
            f"crops are loaded at {config.recipe.detail} times the size that the encoder reads, along every axis"
        )
    return [f"note         {note}" for note in notes]


def _stream_lines(stream: Stream, one: Cost, steps: int, config: Pretrain, images: Mapping[str, int]) -> list[str]:
    samples = steps * stream.batch_size
    at_once = stream.batch_size // config.optim.accumulate
    epochs = f", {samples / images[stream.input]:.1f} epochs" if images.get(stream.input) else ""
    return [
        f"{stream.input:<12} {one.tokens} tokens per sample, {one.seen} seen by the encoder ({one.seen / one.tokens:.0%})",
        f"             {one.forward / 1e9:.3g} GFLOP forward per sample, "
        f"{3 * one.forward * stream.batch_size / 1e12:.3g} TFLOP per step of {stream.batch_size}",
        f"             about {show_bytes(one.activations * at_once)} of activations in bf16, twice that in fp32 (one process)",
        f"             about {steps} steps, {samples} samples{epochs}",
    ]


def _entry(recipe: Recipe, stream: Stream) -> Input:
    return next(entry for entry in recipe.encoder.contract.inputs if entry.name == stream.input)
