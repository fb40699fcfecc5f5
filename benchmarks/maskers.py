"""What each masker costs, as a share of a whole MAE training step on the same batch.

    python -m benchmarks.maskers [--size small] [--batch 32] [--device cuda] [--repeats 9] [--clock cpu] [--json FILE] [--check]

The step and all maskers run by turns in one process: ViT-Small, patch 16, 224 px, 32 images. Gate: a masker whose plan does
not depend on the image costs less than 5 % of the step. Those that look at the image, or at a hint that a recipe's network
gives, are reported without a gate; what the network costs is not counted. Whether a masker looks is found by trying.
`bands` is timed on three groups of one band, so on three times the tokens.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Ratio, clock_of, gate, interleave, machine, publish, rounded, say_gates, train_step
from benchmarks.ours import BANDS, HalfseenMae, batch_of
from benchmarks.sizes import SIZES, Work
from core import registry
from core.batch import Batch
from core.errors import ConfigError
from core.maskers.base import Masker
from core.plan import Guide
from core.shapes import Grid

STEP = "MAE step"
LIMIT = 0.05


@dataclass(frozen=True)
class Subject:
    """One masker with all that it is given.

    Attributes:
        masker: with its defaults.
        batch: prepared.
        grid: with groups where it wants them.
        hint: (B, N).
    """

    masker: Masker
    batch: Batch
    grid: Grid
    hint: Tensor

    def __call__(self) -> None:
        self.hidden()

    def hidden(self, image: Tensor | None = None) -> Tensor:
        """Plan, of other images with the same keys where they are given."""
        batch = self.batch if image is None else replace(self.batch, image=image)
        return self.masker(batch, self.grid, batch.rng, Guide(self.hint, torch.ones((), device=self.hint.device))).hide

    @property
    def looks(self) -> str:
        """Say what it looks at: nothing, the image, or a hint."""
        if self.masker.hint is not None:
            return "hint"
        other = torch.randn_like(self.batch.image)
        return "nothing" if torch.equal(self.hidden(), self.hidden(other)) else "image"


def subjects(names: list[str], batch: Batch, patch: tuple[int, ...]) -> dict[str, Subject]:
    """Make every masker; one that cannot be made here is named and left out."""
    found = {}
    for name in names:
        grid = batch.grid(patch)
        try:
            masker: Masker = registry.get("maskers", name)()
            if name == "bands":
                grid = Grid(grid.tokens, grid.patch, tuple((band,) for band in BANDS))
            masker.check(grid, tuple(batch.spacing[0].tolist()))
        except ConfigError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        found[name] = Subject(masker, batch, grid, torch.rand(len(batch), grid.num_tokens, device=batch.image.device))
    return found


def costs(
    work: Work, names: list[str], device: torch.device, repeats: int, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Time the step and the maskers, and give one record for each and one for each gate."""
    torch.manual_seed(0)
    images = torch.randn(work.batch, 3, work.image, work.image, device=device)
    module = HalfseenMae(work).to(device)
    batch, entry = module.recipe.encoder.prepare(batch_of(images))
    made = subjects(names, batch, entry.patch)
    looks = {name: subject.looks for name, subject in made.items()}
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    steps: dict[str, Callable[[], None]] = {STEP: train_step(module, images), **made}
    times = interleave(steps, repeats, wait=wait, clock=clock)

    records: list[dict[str, Any]] = []
    gates = []
    for name, taken in times.items():
        ordered = sorted(taken)
        share = Ratio.of(taken, times[STEP])
        record = {
            "masker": name,
            "median_ms": round(ordered[len(ordered) // 2] * 1e3, 2),
            "min_ms": round(ordered[0] * 1e3, 2),
        }
        if name != STEP:
            record |= {"looks_at": looks[name], "share_of_step": rounded(share)}
            if looks[name] == "nothing":
                gates.append(gate(f"{name} / step", share, limit=LIMIT))
        records.append(record)
    return records + gates


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = registry.names("maskers")
    parser.add_argument(
        "--size", choices=sorted(SIZES), default="small", help="ViT-Tiny or ViT-Small, patch 16, 224 px"
    )
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--maskers", nargs="+", choices=known, default=list(known), help="which; default: all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; each runs the step and every masker once")
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
        "batch": options.batch,
        "repeats": options.repeats,
        "clock": options.clock,
    }
    work = replace(SIZES[options.size], batch=options.batch)
    records = costs(work, options.maskers, device, options.repeats, clock)
    publish(records, where, options.json)

    print(
        f"\n{where['machine']}, ViT-{options.size}, {options.batch} images, {options.repeats} rounds", file=sys.stderr
    )
    for record in records:
        if "masker" in record:
            share = record.get("share_of_step")
            text = f"  {record['masker']:<16} min {record['min_ms']:9.2f} ms   median {record['median_ms']:9.2f} ms"
            if share is not None:
                text += f"   {100 * share['median']:7.2f} % of the step   looks at {record['looks_at']}"
            print(text, file=sys.stderr)
    return 1 if not say_gates(records) and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
