"""Pretrain a retina encoder on photographs, volumes, or both at once, without labels.

    python -m domains.retina.pretrain tiny --data photographs/ volumes/ --out runs/mine

Ends in a run folder with report.html (losses, reconstructions) and encoder/ (what `core.load_encoder` reads).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from core.batch import Batch
from core.checkpoint import publish_text
from core.cli import Options, pretrain_main
from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.engine.config import Data, How, Optim, Pretrain, Stream
from core.engine.distributed import world as join_world
from core.engine.loop import build, fit
from core.engine.run_folder import RunFolder, open_run
from core.errors import ConfigError
from core.pictures import Pictures
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe
from core.recipes.mae import Mae
from core.recipes.uni4eye import Uni4Eye
from core.report import write_report
from core.resize import finer
from core.viz import save_panels
from datasets import Manifest, StreamSpec, TileLoader, split_groups
from domains.retina import domain
from domains.retina.collection import collect, resolve, say
from domains.retina.reports import FILE as TOKENIZER
from domains.retina.reports import Read, beside, own_tokenizer, told

HELD_OUT_BATCH = 32
PICTURED = 6  # held-out images that the report shows, per kind


def tiny() -> Pretrain:
    """Learn something on a laptop: 2.9 M parameters, photographs 128 px and volumes 32^3, both branches, 4 CPU minutes.

    python -m domains.retina.pretrain tiny --data PATH --out runs/tiny

    Hardware: 2 CPU cores, 2 GiB. Expect: the fixed-mask validation loss falls in the first hundred steps, and frozen
    features beat random weights on lesions. Photographs get five steps for one of volumes, which are learnt sooner.
    Source: the parts of Uni4Eye (arXiv 2203.04614) at the smallest size that learns.
    """
    return Pretrain(
        recipe=Uni4Eye(
            encoder=_encoder(192, 6, 3, photograph=(128, 16, 256), volume=((32, 32, 32), (8, 8, 8))),
            predictor=TransformerSpec(width=96, depth=1, heads=3),
        ),
        data=_data(photographs=32, volumes=32, scale=(0.1, 0.6), turns=5),
        optim=Optim(lr=1.5e-3, warmup_steps=90, clip_norm=1.0),
        steps=900,
        how=How(validate_every=100, save_every=300, log_every=50),
    )


def small() -> Pretrain:
    """Train ViT-S/16 at 224 px with the MAE recipe: one GPU, half a day for 100,000 photographs.

    python -m domains.retina.pretrain small --data PATH --out runs/small

    Hardware: one 24 GB GPU. Cost: 100,000 steps of 256 images at 9.1 GFLOP each (forward and backward).
    Source: MAE (arXiv 2111.06377) with the encoder of DeiT-S; decoder 4 x 192.
    """
    return _mae(_encoder(384, 12, 6), TransformerSpec(width=192, depth=4, heads=3), batch=256, steps=100_000)


def base() -> Pretrain:
    """Train ViT-B/16 at 224 px with the MAE recipe as published: 8 GPUs, about a day for 800,000 photographs.

    torchrun --nproc-per-node=8 -m domains.retina.pretrain base --data PATH --out runs/base

    Hardware: 8 x 40 GB. Cost: 58 GFLOP per image (forward and backward), decoder 8 x 512 included.
    Source: MAE (arXiv 2111.06377), base size.
    """
    return _mae(_encoder(768, 12, 12), TransformerSpec(width=512, depth=8, heads=16), batch=1024, steps=200_000)


def large() -> Pretrain:
    """Train ViT-L/16 at 224 px as RETFound was: 8 A100-40GB for about two weeks on 900,000 photographs.

    torchrun --nproc-per-node=8 -m domains.retina.pretrain large --data PATH --out runs/large

    Cost: 124 GFLOP per image (forward and backward); the published training was put at 10,000 dollars.
    Source: RETFound (Zhou et al. 2023, doi 10.1038/s41586-023-06555-x): MAE ViT-L/16, batch 1792, 800 epochs, warm-up 15.
    Deviations: from random weights, not from ImageNet's; the disc alone is data, and its own normalisation.
    """
    encoder = _encoder(1024, 24, 16)
    return _mae(encoder, TransformerSpec(width=512, depth=8, heads=16), batch=1792, steps=400_000, warmup=7_500)


def uni4eye_large() -> Pretrain:
    """Train ViT-L/16 on photographs and OCT volumes in turn, image and gradient branches: 8 x 80 GB, about a week.

    torchrun --nproc-per-node=8 -m domains.retina.pretrain uni4eye_large --data PHOTOGRAPHS VOLUMES --out runs/uni4eye

    Cost: 160 GFLOP per photograph, 450 per volume of 64 x 224 x 224 (forward and backward, two decoders).
    Source: Uni4Eye (Cai et al. 2022, arXiv 2203.04614): ViT-L, patches 16 and 16^3, mask 0.75, decoder 512 x 8, rates
    1e-3 per 256 images, warm-up 40 of 200 epochs. Deviations: kinds take turns by steps, not by epochs; volumes 64 slices.
    """
    encoder = _encoder(1024, 24, 16, photograph=(224, 16, 224), volume=((64, 224, 224), (16, 16, 16)))
    return Pretrain(
        recipe=Uni4Eye(encoder=encoder, predictor=TransformerSpec(width=512, depth=8, heads=16)),
        data=_data(photographs=512, volumes=64),
        optim=Optim(lr=2e-3, warmup_steps=40_000, clip_norm=3.0),
        steps=200_000,
        how=How(workers=8, save_every=2000, validate_every=2000, log_every=100),
    )


PRESETS = {"tiny": tiny, "small": small, "base": base, "large": large, "uni4eye_large": uni4eye_large}


def _encoder(
    width: int,
    depth: int,
    heads: int,
    *,
    photograph: tuple[int, int, int] = (224, 16, 224),
    volume: tuple[tuple[int, int, int], tuple[int, int, int]] = ((32, 128, 128), (8, 16, 16)),
) -> ViTSpec:
    inputs = (domain.photograph(*photograph), domain.volume(*volume))
    return ViTSpec(contract=Contract(inputs=inputs), width=width, depth=depth, heads=heads)


def _data(*, photographs: int, volumes: int, scale: tuple[float, float] = (0.2, 1.0), turns: int = 1) -> Data:
    return Data(
        streams=(
            Stream(input="photograph", batch_size=photographs, turns=turns, scale=scale, flips=domain.PHOTOGRAPH_FLIPS),
            Stream(input="volume", batch_size=volumes, flips=domain.VOLUME_FLIPS),
        )
    )


def _mae(
    encoder: ViTSpec, predictor: TransformerSpec, *, batch: int, steps: int, warmup: int | None = None
) -> Pretrain:
    """MAE as published: rate 1.5e-4 per 256 images, warm-up of 1/20 of the steps."""
    return Pretrain(
        recipe=Mae(encoder=encoder, predictor=predictor),
        data=_data(photographs=batch, volumes=max(batch // 8, 8)),
        optim=Optim(lr=1.5e-4 * batch / 256, warmup_steps=warmup or steps // 20),
        steps=steps,
        how=How(workers=8, save_every=2000, validate_every=2000, log_every=100),
    )


def run(config: Pretrain, options: Options) -> Path:
    """Train, draw and report; what is refused, an image or a recipe, is refused before the run folder exists."""
    config.data.check_reports(config.recipe)
    with join_world(config.how.device) as world, TemporaryDirectory() as scratch:
        manifest, what = world.on_main(
            lambda: collect(
                config.data.paths,
                group=config.data.group,
                options=config.data.options,
                allow_outside=config.data.allow_outside,
            )
        )
        manifest = split_groups(manifest, config.data.held_out, config.seed)
        config = resolve(config, manifest)
        tokenizer = world.on_main(lambda: own_tokenizer(config, manifest, options.out, resume=options.resume))
        say(f"{what}; {len(manifest.rows(split='held_out'))} images held out")
        loader = TileLoader(
            manifest,
            _streams(config),
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
            world.on_main(lambda: _report(options, config, pictures, what))
    return options.out


def _streams(config: Pretrain) -> list[StreamSpec]:
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


def _report(options: Options, config: Pretrain, pictures: list[Pictures], what: str) -> None:
    if pictures:
        save_panels(options.out / "figures", pictures, contract=config.recipe.encoder.contract, step=config.steps)
    title = f"Retina, preset {options.preset}" if options.preset else "Retina"
    write_report(options.out, title=title, notes=[what], command=["python", *sys.orig_argv[1:]])


if __name__ == "__main__":
    pretrain_main(PRESETS, run, __doc__ or "", default_preset="tiny")
