"""Timing by turns, and the two ratios that gates look at. Absolute times depend on the neighbours; ratios much less."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

BOUNDS = {"limit": "at most", "floor": "at least"}


@dataclass(frozen=True)
class Ratio:
    """How much longer one takes than another.

    Attributes:
        median: of the ratios of the two times of each round.
        best: shortest time over shortest time.
    """

    median: float
    best: float

    @classmethod
    def of(cls, times: list[float], reference: list[float]) -> Ratio:
        """Compare times taken in the same rounds."""
        pairs = [a / b for a, b in zip(times, reference, strict=True)]
        return cls(statistics.median(pairs), min(times) / min(reference))


def interleave(
    steps: Mapping[str, Callable[[], None]],
    rounds: int,
    *,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run every step once per round, the first of each round being another one each time; give seconds per step.

    Args:
        steps: what is timed; each has run once before, unseen.
        rounds: how often.
        wait: returns when the device has done all that was asked of it.
        clock: seconds; `time.process_time` counts what this process computed, whatever the neighbours did meanwhile.
    """
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            wait()
            start = clock()
            steps[name]()
            wait()
            if turn >= 0:
                times[name].append(clock() - start)
    return times


def clock_of(name: str, device: torch.device, parser: argparse.ArgumentParser) -> Callable[[], float]:
    """Give the clock that `--clock` names: `wall`, or `cpu`, which counts the seconds that one thread computed."""
    if name == "wall":
        return time.perf_counter
    if device.type != "cpu":
        parser.error(f"--clock cpu times the CPU, and the step runs on {device}: leave it out")
    torch.set_num_threads(1)
    return time.process_time


def train_step(module: nn.Module, images: torch.Tensor, *, lr: float = 1e-4) -> Callable[[], None]:
    """Make one whole training step of a module that turns images into a loss."""
    module.train()
    optimiser = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=lr, weight_decay=0.05)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        module(images).backward()
        optimiser.step()

    return step


def train_flops(module: nn.Module, images: torch.Tensor) -> float:
    """Count forward and backward pass per image, as torch's counter sees them.

    Attention runs as plain matrix products: the counter does not know the CPU's fused kernel and counts it as 0.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(images).backward()
    module.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / len(images)


def machine(device: torch.device) -> str:
    """Name the hardware, not the host."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def gate(name: str, ratio: Ratio, *, limit: float | None = None, floor: float | None = None) -> dict[str, Any]:
    """Judge a ratio by its median; the ratio of the shortest times stands beside it for a noisy machine."""
    ok = (limit is None or ratio.median <= limit) and (floor is None or ratio.median >= floor)
    return {"gate": name, "ratio": rounded(ratio), "limit": limit, "floor": floor, "ok": ok}


def rounded(ratio: Ratio) -> dict[str, float]:
    return {"median": round(ratio.median, 3), "best": round(ratio.best, 3)}


def publish(records: list[dict[str, Any]], where: dict[str, Any], file: Path | None) -> None:
    """Print one JSON line per record, and add them to a file."""
    lines = [json.dumps({**where, **record}) for record in records]
    print("\n".join(lines))
    if file is not None:
        with file.open("a", encoding="utf-8") as target:
            target.write("\n".join(lines) + "\n")


def say_gates(records: list[dict[str, Any]]) -> bool:
    """Tell on standard error which gates hold; True when all do."""
    gates = [record for record in records if "gate" in record]
    for record in gates:
        bounds = [f"{word} {record[name]}" for name, word in BOUNDS.items() if record.get(name) is not None]
        word = ("holds " if record["ok"] else "MISSED") if bounds else "      "
        asked = f"  ({', '.join(bounds)})" if bounds else ""
        print(f"  {word} {record['gate']}: {record['ratio']}{asked}", file=sys.stderr)
    return all(record["ok"] for record in gates)
