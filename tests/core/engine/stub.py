"""A run without files: the stub parts, batches by arithmetic, and a script that trains in a process of its own."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from core.batch import Batch
from core.engine.config import Data, How, Optim, Pretrain, Stream
from core.engine.distributed import World, world
from core.engine.loop import build, fit
from core.engine.run_folder import open_run
from core.engine.stop import EXIT_CODE, Preempted, leave
from core.errors import HalfseenError
from core.recipes.base import RecipeSpec
from core.rng import key, numpy_rng

PARTS = Path(__file__).parent / "parts"
ROWS, GLOBAL_BATCH = 40, 8
ALONE = World(0, 1, torch.device("cpu"))


def _load(name: str) -> ModuleType:
    """Import a stub part under the name it would have in its folder, without showing it to those who list the folder."""
    if name not in sys.modules:
        _, kind, stem = name.split(".")
        spec = importlib.util.spec_from_file_location(name, PARTS / kind / f"{stem}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_encoder, _recipe = _load("core.encoders.stub"), _load("core.recipes.stub")
StubSpec, StubRecipeSpec = _encoder.StubSpec, _recipe.StubRecipeSpec
INPUTS = {entry.name: entry for entry in (_encoder.PHOTOGRAPH, _encoder.VOLUME)}


def pretrain(steps: int = 6, **changes: object) -> Pretrain:
    """A run of both streams in turn."""
    config = Pretrain(
        recipe=StubRecipeSpec(),
        data=Data(streams=tuple(Stream(input=name, batch_size=GLOBAL_BATCH) for name in INPUTS)),
        optim=Optim(lr=1e-2, warmup_steps=min(2, steps - 1), clip_norm=1.0),
        steps=steps,
        how=How(device="cpu", save_every=2, validate_every=3, log_every=1000),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def batch_of(stream: str, indices: list[int], seed: int = 0) -> Batch:
    """Samples by their place in a stream's order; each is a pure function of it."""
    entry = INPUTS[stream]
    rows = [index % ROWS for index in indices]
    images = [numpy_rng(seed, stream, row).integers(0, 255, (1, *entry.size), dtype=np.uint8) for row in rows]
    image = torch.from_numpy(np.stack(images))
    valid = torch.ones_like(image, dtype=torch.bool)
    valid[[row % 4 == 0 for row in rows], 0, 0] = False  # all of these on rank 0 of 2
    count = len(indices)
    return Batch(
        image=image,
        valid=valid,
        bands=entry.bands,
        spacing=torch.ones(count, entry.ndim),
        unit="px",
        offset=torch.full((count, 1), 127.5),
        scale=torch.full((count, 1), 1 / 64),
        key=torch.tensor([key(seed, stream, index) for index in indices]),
        index=torch.tensor(indices),
        row=torch.tensor(rows),
    )


class PowerError(Exception):
    """The power fails."""


class Loader:
    """Batches of one rank, streams in turn; `delay_s` makes a step long enough to be killed in, `die` fails one."""

    def __init__(self, place: World = ALONE, *, delay_s: float = 0.0, seed: int = 0, die: int | None = None) -> None:
        self.place, self.delay_s, self.seed, self.die = place, delay_s, seed, die

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        names = list(INPUTS)
        for step in range(start, stop):
            time.sleep(self.delay_s)
            if step == self.die:
                raise PowerError
            first = step // len(names) * GLOBAL_BATCH
            whole = list(range(first, first + GLOBAL_BATCH))
            yield batch_of(names[step % len(names)], whole[self.place.rank :: self.place.size], self.seed)

    def held_out(self) -> list[Batch]:
        return [
            batch_of("photograph", [1000, 1001, 1002]),
            batch_of("photograph", [1003]),
            batch_of("volume", [1004, 1005]),
        ]


def train(
    out: Path, config: Pretrain, *, place: World = ALONE, delay_s: float = 0.0, die: int | None = None, **flags: bool
) -> Path:
    """Do what a domain's verb does."""
    loader = Loader(place, delay_s=delay_s, die=die)
    with open_run(out, config, world=place, **flags) as run:
        recipe = build(config.recipe, config.seed)
        return fit(recipe, config, run, batches=loader.batches, world=place, held_out=loader.held_out)


def learner(name: str, dropout: float) -> RecipeSpec:
    """The stub, or a small real method: of windows, or with a moving average for a teacher."""
    from core.contract import Contract
    from core.encoders.swinv2 import SwinV2Spec
    from core.encoders.vit import ViTSpec
    from core.maskers.random import Random
    from core.predictors.cross_attention import CrossAttentionSpec
    from core.recipes.latent_mim import LatentMim
    from core.recipes.simmim import Simmim
    from core.teachers.ema import Ema

    contract = Contract(inputs=tuple(INPUTS.values()))
    if name == "simmim":
        shape = {"width": 8, "depths": (3, 2), "heads": (2, 2), "window": (1, 2, 2)}
        encoder = SwinV2Spec(contract=contract, drop_path=dropout, extra_norm_period=2, **shape)
        return Simmim(encoder=encoder, masker=Random(ratio=0.5))
    if name == "latent_mim":
        return LatentMim(
            encoder=ViTSpec(contract=contract, width=8, depth=3, heads=2, drop_path=dropout),
            predictor=CrossAttentionSpec(width=8, depth=2, heads=2),
            teacher=Ema(start=0.5),
        )
    return StubRecipeSpec(encoder=StubSpec(dropout=dropout))


def told(*words: str) -> argparse.Namespace:
    """Parse the words of one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--die", type=int, help="lose power after so many steps, and go on with the next run")
    parser.add_argument("--dropout", type=float, default=0.25)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--auto", action="store_true", help="resume if there is a run")
    parser.add_argument("--recipe", choices=("stub", "simmim", "latent_mim"), default="stub")
    parser.add_argument("--shard", choices=("none", "full"), default="none")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--accumulate", type=int, default=1)
    return parser.parse_args(words)


def _runs(words: Sequence[str]) -> Iterator[list[str]]:
    """Split `out1 --steps=6 then out2 --resume` into the words of each run."""
    run: list[str] = []
    for word in (*words, "then"):
        if word == "then":
            yield run
            run = []
        else:
            run.append(word)


def train_as(given: argparse.Namespace, place: World = ALONE) -> None:
    """Make one run."""
    resume = given.resume or (given.auto and (given.out / "config.yaml").exists())
    config = pretrain(given.steps, recipe=learner(given.recipe, given.dropout))
    how = replace(config.how, shard=given.shard, checkpoint_activations=given.recompute)
    config = replace(config, how=how, optim=replace(config.optim, accumulate=given.accumulate))
    with suppress(PowerError):
        train(given.out, config, place=place, delay_s=given.delay, die=given.die, resume=resume)


def main() -> None:
    """Train one run after another in this process: what the tests start with `python` or `torchrun`, signal and kill."""
    runs = [told(*words) for words in _runs(sys.argv[1:])]
    torch.set_num_threads(1)
    try:
        with world("cpu") as place:
            for given in runs:
                train_as(given, place)
    except HalfseenError as error:
        raise SystemExit(f"error: {error}") from None
    except Preempted:
        leave(EXIT_CODE)
    leave(0)


if __name__ == "__main__":
    main()
