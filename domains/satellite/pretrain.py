"""Pretrain an encoder of scenes without labels: bands by name, any sensor, pixels of any size, areas without data.

    python -m domains.satellite.pretrain tiny --data scenes/ --out runs/mine

Data are folders, files or lists of GeoTIFF, Zarr, HDF, Landsat-style band files and photographs. Ends in a run folder with
report.html (losses, reconstructions) and encoder/ (what `core.load_encoder` reads).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.cli import Options, pretrain_main
from core.contract import Contract, Input
from core.encoders.base import EncoderSpec
from core.encoders.cards.fgmae import fgmae_input
from core.encoders.cards.satmae import sentinel2_input
from core.encoders.cards.satvision import Size, satvision_spec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.engine.config import Data, How, Optim, Pretrain, Stream
from core.maskers.cells import Cells
from core.pos_embed import PositionRule
from core.predictors.transformer import TransformerSpec
from core.recipes.fg_mae import FgMae
from core.recipes.mae import Mae
from core.recipes.simmim import Simmim
from datasets import split_groups
from domains.satellite import domain
from domains.satellite.collection import SATELLITE, resolve
from domains.verbs import pretrain
from domains.verbs.collection import collect


def tiny() -> Pretrain:
    """Learn something on a laptop from any scenes: SatVision's method, 2.2 M parameters, crops of 64 px, 5 CPU minutes.

    python -m domains.satellite.pretrain tiny --data PATH --out runs/tiny

    Takes bands, pixel size and value space from the data: all scenes must have the same bands, or name some that they share,
    --bands red,nir; config.yaml records what was found. With --sensor sentinel2_l1c and its --bands, values that are not in
    that sensor's unit are refused.

    Hardware: 2 CPU cores, 2 GiB. Expect: the fixed-mask validation loss falls in the first hundred steps.
    Source: the parts of SatVision-TOA (arXiv 2411.17000) at the smallest size that learns.
    """
    encoder = SwinV2Spec(
        contract=Contract(inputs=(domain.open_scene(64, 4),)),
        width=48,
        depths=(2, 2, 4),
        heads=(2, 4, 8),
        window=(8, 8),
        extra_norm_period=4,
    )
    return Pretrain(
        recipe=_satvision_method(encoder),
        data=_data("scene", 32),
        optim=Optim(lr=1e-3, betas=(0.9, 0.99), warmup_steps=60, clip_norm=5.0),
        steps=600,
        how=How(validate_every=100, save_every=200, log_every=50),
    )


def satvision_base() -> Pretrain:
    """Train SatVision's method with Swin V2-B, 88 M parameters, on 14 bands of MODIS: one GPU, about four days.

    python -m domains.satellite.pretrain satvision_base --data PATH --out runs/base

    Hardware: one 40 GB GPU. Source: SatVision-TOA (arXiv 2411.17000), Swin V2-B (arXiv 2111.09883).
    Deviations: as `satvision_giant`.
    """
    return _satvision("base", batch=256, steps=375_000)


def satvision_huge() -> Pretrain:
    """Train SatVision-TOA huge, 0.65 B parameters: 14 bands of MODIS, 32 GPUs.

    torchrun --nproc-per-node=8 --nnodes=4 ... -m domains.satellite.pretrain satvision_huge --data PATH --out runs/huge

    Hardware: 32 x 80 GB; --plan tells memory and days. Source: SatVision-TOA (arXiv 2411.17000).
    Deviations: as `satvision_giant`.
    """
    return _satvision("huge", batch=2048, steps=47_000)


def satvision_giant() -> Pretrain:
    """Train SatVision-TOA giant, 2.6 B parameters, as published: 14 bands of MODIS at 1 km, 64 or more GPUs.

    torchrun --nproc-per-node=8 --nnodes=8 ... -m domains.satellite.pretrain satvision_giant --data PATH --out runs/giant

    Bands: percent reflectance of B01 B02 B03 B06 B07 B26, brightness temperature in K of B21 B27 to B33.
    Hardware: 64 x 80 GB; --plan tells memory and days.
    Source: SatVision-TOA (Spradlin et al. 2024, arXiv 2411.17000): Swin V2 giant, SimMIM, masked cells of 8 pixels, ratio
    0.6, absolute error of hidden pixels, AdamW (0.9, 0.999) at 3e-4, decay 0.05, 64 images per GPU, 50 epochs of 1.92 M.
    Deviations: crops at the pixels' own size, none is resized; the rate falls along a cosine instead of staying; the
    gradient is clipped at 5, as SimMIM's.
    """
    return _satvision("giant", batch=4096, steps=23_500)


def fgmae_s2() -> Pretrain:
    """Train FG-MAE ViT-B/16 on the 13 bands of Sentinel-2 Level-1C: gradients' orientations and NDVI, NDWI, NDBI.

    torchrun --nproc-per-node=4 -m domains.satellite.pretrain fgmae_s2 --data PATH --out runs/fgmae_s2

    Bands B01 to B12 with B8A as reflectance, 0 to 1; indices are formed by band name. ViT-S: --recipe.encoder.width=384
    --recipe.encoder.heads=6. Hardware: 4 x 40 GB, about a day per 100,000 steps.
    Source: FG-MAE (Wang et al. 2023, arXiv 2310.18653): ratio 0.7, decoder 8 x 512, 1.5e-4 per 256 images, 100 epochs of
    250,000 places. Deviations: crops at 10 m, none is resized; values are not rounded to 8 bit; one predictor gives the
    numbers of both targets.
    """
    return _fgmae(fgmae_input("s2", 16))


def fgmae_s1() -> Pretrain:
    """Train FG-MAE ViT-B/16 on Sentinel-1, VV and VH in dB: gradients' orientations alone.

    torchrun --nproc-per-node=4 -m domains.satellite.pretrain fgmae_s1 --data PATH --out runs/fgmae_s1

    Hardware: 4 x 40 GB, about a day per 100,000 steps. Source: FG-MAE (arXiv 2310.18653), as `fgmae_s2`.
    Deviations: as `fgmae_s2`; values are cut off band by band at two deviations, where the release cuts both bands off at
    quantiles of their mixture.
    """
    return _fgmae(fgmae_input("s1", 16))


def satmae() -> Pretrain:
    """Train SatMAE ViT-L/8 on ten bands of Sentinel-2 in three groups, each with tokens of its own: 8 GPUs.

    torchrun --nproc-per-node=8 -m domains.satellite.pretrain satmae --data PATH --out runs/satmae

    Hardware: 8 x 40 GB; 432 tokens per crop of 96 px, 16 crops at a time on each, summed over 32 slices, as released.
    Source: SatMAE (Cong et al. 2022, arXiv 2207.08051): groups by resolution, tokens hidden independently in each, ratio
    0.75, decoder 8 x 512, 1e-4 per 256 images, batch 4096, 200 epochs of 712,874 images, 20 of warm-up.
    Deviations: crops at 10 m, none is resized; values are not rounded to 8 bit; targets normalised within the token, as
    MAE's; a learned vector of each group besides the code that stands beside its positions.
    """
    entry = sentinel2_input()
    encoder = ViTSpec(
        contract=Contract(inputs=(entry,)), width=1024, depth=24, heads=16, positions=PositionRule(group_channels=256)
    )
    return Pretrain(
        recipe=Mae(encoder=encoder, predictor=TransformerSpec(width=512, depth=8, heads=16)),
        data=_data(entry.name, 4096),
        optim=Optim(lr=1e-4 * 4096 / 256, warmup_steps=3_480, accumulate=32),
        steps=34_800,
        how=_at_scale(),
    )


PRESETS = {
    "tiny": tiny,
    "satvision_base": satvision_base,
    "satvision_huge": satvision_huge,
    "satvision_giant": satvision_giant,
    "fgmae_s2": fgmae_s2,
    "fgmae_s1": fgmae_s1,
    "satmae": satmae,
}


def _satvision_method(encoder: EncoderSpec) -> Simmim:
    """SimMIM with SatVision's cells: 2 x 2 tokens of 4 px, whole ones, 154 of 256 in a crop of 128 px."""
    return Simmim(encoder=encoder, masker=Cells(ratio=0.6, cell_tokens=2, whole_cells=True))


