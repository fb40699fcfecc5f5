"""Pretrain a retina encoder on photographs, volumes, or both at once, without labels.

    python -m domains.retina.pretrain tiny --data photographs/ volumes/ --out runs/mine

Ends in a run folder with report.html (losses, reconstructions) and encoder/ (what `core.load_encoder` reads).
"""

from __future__ import annotations

from pathlib import Path

from core.cli import Options, pretrain_main
from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.engine.config import Data, How, Optim, Pretrain, Stream
from core.predictors.transformer import TransformerSpec
from core.recipes.mae import Mae
from core.recipes.uni4eye import Uni4Eye
from domains.retina import domain
from domains.retina.collection import RETINA
from domains.verbs import pretrain


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
    return pretrain.run(RETINA, config, options)


if __name__ == "__main__":
    pretrain_main(PRESETS, run, __doc__ or "", default_preset="tiny")
