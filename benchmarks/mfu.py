"""What share of a card's peak training steps reach: MAE with ViT-L/16, and SimMIM with SatVision's giant Swin V2.

    python -m benchmarks.mfu [--only mae_vit_l] [--batch 256] [--precision bf16] [--no-compile] [--profile] [--json FILE]

MFU (Chowdhery et al. 2022, arXiv 2204.02311) divides the operations that a step needs, forward and backward, by what the
card could do in that time; what activation checkpointing runs again does not count. Operations are those that `--plan`
counts, which tests hold against torch's own counter. `--profile` names the kernels that take most time, which
is where the next improvement lies. Needs a CUDA card; says so and leaves with 0 where there is none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import publish
from core.batch import Batch
from core.cli.gpus import CARD_PEAK
from core.cli.plan import cost, sketch
from core.contract import Contract, Input, Normalisation
from core.encoders.cards.satvision import satvision_spec
from core.encoders.vit import ViTSpec
from core.engine.config import Data, Optim, Pretrain, Stream
from core.engine.distributed import World
from core.engine.optim import decay_groups, make_optimizer
from core.engine.recompute import recompute_blocks
from core.engine.step import Precision, train_step
from core.maskers.cells import Cells
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe, RecipeSpec
from core.recipes.mae import Mae
from core.recipes.simmim import Simmim
from core.rng import key

PEAKS = {"H100": CARD_PEAK, "H200": 989e12, "A100": 312e12}  # dense bf16, by the makers' data sheets


@dataclass(frozen=True)
class Work:
    """A step to time.

    Attributes:
        recipe: the method at full size.
        batch: samples that fit a card of 80 GB.
        recompute: whether its blocks run again in the backward pass.
    """

    recipe: RecipeSpec
    batch: int
    recompute: bool = False


def works() -> dict[str, Work]:
    """Describe the steps by name."""
    photograph = Input(
        name="photograph",
        bands=("red", "green", "blue"),
        patch=(16, 16),
        size=(224, 224),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    vit = ViTSpec(contract=Contract(inputs=(photograph,)), width=1024, depth=24, heads=16)
    decoder = TransformerSpec(width=512, depth=8, heads=16)
    return {
        "mae_vit_l": Work(Mae(encoder=vit, predictor=decoder), 256),
        "simmim_swinv2_h": Work(Simmim(encoder=satvision_spec("huge"), masker=Cells()), 128),
        "simmim_swinv2_g": Work(Simmim(encoder=satvision_spec("giant"), masker=Cells()), 64, recompute=True),
    }


def batch_for(recipe: RecipeSpec, count: int) -> Batch:
    """Make noise of the size of the encoder's first input."""
    entry = recipe.encoder.contract.inputs[0]
    image = torch.rand(count, len(entry.bands), *entry.size, generator=torch.Generator().manual_seed(0))
    rows, zeros = torch.arange(count), torch.zeros(count, len(entry.bands))
    return Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.tensor(entry.spacing).expand(count, -1).contiguous(),
        unit=entry.unit,
        offset=zeros,
        scale=zeros + 1,
        key=torch.tensor([key(0, row) for row in range(count)]),
        index=rows,
        row=rows,
    )


def operations(spec: RecipeSpec) -> float:
    """Count forward and backward pass of one sample, as `--plan` does."""
    entry = spec.encoder.contract.inputs[0]
    stream = Stream(input=entry.name, batch_size=1)
    config = Pretrain(recipe=spec, data=Data(streams=(stream,)), optim=Optim(lr=1e-5), steps=1)
    return 3 * cost(sketch(config), config, entry).forward


def peak_of(name: str) -> float | None:
    """Give the peak of a card by its name; None where it is not known."""
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def prepared(work: Work, precision: Precision, *, compiled: bool) -> tuple[Recipe, Callable[[], None]]:
    """Build a recipe on the card and give it with its whole training step, as the engine makes it."""
    device = precision.device
    torch.manual_seed(0)
    recipe = work.recipe.build().to(device).train()
    if work.recompute:
        recompute_blocks(recipe)
    if compiled:
        recipe.compile()
    optimizer = make_optimizer(decay_groups(recipe.named_parameters(), 0.05), Optim(lr=1e-5), device)
    batch = batch_for(work.recipe, work.batch).to(device)
    world = World(0, 1, device)

    def step() -> None:
        train_step(recipe, optimizer, batch, accumulate=1, clip_norm=1.0, precision=precision, world=world)

    return recipe, step


def timed(step: Callable[[], None], rounds: int) -> float:
    """Time a step that has been warmed up: the median of rounds, in seconds."""
    for _ in range(5):
        step()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def kernels(step: Callable[[], None], most: int = 12) -> list[dict[str, Any]]:
    """Profile three steps and list the kernels that take most of the card's time, with their share of it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    events = [
        event
        for event in seen.key_averages()
        if event.self_device_time_total > 0 and "cuda" in str(event.device_type).lower()
    ]
    total = sum(event.self_device_time_total for event in events)
    events.sort(key=lambda event: event.self_device_time_total, reverse=True)
    return [
        {"kernel": event.key[:90], "share": round(event.self_device_time_total / total, 3), "calls": event.count // 3}
        for event in events[:most]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="comma-separated names of steps; none = all")
    parser.add_argument("--batch", type=int, help="samples per step instead of the step's own")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="also list the kernels that take most time")
    parser.add_argument("--json", type=Path, help="append one JSON line per step to this file")
    options = parser.parse_args()
    known = works()
    names = options.only.split(",") if options.only else list(known)
    if wrong := [name for name in names if name not in known]:
        parser.error(f"--only: expected some of {', '.join(known)}, got {', '.join(wrong)}")
    if not torch.cuda.is_available():
        print("skipped: MFU is a share of a card's peak, and torch sees no CUDA card here", file=sys.stderr)
        return 0
    device = torch.device("cuda", 0)
    card = torch.cuda.get_device_name(device)
    peak = peak_of(card)
    for name in names:
        work = known[name] if options.batch is None else replace(known[name], batch=options.batch)
        torch.cuda.reset_peak_memory_stats(device)
        recipe, step = prepared(work, Precision.of(options.precision, device), compiled=not options.no_compile)
        seconds, needed = timed(step, options.rounds), operations(work.recipe) * work.batch
        record: dict[str, Any] = {
            "step": name,
            "batch": work.batch,
            "precision": options.precision,
            "compiled": not options.no_compile,
            "recompute": work.recompute,
            "seconds": round(seconds, 4),
            "samples_per_s": round(work.batch / seconds, 1),
            "tflop_per_sample": round(needed / work.batch / 1e12, 4),
            "tflops": round(needed / seconds / 1e12, 1),
            "mfu": None if peak is None or options.precision != "bf16" else round(needed / seconds / peak, 4),
            "peak_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2),
        }
        publish([record], {"machine": card, "torch": torch.__version__}, options.json)
        if options.profile:
            publish(kernels(step), {"step": name}, options.json)
        del recipe, step
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