def _satvision(size: Size, *, batch: int, steps: int) -> Pretrain:
    encoder = satvision_spec(size)
    return Pretrain(
        recipe=_satvision_method(encoder),
        data=_data(encoder.contract.inputs[0].name, batch),
        optim=Optim(lr=3e-4, betas=(0.9, 0.999), warmup_steps=steps // 50, clip_norm=5.0),
        steps=steps,
        how=_at_scale() if size == "base" else replace(_at_scale(), shard="full", checkpoint_activations=True),
    )


def _fgmae(entry: Input) -> Pretrain:
    encoder = ViTSpec(contract=Contract(inputs=(entry,)), width=768, depth=12, heads=12)
    return Pretrain(
        recipe=FgMae(encoder=encoder, predictor=TransformerSpec(width=512, depth=8, heads=16)),
        data=_data(entry.name, 256),
        optim=Optim(lr=1.5e-4, warmup_steps=9_800),
        steps=98_000,
        how=_at_scale(),
    )


def _data(name: str, batch: int) -> Data:
    return Data(streams=(Stream(input=name, batch_size=batch, crop="native", flips=domain.FLIPS),))


def _at_scale() -> How:
    return How(workers=8, save_every=1000, validate_every=1000, log_every=100)


def run(config: Pretrain, options: Options) -> Path:
    """Train, draw and report; what is refused, a scene or a recipe, is refused before the run folder exists."""
    return pretrain.run(SATELLITE, config, options)


def fitted(config: Pretrain) -> Pretrain:
    """Give the config as a run on its data would have it; without data, or with nothing open, as it is."""
    if not config.data.paths or not any(map(domain.is_open, config.recipe.encoder.contract.inputs)):
        return config
    data = config.data
    manifest, _ = collect(
        SATELLITE, data.paths, group=data.group, options=data.options, allow_outside=data.allow_outside
    )
    return resolve(config, split_groups(manifest, data.held_out, config.seed))


ALIASES = {
    "bands": "recipe.encoder.contract.inputs.0.bands",
    "sensor": "recipe.encoder.contract.inputs.0.sensor",
}

if __name__ == "__main__":
    pretrain_main(PRESETS, run, __doc__ or "", default_preset="tiny", aliases=ALIASES, prepare=fitted)
