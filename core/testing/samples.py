"""Small inputs, encoders and ragged batches that the contracts examine parts with."""

from __future__ import annotations

import typing
from dataclasses import MISSING, fields
from typing import Any

import torch

from core import registry
from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.base import EncoderSpec
from core.encoders.vit import ViTSpec
from core.predictors.base import PredictorSpec
from core.predictors.transformer import TransformerSpec
from core.recipes.base import RecipeSpec
from core.rng import key

SCENE = Input(
    name="scene",
    bands=("blue", "green", "red", "nir", "swir1", "swir2"),
    patch=(8, 8),
    size=(32, 48),
    spacing=(10.0, 10.0),
    unit="m",
    normalisation=Normalisation(method="per_image"),
)
VOLUME = Input(
    name="volume",
    bands=("intensity",),
    patch=(2, 8, 8),
    size=(8, 32, 32),
    spacing=(5.0, 1.0, 1.0),
    unit="mm",
    normalisation=Normalisation(method="per_image"),
)
CUBE = Input(
    name="cube",
    bands=tuple(f"band{number}" for number in (1, 2, 3, 6, 7, 21, 26, 27, 28, 29, 30, 31, 32, 33)),
    patch=(8, 8),
    size=(32, 32),
    spacing=(1000.0, 1000.0),
    unit="m",
    normalisation=Normalisation(method="per_image"),
)
INPUTS = {entry.name: entry for entry in (SCENE, VOLUME, CUBE)}


def encoder_spec() -> ViTSpec:
    """Describe a tiny encoder of all inputs."""
    return ViTSpec(contract=Contract(inputs=tuple(INPUTS.values())), width=24, depth=2, heads=2)


def recipe_spec(name: str) -> RecipeSpec:
    """Describe any recipe of the folder at tiny size: encoders and predictors are filled in, the rest is its default."""
    part = registry.get("recipes", name)
    hints = typing.get_type_hints(part)
    tiny: dict[Any, Any] = {EncoderSpec: encoder_spec(), PredictorSpec: TransformerSpec(width=16, depth=1, heads=2)}
    required = [f.name for f in fields(part) if f.default is MISSING and f.default_factory is MISSING]
    spec: RecipeSpec = part(**{field: tiny[hints[field]] for field in required})
    return spec


def ragged_batch(entry: Input, seed: int = 0) -> Batch:
    """Make four samples: whole; a missing corner that cuts patches; a missing or speckled band; no data at all.

    The first band of the third sample is missing altogether where there are 14 bands, and speckled elsewhere.
    """
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(4, len(entry.bands), *entry.size, generator=draw)
    valid = torch.ones_like(image, dtype=torch.bool)
    corner = tuple(slice(0, s // 2 + 3) for s in entry.size)
    valid[1][(slice(None), *corner)] = False
    valid[2, 0] = torch.rand(entry.size, generator=draw) > (1.0 if len(entry.bands) == 14 else 0.3)
    valid[3] = False
    return Batch(
        image=image,
        valid=valid,
        bands=entry.bands,
        spacing=torch.tensor(entry.spacing).expand(4, -1) * torch.tensor([[1.0], [1.0], [0.8], [1.0]]),
        unit=entry.unit,
        offset=torch.full((4, len(entry.bands)), 0.1),
        scale=torch.full((4, len(entry.bands)), 1.5),
        key=torch.tensor([key(seed, "contract", i) for i in range(4)]),
        index=torch.arange(4),
        row=torch.arange(4),
    )
