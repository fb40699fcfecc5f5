"""Presets of an imaginary domain, on the real parts."""

from __future__ import annotations

from core.contract import Contract, Input, Normalisation
from core.encoders.vit import ViTSpec
from core.engine.config import Data, Optim, Pretrain, Stream
from core.predictors.transformer import TransformerSpec
from core.recipes.mae import Mae


def _mae(size: int, patch: int, encoder: tuple[int, int, int], predictor: tuple[int, int, int]) -> Mae:
    entry = Input(
        name="photograph",
        bands=("red", "green", "blue"),
        patch=(patch, patch),
        size=(size, size),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    names = ("width", "depth", "heads")
    return Mae(
        encoder=ViTSpec(contract=Contract(inputs=(entry,)), **dict(zip(names, encoder, strict=True))),  # type: ignore[arg-type]
        predictor=TransformerSpec(**dict(zip(names, predictor, strict=True))),  # type: ignore[arg-type]
    )


def tiny() -> Pretrain:
    """Minutes on 2 cores: a small ViT on 64-pixel crops.

    Cost: none worth naming. Source: nobody.
    """
    return Pretrain(
        recipe=_mae(64, 8, (32, 2, 2), (32, 1, 2)),
        data=Data(streams=(Stream(input="photograph", batch_size=16, flips=(True, True)),)),
        optim=Optim(lr=1e-3, warmup_steps=10),
        steps=100,
    )


def base() -> Pretrain:
    """Hours on a card: ViT-B/16 at 224 pixels, decoder 8 x 512."""
    return Pretrain(
        recipe=_mae(224, 16, (768, 12, 12), (512, 8, 16)),
        data=Data(streams=(Stream(input="photograph", batch_size=64, flips=(True, True)),)),
        optim=Optim(lr=1e-3, warmup_steps=10, accumulate=4),
        steps=1000,
    )
