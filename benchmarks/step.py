"""How long one MAE step takes, against plain PyTorch, lightly, MONAI and Hugging Face on the same work.

    python -m benchmarks.step [--size small] [--device cuda] [--repeats 15] [--clock cpu] [--json FILE] [--check]

All implementations run by turns in one process. Gates: ours <= 1.05 x plain and <= 1.02 x the best peer, visible-only
>= 3 x faster than all-token at ViT-Small, FLOPs within 3 % of the formula, `import core` <= 1.2 x `import torch`.
On a machine that others use too, `--clock cpu` times one thread by what it computed instead of by the clock on the wall.
The peers come with `pip install -e .[bench]`; one that is absent is named and left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.imports import import_pairs
from benchmarks.measure import (
    Ratio,
    clock_of,
    gate,
    interleave,
    machine,
    publish,
    rounded,
    say_gates,
    train_flops,
    train_step,
)
from benchmarks.ours import HalfseenEncoder, HalfseenMae
from benchmarks.peers import PEERS, version
from benchmarks.plain_mae import PlainAllTokens, PlainMae
from benchmarks.sizes import SIZES, Work, all_token_flops, mae_flops

OURS, PLAIN, ALL = "halfseen", "plain", "plain, all tokens"


def build(work: Work, device: torch.device) -> dict[str, torch.nn.Module]:
    """Make every implementation that is installed."""
    modules: dict[str, torch.nn.Module] = {OURS: HalfseenMae(work), PLAIN: PlainMae(work), ALL: PlainAllTokens(work)}
    for peer, make in PEERS.items():
        if version(peer) is None:
            print(f"{peer} is not installed and left out: pip install -e .[bench]", file=sys.stderr)
        else:
            modules[peer] = make(work)
    return {name: module.to(device) for name, module in modules.items()}


def steps(work: Work, device: torch.device, repeats: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Time the steps and give one record per implementation and one per gate."""
    torch.manual_seed(0)
    images = torch.randn(work.batch, 3, work.image, work.image, device=device)
    modules = build(work, device)
    flops = {name: train_flops(module, images) for name, module in modules.items()}
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    timed = {name: train_step(module, images) for name, module in modules.items()}
    times = interleave(timed, repeats, wait=wait, clock=clock)

    ordered = {name: sorted(taken) for name, taken in times.items()}
    records: list[dict[str, Any]] = [
        {
            "step": name,
            "version": version(name) if name in PEERS else None,
            "min_ms": round(taken[0] * 1e3, 1),
            "median_ms": round(taken[len(taken) // 2] * 1e3, 1),
            "ratio_to_plain": rounded(Ratio.of(times[name], times[PLAIN])),
            "train_gflop_per_image": round(flops[name] / 1e9, 2),
        }
        for name, taken in ordered.items()
    ]
    gates = [gate("ours / plain", Ratio.of(times[OURS], times[PLAIN]), limit=1.05)]
    peers = [name for name in PEERS if name in times]
    if peers:
        best = min(peers, key=lambda name: ordered[name][len(ordered[name]) // 2])
        gates.append(gate(f"ours / best peer ({best})", Ratio.of(times[OURS], times[best]), limit=1.02))
    faster = Ratio.of(times[ALL], times[OURS])
    gates.append(gate("all-token / ours (visible-only)", faster, floor=3.0 if work is SIZES["small"] else None))
    halves = {seen: HalfseenEncoder(work, visible_only=seen).to(device) for seen in (True, False)}
    alone = {str(seen): train_step(module, images) for seen, module in halves.items()}
    encoder = interleave(alone, repeats, wait=wait, clock=clock)
    gates.append(
        gate("encoder alone, all tokens / visible only", Ratio.of(encoder["False"], encoder["True"]), floor=3.0)
    )
    for name, formula in ((OURS, mae_flops(work)), (PLAIN, mae_flops(work)), (ALL, all_token_flops(work))):
        share = flops[name] / (3 * formula)
        gates.append(
            {"gate": f"FLOP of {name} / formula", "ratio": round(share, 4), "limit": 1.03, "ok": abs(share - 1) <= 0.03}
        )
    return records + gates


def imports(repeats: int) -> list[dict[str, Any]]:
    """Time the public face, and what every loader worker imports, against torch alone."""
    records = []
    for module in ("core", "core.batch"):
        pairs = import_pairs(module, "torch", repeats)
        ratio = Ratio.of([ours for ours, _ in pairs], [torchs for _, torchs in pairs])
        records.append(gate(f"import {module} / import torch", ratio, limit=1.2))
    return records


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--size", choices=sorted(SIZES), default="small", help="ViT-Tiny or ViT-Small, patch 16, 224 px"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=15, help="rounds; each runs every implementation once")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread, its own CPU seconds")
    parser.add_argument("--json", type=Path, help="append one JSON line per record to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a gate does not hold")
    options = parser.parse_args()

    device = torch.device(options.device)
    clock = clock_of(options.clock, device, parser)
    where = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(device),
        "torch": torch.__version__,
        "size": options.size,
        "repeats": options.repeats,
        "clock": options.clock,
    }
    records = steps(SIZES[options.size], device, options.repeats, clock) + imports(min(options.repeats, 5))
    publish(records, where, options.json)

    print(f"\n{where['machine']}, ViT-{options.size}, {options.repeats} rounds", file=sys.stderr)
    for record in records:
        if "step" in record:
            ratio = record["ratio_to_plain"]
            text = f"  {record['step']:<18} min {record['min_ms']:8.1f} ms   median {record['median_ms']:8.1f} ms   "
            text += f"x plain: median {ratio['median']:.3f}, best {ratio['best']:.3f}"
            print(text + f"   {record['train_gflop_per_image']:6.2f} GFLOP/image", file=sys.stderr)
    return 1 if not say_gates(records) and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
