"""Every recipe at one compute budget on four real sets: what its frozen features are worth, what a step costs.

    python -m benchmarks.recipes --data ../shared/data --seconds 120 --out docs/recipes_measured.md

Each run is a process of its own with one thread: pretraining for `--seconds` of its own CPU time (reading excluded), then
k-NN and a linear probe on the frozen encoder, by cross-validation with intervals. ViT-tiny (width 192, depth 6), decoder
2 x 128, one optimiser for all recipes, no setting tuned for any. Finished runs are kept in `--json` and not repeated.
`--options target.normalise=none` changes the recipes of one call, and their rows say so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import machine
from benchmarks.recipe_sets import SETS, RecipeSet, crops, load, whole
from core import registry
from core.checkpoint import export_encoder
from core.config import override
from core.contract import Contract, Input
from core.encoders.base import Backbone, EncoderSpec
from core.encoders.convnet import ConvNetSpec
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.engine.config import Optim
from core.engine.optim import decay_groups, make_optimizer, set_learning_rate
from core.engine.schedule import learning_rate
from core.errors import ConfigError
from core.evaluate import LinearProbe, NearestNeighbours, evaluate, pixel_statistics
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe, RecipeSpec
from core.rng import key
from core.teachers.frozen import Frozen
from core.testing.samples import filled
from core.weights import Placement

RANDOM, PIXELS = "random weights", "pixel statistics"
TEACHER = "mae"  # whose encoder teaches the recipes that want a frozen teacher; its own training is not counted
OPTIM = Optim(lr=1e-3, warmup_steps=0, clip_norm=1.0)
WIDTH, DEPTH, HEADS = 192, 6, 3
CONV_WIDTHS, CONV_DEPTHS = (80, 160, 304), (2, 4, 2)  # of `spark`: as many parameters as the ViT, 2.7 M
WARM_STEPS = 3


def main() -> int:
    options = _options()
    if options.one:
        print(json.dumps(_one(*options.one, options)))
        return 0
    names = options.only.split(",") if options.only else [RANDOM, PIXELS, *registry.names("recipes")]
    names.sort(key=lambda name: (name != TEACHER, name))  # the teacher first
    done = _finished(options.json)
    wanted = [(name, where) for name in names for where in options.sets.split(",")]
    todo = [(name, where) for name, where in wanted if (_titled(name, options.options), where) not in done]
    with ThreadPoolExecutor(options.jobs) as pool:
        first = [pair for pair in todo if pair[0] == TEACHER]
        for group in (first, [pair for pair in todo if pair[0] != TEACHER]):
            for record in pool.map(lambda pair: _apart(*pair, options), group):
                if "failed" not in record:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
                print(_line(record), file=sys.stderr, flush=True)
    options.out.write_text(_page(_finished(options.json), options), encoding="utf-8")
    print(options.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets by domain")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of training steps in each run")
    parser.add_argument("--sets", default=",".join(SETS), help="comma-separated names of sets")
    parser.add_argument(
        "--only", default="", help="comma-separated names of recipes; none = every one and the baselines"
    )
    parser.add_argument("--batch", type=int, default=64, help="images of a step")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="FIELD=VALUE", help="of the recipes, as typed for pretrain"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("runs/recipes.jsonl"), help="one line for each finished run")
    parser.add_argument("--keep", type=Path, default=Path("runs/recipes"), help="where encoders are kept")
    parser.add_argument("--out", type=Path, default=Path("docs/recipes_measured.md"), help="the table")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "SET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    (options.keep / TEACHER).mkdir(parents=True, exist_ok=True)
    return options


def _finished(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {(record["recipe"], record["set"]): record for record in records}


def _titled(name: str, options: Sequence[str]) -> str:
    """Name a run by its recipe and what was changed of it; the baselines have nothing that could be."""
    return name if name in (RANDOM, PIXELS) or not options else f"{name}, {' '.join(options)}"


def _apart(name: str, where: str, options: argparse.Namespace) -> dict[str, Any]:
    """Make one run in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.recipes", "--one", name, where, "--data", str(options.data)]
    command += ["--seconds", str(options.seconds), "--seed", str(options.seed), "--keep", str(options.keep)]
    command += ["--threads", str(options.threads), "--batch", str(options.batch)]
    command += ["--options", *options.options] if options.options else []
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, check=False)
    if done.returncode:
        title = _titled(name, options.options)
        return {"recipe": title, "set": where, "failed": done.stderr.strip().splitlines()[-1]}
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def _one(name: str, where: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    data = load(where, options.data)
    record: dict[str, Any] = {"recipe": _titled(name, options.options), "set": where}
    record |= {"seconds": options.seconds, "threads": options.threads, "batch": options.batch}
    if name == PIXELS:
        features = np.concatenate([pixel_statistics(batch).numpy() for batch in _batches(data, data.entry)])
        return record | _scores(features, data, options.seed)
    torch.manual_seed(key(options.seed, "weights"))
    if name == RANDOM:
        features = _features(encoder_of(data.entry).build(), data)
        return record | _scores(features, data, options.seed)
    try:
        spec = recipe_of(name, data.entry, options.keep / TEACHER / where)
        recipe = override(spec, dict(option.split("=", 1) for option in options.options)).build()
    except ConfigError as error:
        return record | {"impossible": str(error)}
    record |= train(recipe, data, options)
    features = _features(recipe.kept(), data)
    record["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if name == TEACHER and not options.options:
        export_encoder(recipe.kept(), options.keep / TEACHER / where, about={})
    return record | _scores(features, data, options.seed)


def encoder_of(entry: Input) -> ViTSpec:
    """Describe the encoder of the comparison."""
    return ViTSpec(contract=Contract(inputs=(entry,)), width=WIDTH, depth=DEPTH, heads=HEADS)


def recipe_of(name: str, entry: Input, teacher: Path) -> RecipeSpec:
    """Describe a recipe with its own defaults, the encoder and decoder of the comparison, and a frozen teacher.

    Raises:
        ConfigError: the recipe cannot be built for this input.
    """
    if name == "multimae":
        entry = replace(entry, groups=tuple((band,) for band in entry.bands))
    predictor = TransformerSpec(width=128, depth=2, heads=4)
    encoder: EncoderSpec = encoder_of(entry)
    if name == "spark":
        encoder = ConvNetSpec(contract=encoder.contract, widths=CONV_WIDTHS, depths=CONV_DEPTHS)
    return filled(registry.get("recipes", name), encoder, predictor, Frozen(path=str(teacher)))


def train(recipe: Recipe, data: RecipeSet, options: argparse.Namespace) -> dict[str, Any]:
    """Train for the budget: the length of the schedule follows from the first steps' time."""
    recipe.train()
    device = torch.device("cpu")
    optimizer = make_optimizer(decay_groups(recipe.named_parameters(), OPTIM.weight_decay), OPTIM, device)
    entry = recipe.encoder.contract.inputs[0]
    size = tuple(n * recipe.detail for n in entry.size)
    loaded = replace(entry, size=size, patch=tuple(p * recipe.detail for p in entry.patch), whole_size=None)
    spent, step, steps, losses = 0.0, 0, 1_000_000, []
    while step < steps:
        batch = crops(data, loaded, step, options.batch, seed=options.seed)
        began = time.process_time()
        recipe.progress.fill_(min(step / steps, 1.0))
        torch.manual_seed(key(options.seed, "step", step))
        rate = learning_rate(step, peak=OPTIM.lr, warmup_steps=max(steps // 10, 1), steps=steps, final_share=0.0)
        set_learning_rate(optimizer, rate if step >= WARM_STEPS else OPTIM.lr * 0.01)
        optimizer.zero_grad(set_to_none=True)
        loss = recipe(batch, batch.rng).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(recipe.parameters(), OPTIM.clip_norm or 1.0)
        optimizer.step()
        recipe.progress.fill_(min((step + 1) / steps, 1.0))
        if recipe.updated():
            optimizer.state.clear()
        losses.append(float(loss.detach()))
        took = time.process_time() - began
        spent += took
        step += 1
        if step == WARM_STEPS:
            steps = max(int(options.seconds / took), WARM_STEPS + 1)
    return {
        "steps": steps,
        "samples": steps * options.batch,
        "ms_per_sample": round(1e3 * spent / steps / options.batch, 3),
        "first_loss": round(float(np.mean(losses[:5])), 4),
        "last_loss": round(float(np.mean(losses[-20:])), 4),
    }


def _batches(data: RecipeSet, entry: Input) -> Iterator[Any]:
    rows = [int(row) for row in data.score]
    for start in range(0, len(rows), 64):
        yield whole(data, rows[start : start + 64], entry)


def _features(backbone: Backbone, data: RecipeSet) -> np.ndarray:
    placed = Placement(placed=())
    encoder = Encoder(backbone, pool="mean", report=placed).eval()
    entry = backbone.contract.inputs[0]
    with torch.no_grad():
        return np.concatenate([encoder(batch).numpy() for batch in _batches(data, entry)])


def _scores(features: np.ndarray, data: RecipeSet, seed: int) -> dict[str, Any]:
    rows = [int(row) for row in data.score]
    table = evaluate(
        {"features": features},
        [data.labels[row] for row in rows],
        [data.groups[row] for row in rows],
        seed=seed,
        folds=data.folds,
        draws=1000,
        methods=(NearestNeighbours(settings=(10,)), LinearProbe()),
    )
    scores = {row.method: row for row in table.rows if row.metric == "balanced accuracy"}
    return {
        "scores": {
            method: [round(row.value, 4), round(row.low, 4), round(row.high, 4)] for method, row in scores.items()
        }
    }


def _line(record: dict[str, Any]) -> str:
    why = record.get("failed") or record.get("impossible")
    return f"{record['set']:<16} {record['recipe']:<16} {why or record['scores']}"


def _page(records: dict[tuple[str, str], dict[str, Any]], options: argparse.Namespace) -> str:
    """Lay the table out as Markdown: one row per recipe, one block per set, the best of each column not marked."""
    lines = [
        "# Recipes, measured",
        "",
        f"Written by `python -m benchmarks.recipes` on {machine(torch.device('cpu'))} for each run. Every recipe had the same",
        "encoder (ViT, width 192, depth 6; `spark` a convolutional one), the same optimiser and, on each set, the same CPU",
        "seconds of training steps; nothing was tuned for any. Scores are balanced accuracy of frozen features by",
        "cross-validation, with 95 % intervals over the images. `maskalign`, `mr_mae` and `dmae` are taught by the `mae` encoder",
        "of the same set, whose own training is not counted.",
    ]
    notes = {name: load(name, options.data).note for name in options.sets.split(",")}
    for where, note in notes.items():
        rows = [record for record in records.values() if record["set"] == where]
        rows.sort(key=lambda record: -record["scores"][LinearProbe().name][0] if "scores" in record else 1.0)
        budget, batch = (
            "/".join(f"{n:g}" for n in sorted({row[what] for row in rows})) for what in ("seconds", "batch")
        )
        command = f"--sets {where} --seconds {budget} --batch {batch}"
        lines += ["", f"## {where}", "", f"{note[0].upper()}{note[1:]}. `{command}`", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| recipe | linear probe | k-NN | steps | ms per sample | peak MB | loss, first to last |"]
    lines += ["| --- | --- | --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        why = row.get("failed") or row.get("impossible")
        if why:
            lines.append(f"| {row['recipe']} | {why} | | | | | |")
            continue
        linear, near = (row["scores"][name] for name in (LinearProbe().name, NearestNeighbours(settings=(10,)).name))
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in (linear, near)]
        cells += [str(row.get(name, "")) for name in ("steps", "ms_per_sample", "peak_mb")]
        cells.append(f"{row['first_loss']} to {row['last_loss']}" if "first_loss" in row else "")
        lines.append(f"| {row['recipe']} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
