"""What sharing weights out costs and saves: steps of a Swin V2 on several ranks, whole and in parts, kept and run again.

    torchrun --nproc-per-node 8 -m benchmarks.fsdp [--size giant] [--batch 64] [--precision bf16] [--json FILE]
    torchrun --nproc-per-node 2 -m benchmarks.fsdp --size tiny --batch 4       # two processes of one CPU, over gloo

`--batch` is samples per rank. On cards each way tells seconds per step, samples per second of all ranks, and the peak of
memory on rank 0 beside what `--plan --gpus` foretells; a way that does not fit says so and the next one is tried. On CPUs
times say little, and memory is not told; the numbers of losses, which must agree, are.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measure import machine, publish
from benchmarks.mfu import batch_for
from core.batch import Batch
from core.cli.gpus import Weights, memory
from core.cli.plan import cost, sketch
from core.contract import Contract
from core.encoders.cards.satvision import satvision_input, satvision_spec
from core.encoders.swinv2 import SwinV2Spec
from core.engine import shard
from core.engine.config import Data, Optim, Pretrain, Stream
from core.engine.distributed import World, world
from core.engine.optim import decay_groups, make_optimizer
from core.engine.recompute import recompute_blocks
from core.engine.step import Precision, train_step
from core.maskers.cells import Cells
from core.recipes.base import Recipe, RecipeSpec
from core.recipes.simmim import Simmim

WAYS = [(shared, again) for shared in (False, True) for again in (False, True)]


def spec_of(size: str) -> RecipeSpec:
    """Describe SimMIM with SatVision's encoder, or with a tiny one of its kind."""
    contract = Contract(inputs=(satvision_input(),))
    tiny = SwinV2Spec(contract=contract, width=16, depths=(2, 2, 2), heads=(2, 2, 2), window=(8, 8))
    return Simmim(encoder=tiny if size == "tiny" else satvision_spec(size), masker=Cells())  # type: ignore[arg-type]


def foretold(spec: RecipeSpec, count: int, ranks: int, *, shared: bool, again: bool) -> float:
    """Give the bytes per card that `--plan --gpus` tells."""
    entry = spec.encoder.contract.inputs[0]
    data = Data(streams=(Stream(input=entry.name, batch_size=count * ranks),))
    config = Pretrain(recipe=spec, data=data, optim=Optim(lr=1e-5), steps=1)
    recipe = sketch(config)
    one = cost(recipe, config, entry)
    kept = (one.recomputed if again else one.activations) * count
    return sum(memory(Weights.of(recipe), kept, ranks, shared=shared, again=again).values())


def settled(recipe: Recipe, place: World, *, shared: bool, again: bool) -> nn.Module:
    """Bring a recipe to its device as the engine does."""
    if again:
        recompute_blocks(recipe)
    if shared:
        shard.shard(recipe, place)
        return recipe
    cards = [place.device.index] if place.device.type == "cuda" else None
    return DistributedDataParallel(recipe.to(place.device), device_ids=cards, gradient_as_bucket_view=True)


def run(model: nn.Module, batch: Batch, place: World, precision: Precision, rounds: int) -> tuple[list[float], float]:
    """Train on one batch; give the losses of all rounds and the median seconds of those after the second."""
    optimizer = make_optimizer(decay_groups(model.named_parameters(), 0.05), Optim(lr=1e-4), place.device)
    losses, times = [], []
    for step in range(rounds + 2):
        distributed.barrier()
        start = time.perf_counter()
        torch.manual_seed(step)
        outcome = train_step(
            model, optimizer, batch, accumulate=1, clip_norm=1.0, precision=precision, world=place
        )  # reads the loss back, and so waits for the device
        times.append(time.perf_counter() - start)
        losses.append(outcome.loss)
    return losses, statistics.median(times[2:])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("tiny", "base", "huge", "giant"), default="tiny")
    parser.add_argument("--batch", type=int, default=4, help="samples per rank")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="append one JSON line per way to this file")
    options = parser.parse_args()
    with world() as place:
        if place.size == 1:
            print("skipped: start it with torchrun --nproc-per-node N, at least 2", file=sys.stderr)
            return 0
        return race(options, place)


def race(options: argparse.Namespace, place: World) -> int:
    """Try every way and tell of each."""
    spec, device = spec_of(options.size), place.device
    precision = Precision.of(options.precision, device)
    torch.manual_seed(0)
    fresh = spec.build().train()
    whole = batch_for(spec, options.batch * place.size)
    mine = {
        name: value[place.rank :: place.size] for name, value in vars(whole).items() if isinstance(value, torch.Tensor)
    }
    batch = replace(whole, **mine).to(device)
    seen: list[list[float]] = []
    for shared, again in WAYS:
        record: dict[str, Any] = {"shard": "full" if shared else "none", "recompute": again, "ranks": place.size}
        record |= {"size": options.size, "batch_per_rank": options.batch, "precision": precision.name}
        record["planned_gb"] = round(foretold(spec, options.batch, place.size, shared=shared, again=again) / 1e9, 3)
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            model = settled(copy.deepcopy(fresh), place, shared=shared, again=again)
            kept = replace(precision, keep_casts=not shared)
            losses, seconds = run(model, batch, place, kept, options.rounds)
            seen.append(losses)
            record |= {"seconds": round(seconds, 4), "samples_per_s": round(len(batch) * place.size / seconds, 1)}
            record |= {"first_loss": losses[0], "last_loss": losses[-1]}
            if device.type == "cuda":
                record["peak_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
            del model
        except torch.cuda.OutOfMemoryError:
            record["fits"] = False
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if place.is_main:
            publish([record], {"machine": machine(device), "torch": torch.__version__}, options.json)
    apart = max((abs(a / b - 1) for losses in seen for a, b in zip(losses, seen[0], strict=True)), default=0.0)
    agree = apart < (1e-5 if precision.name == "fp32" else 1e-2)
    if place.is_main:
        print(f"losses of all ways agree to {apart:.1e}" + ("" if agree else ": TOO FAR APART"), file=sys.stderr)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
