"""Train, draw and report: what every domain's `pretrain` does with a config and its images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from core.batch import Batch
from core.checkpoint import publish_text
from core.cli import Options
from core.engine.config import Pretrain
from core.engine.distributed import world as join_world
from core.engine.loop import build, fit
from core.engine.run_folder import RunFolder, open_run
from core.errors import ConfigError
from core.pictures import Pictures
from core.recipes.base import Recipe
from core.report import write_report
from core.report.words import counted
from core.resize import finer
from core.viz import save_panels
from datasets import Manifest, StreamSpec, TileLoader, split_groups
from domains.verbs.collection import collect, say
from domains.verbs.domain import Domain
from domains.verbs.reports import FILE as TOKENIZER
from domains.verbs.reports import Read, beside, own_tokenizer, told

HELD_OUT_BATCH = 32
PICTURED = 6  # held-out images that the report shows, per kind


def run(domain: Domain, config: Pretrain, options: Options) -> Path:
    """Train, draw and report; what is refused, an image or a recipe, is refused before the run folder exists."""
    config.data.check_reports(config.recipe)
    with join_world(config.how.device) as world, TemporaryDirectory() as scratch:
        manifest, what = world.on_main(
            lambda: collect(
                domain,
                config.data.paths,
                group=config.data.group,
                options=config.data.options,
                allow_outside=config.data.allow_outside,
            )
        )
        config = _with_images_left(config, manifest)
        manifest = split_groups(manifest, config.data.held_out, config.seed)
        config = domain.resolve(config, manifest)
        tokenizer = world.on_main(lambda: own_tokenizer(config, manifest, options.out, resume=options.resume))
        say(f"{what}{_apart(manifest)}; {counted(len(manifest.rows(split='held_out')), 'image')} held out")
        loader = TileLoader(
            manifest,
            streams(config),
            seed=config.seed,
            workers=config.how.workers,
            worker_kind=config.how.worker_kind,
            timeout_s=config.how.batch_timeout_s,
            rank=world.rank,
            world_size=world.size,
            bad_samples=config.data.bad_samples,
            bad_budget=config.data.bad_budget,
            quarantine=options.out / "quarantine.jsonl",
        )
        spec = told(config.recipe, tokenizer, Path(scratch))
        recipe, read = build(spec, config.seed), beside(config, spec, manifest)
        with open_run(options.out, config, world=world, resume=options.resume, overwrite=options.overwrite) as folder:
            world.on_main(lambda: _record(folder, manifest, tokenizer))
            held_out = (lambda: read(_held_out(loader))) if config.data.held_out else None
            fit(recipe, config, folder, batches=lambda *s: read(loader.batches(*s)), held_out=held_out, world=world)
            pictures = _draw(recipe, loader, read)
            world.on_main(lambda: _report(domain, options, config, pictures, what))
    return options.out


def _with_images_left(config: Pretrain, manifest: Manifest) -> Pretrain:
    """Hold nothing out of a collection of one group, such as a single scene: whatever is held out would be all of it."""
    alone = len(set(manifest.column("group"))) == 1 and set(manifest.column("split")) == {None}
    if not alone or not config.data.held_out:
        return config
    say("one group of images only: nothing is held out, and no validation loss is measured")
    return replace(config, data=replace(config.data, held_out=0.0))


def streams(config: Pretrain) -> list[StreamSpec]:
    """Describe to the loader what the streams of a config read, at the detail that its recipe asks for."""
    inputs = {entry.name: finer(entry, config.recipe.detail) for entry in config.recipe.encoder.contract.inputs}
    return [
        StreamSpec(
            input=inputs[stream.input],
            batch_size=stream.batch_size,
            turns=stream.turns,
            scale=stream.scale,
            flips=stream.flips,
            crop=stream.crop,
            tiles=stream.tiles,
        )
        for stream in config.data.streams
    ]


def _held_out(loader: TileLoader) -> Iterator[Batch]:
    for name in loader.streams:
        yield from loader.held_out(name, HELD_OUT_BATCH)


def _record(folder: RunFolder, manifest: Manifest, tokenizer: str | None) -> None:
    """Keep the manifest, and the tokenizer that was made from it; a run that goes on must see the same images.

    Raises:
        ConfigError: images, groups, split or labels are not those that the run began with.
    """
    path = folder.path / "data.parquet"
    if folder.resuming and path.exists():
        before = Manifest.read(path)
        if before.digest != manifest.digest:
            raise ConfigError(
                f"expected the images that the run in {folder.path} began with ({len(before)}), got others "
                f"({len(manifest)}): restore them, or start a new run with another --out."
            )
    else:
        manifest.write(path)
    if tokenizer is not None:
        publish_text(folder.path / TOKENIZER, tokenizer)


def _draw(recipe: Recipe, loader: TileLoader, read: Read) -> list[Pictures]:
    """Picture held-out images, on every rank at once: a recipe's loss is a sum over ranks."""
    recipe.eval()
    device = next(recipe.parameters()).device
    pictures: list[Pictures] = []
    with torch.no_grad():
        for name in loader.streams:
            for batch in read(loader.held_out(name, PICTURED, limit=PICTURED)):
                batch = batch.to(device)
                shown = recipe(batch, batch.rng, pictures=True).pictures
                pictures += [shown] if shown is not None else []
    return pictures


def _report(domain: Domain, options: Options, config: Pretrain, pictures: list[Pictures], what: str) -> None:
    if pictures:
        save_panels(options.out / "figures", pictures, contract=config.recipe.encoder.contract, step=config.steps)
    title = f"{domain.title}, preset {options.preset}" if options.preset else domain.title
    drawn = "" if config.data.paths else domain.samples.announcement
    write_report(
        options.out,
        title=title,
        notes=[f"{what.removeprefix(drawn).strip()}."],
        warnings=[drawn] if drawn else [],
        command=["python", *sys.orig_argv[1:]],
    )


def _apart(manifest: Manifest) -> str:
    """Say how many images a list's own splits leave out of training and validation."""
    counts = {entry["values"]: entry["counts"] for entry in manifest.table["split"].value_counts().to_pylist()}
    return "".join(
        f"; {counted(count, 'image')} of split '{name}' left alone"
        for name, count in counts.items()
        if name not in ("train", "held_out")
    )
