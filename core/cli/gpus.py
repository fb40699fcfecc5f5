"""What a run would need and take on N cards: memory of each, rate, days. From counts alone; nothing is allocated or asked.

Memory is what training holds at its fullest, in float32 under autocast to bf16: weights, gradients, AdamW's two moments,
activations, and what is there for a moment. Libraries, fragments and the batch itself come on top; a tenth of a card is
left for them. The rate is that of a card at an assumed share of its peak (MFU, Chowdhery et al. 2022, arXiv 2204.02311):
forward and backward pass count, what runs a second time does not. Traffic between cards is thought to hide behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from core.engine.config import Pretrain
from core.engine.shard import block_lists
from core.errors import ConfigError
from core.recipes.base import Recipe

CARD = "NVIDIA H100 SXM"
CARD_BYTES = 80e9
CARD_PEAK = 989e12  # dense bf16 operations per second, by the maker's data sheet
MFU = 0.35
_FULL = 0.9


class Load(Protocol):
    """What a sample of a stream costs; `core.cli.plan.Cost` is one."""

    @property
    def forward(self) -> float:
        """Operations of its forward pass."""

    @property
    def activations(self) -> float:
        """Bytes kept for the backward pass."""

    @property
    def recomputed(self) -> float:
        """The same where blocks run again."""


@dataclass(frozen=True)
class Weights:
    """Parameters of a recipe by how they are held.

    Attributes:
        learnt: with gradient and moments.
        still: without, as of a teacher.
        together: those that stand whole for all of a step where weights are shared out.
        largest: of the largest block that is put together for itself.
    """

    learnt: int
    still: int
    together: int
    largest: int

    @classmethod
    def of(cls, recipe: Recipe) -> Weights:
        """Count them."""
        learnt = _count(recipe, learnt_only=True)
        everything = _count(recipe)
        apart = [_count(block) for blocks in block_lists(recipe) for block in list(blocks)[:-1]]
        return cls(learnt, everything - learnt, everything - sum(apart), max(apart, default=0))


def _count(module: nn.Module, *, learnt_only: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learnt_only)


def check_shares(config: Pretrain, num_gpus: int) -> None:
    """Refuse a number of cards that cannot share the batches, as the run would.

    Raises:
        ConfigError: names the stream.
    """
    shares = num_gpus * config.optim.accumulate
    for stream in config.data.streams:
        if stream.batch_size % shares:
            raise ConfigError(
                f"stream '{stream.input}': expected a batch_size that {num_gpus} cards with optim.accumulate="
                f"{config.optim.accumulate} share evenly, a multiple of {shares}, got {stream.batch_size}."
            )


def gpu_lines(recipe: Recipe, config: Pretrain, loads: Sequence[Load], num_gpus: int) -> list[str]:
    """Lay out memory per card, rate, days and traffic; one load per stream."""
    shares = num_gpus * config.optim.accumulate
    at_once = [stream.batch_size // shares for stream in config.data.streams]
    samples = " or ".join(f"{n} of {stream.input}" for n, stream in zip(at_once, config.data.streams, strict=True))
    return [
        f"gpus         {num_gpus} x {CARD} ({CARD_BYTES / 1e9:.0f} GB, {CARD_PEAK / 1e12:.0f} TFLOP/s in bf16), "
        f"assumed to reach {MFU:.0%} of that",
        f"             {samples} at once on each",
        *_memory_lines(Weights.of(recipe), config, loads, at_once, num_gpus),
        *_rate_lines(config, loads, num_gpus),
    ]


def memory(weights: Weights, activations: float, num_gpus: int, *, shared: bool, again: bool) -> dict[str, float]:
    """Count the bytes on a card by what they hold.

    Args:
        weights: of the recipe.
        activations: bytes of all samples that are in a card at once, as they are kept.
        num_gpus: cards.
        shared: weights are shared out (`how.shard=full`).
        again: blocks run again (`how.checkpoint_activations`).
    """
    everything, parts = weights.learnt + weights.still, num_gpus if shared else 1
    passing = 2.0 * everything  # the bf16 copies that autocast makes of weights, until the forward pass ends
    if shared:
        casts = weights.together if again else everything  # a block's backward pass needs its copy again
        passing = 8.0 * weights.together + 2.0 * casts + 2 * 8.0 * weights.largest  # two blocks: this one and the next
    return {
        "weights": 4.0 * everything / parts,
        "gradients": 4.0 * weights.learnt / parts,
        "moments": 8.0 * weights.learnt / parts,
        "passing": passing,
        "activations": activations,
    }


def _memory_lines(
    weights: Weights, config: Pretrain, loads: Sequence[Load], at_once: Sequence[int], num_gpus: int
) -> list[str]:
    """Lay out a row for each way to hold weights and activations; of the stream that needs most."""
    ways = [(shared, again) for shared in ((False, True) if num_gpus > 1 else (False,)) for again in (False, True)]
    own = (config.how.shard == "full" and num_gpus > 1, config.how.checkpoint_activations)
    heads, rows = ["weights", "gradients", "moments", "in passing", "activations", "all"], []
    for shared, again in ways:
        kept = (load.recomputed if again else load.activations for load in loads)
        most = max(one * count for one, count in zip(kept, at_once, strict=True))
        held = list(memory(weights, most, num_gpus, shared=shared, again=again).values())
        fits = "fits" if sum(held) <= _FULL * CARD_BYTES else "does not fit"
        told = f"{fits}, as this run is set" if (shared, again) == own else fits
        options = f"shard={'full' if shared else 'none'}{' checkpoint_activations' if again else ''}"
        rows.append(f"  {options:<35}" + "".join(f"{show_bytes(n):>12}" for n in (*held, sum(held))) + f"   {told}")
    return [f"{'memory per GPU, by how.*':<37}" + "".join(f"{head:>12}" for head in heads), *rows]


def _rate_lines(config: Pretrain, loads: Sequence[Load], num_gpus: int) -> list[str]:
    """Tell samples per second and days, as the run is set."""
    streams = config.data.streams
    turns = sum(stream.turns for stream in streams)
    steps = [config.steps * stream.turns / turns for stream in streams]
    samples = sum(count * stream.batch_size for count, stream in zip(steps, streams, strict=True))
    work = sum(
        3 * load.forward * count * stream.batch_size for load, count, stream in zip(loads, steps, streams, strict=True)
    )
    seconds = work / (num_gpus * CARD_PEAK * MFU)
    slower = 4 / 3 if config.how.checkpoint_activations else 1.0
    note = ", blocks running twice" if slower > 1 else f" ({_days(seconds * 4 / 3)} with checkpoint_activations)"
    lines = [
        f"time         {work / samples / 1e12:.3g} TFLOP per sample, forward and backward: "
        f"{samples / seconds / slower:,.0f} samples/s, {_days(seconds * slower)} for {config.steps:,} steps{note}"
    ]
    if config.how.precision == "fp32":
        lines.append(
            "note         counted in bf16, and this run asks for fp32: twice the activations and far fewer samples/s"
        )
    return lines


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds / 3600:.1f} hours"


def show_bytes(count: float) -> str:
    """Write a number of bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
