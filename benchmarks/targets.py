"""What each target costs, as a share of a whole masked training step on the same batch.

    python -m benchmarks.targets [--targets hog] [--decoder 192x2] [--rounds 7] [--clock cpu] [--json FILE] [--check]

ViT-Small, 75 % hidden, in three settings: RGB and 13 bands at 224 px, patch 16, and volumes of 96^3, patch 16. The step
predicts pixels with the decoder that is named, width x depth; step and targets run by turns in one process. Gate: a target
costs less than 5 % of the step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Ratio, clock_of, gate, interleave, machine, publish, rounded, say_gates, train_step
from core import registry
from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe
from core.recipes.mae import Mae
from core.rng import key
from core.shapes import Grid
from core.targets.base import Target
from core.targets.pixels import Pixels

LIMIT = 0.05


@dataclass(frozen=True)
class Setting:
    """One kind of image and how many there are of it in a step."""

    bands: int
    size: tuple[int, ...]
    batch: int

    @property
    def entry(self) -> Input:
        """The input of the encoder."""
        rgb = self.bands == 3
        return Input(
            name="image",
            bands=("red", "green", "blue") if rgb else tuple(f"b{i}" for i in range(self.bands)),
            patch=(16,) * len(self.size),
            size=self.size,
            spacing=(1.0,) * len(self.size),
            unit="mm" if len(self.size) == 3 else "px",
            normalisation=Normalisation(method="per_image"),
        )

    def batch_of(self) -> Batch:
        """Draw noise, all of it measured."""
        entry, rows = self.entry, torch.arange(self.batch)
        image = torch.randn(self.batch, self.bands, *self.size, generator=torch.Generator().manual_seed(0))
        return Batch(
            image=image,
            valid=torch.ones_like(image, dtype=torch.bool),
            bands=entry.bands,
            spacing=torch.ones(self.batch, len(self.size)),
            unit=entry.unit,
            offset=torch.zeros(self.batch, self.bands),
            scale=torch.ones(self.batch, self.bands),
            key=torch.tensor([key(0, index) for index in range(self.batch)]),
            index=rows,
            row=rows,
        )


SETTINGS = {
    "rgb": Setting(3, (224, 224), 16),
    "13 bands": Setting(13, (224, 224), 8),
    "volume": Setting(1, (96, 96, 96), 4),
}


class _Step(torch.nn.Module):
    """The recipe behind `benchmarks.measure.train_step`, which hands over images."""

    def __init__(self, recipe: Recipe, batch: Batch) -> None:
        super().__init__()
        self.recipe, self.batch = recipe, batch

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.recipe(self.batch, self.batch.rng).loss
        return loss


def _call(target: Target, batch: Batch, grid: Grid) -> None:
    target(batch, grid)


def costs(
    name: str, setting: Setting, targets: list[str], decoder: tuple[int, int], rounds: int, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Time the step and the targets, and give one record for each and one for each gate."""
    torch.manual_seed(0)
    entry, width, depth = setting.entry, *decoder
    encoder = ViTSpec(contract=Contract(inputs=(entry,)), width=384, depth=12, heads=6)
    predictor = TransformerSpec(width=width, depth=depth, heads=width // 32)
    recipe = Mae(encoder=encoder, predictor=predictor, target=Pixels(normalise="none")).build()
    batch, entry = recipe.encoder.prepare(setting.batch_of())
    grid = batch.grid(entry.patch)
    made: dict[str, Callable[[], None]] = {}
    for part in targets:
        try:
            target: Target = registry.get("targets", part)()
            target.num_values(entry)
        except (ConfigError, TypeError) as error:
            print(f"{part} is left out of {name}: {error}", file=sys.stderr)
            continue
        made[part] = partial(_call, target, batch, grid)
    made["step"] = train_step(_Step(recipe, batch), batch.image)
    times = interleave(made, rounds, clock=clock)
    records, gates = [], []
    for part, taken in times.items():
        share = Ratio.of(taken, times["step"])
        record: dict[str, Any] = {"setting": name, "target": part, "min_ms": round(min(taken) * 1e3, 2)}
        if part != "step":
            record["share_of_step"] = rounded(share)
            gates.append(gate(f"{name}: {part} / step", share, limit=LIMIT))
        records.append(record)
    return records + gates


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = registry.names("targets")
    parser.add_argument("--targets", nargs="+", choices=known, default=["hog"], help="which")
    parser.add_argument("--settings", nargs="+", choices=sorted(SETTINGS), default=list(SETTINGS), help="which images")
    parser.add_argument("--decoder", default="192x2", help="width x depth")
    parser.add_argument("--rounds", type=int, default=7, help="each runs the step and every target once")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu", help="cpu: one thread, its own CPU seconds")
    parser.add_argument("--json", type=Path, help="append one JSON line per record to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a gate does not hold")
    options = parser.parse_args()
    clock = clock_of(options.clock, torch.device("cpu"), parser)
    width, depth = (int(number) for number in options.decoder.split("x"))
    where = {"date": time.strftime("%Y-%m-%d"), "machine": machine(torch.device("cpu")), "torch": torch.__version__}
    where |= {"decoder": options.decoder, "rounds": options.rounds, "clock": options.clock}
    records = []
    for name in options.settings:
        records += costs(name, SETTINGS[name], options.targets, (width, depth), options.rounds, clock)
    publish(records, where, options.json)
    return 1 if not say_gates(records) and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
