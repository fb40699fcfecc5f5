"""Small inputs, encoders and ragged batches that the contracts examine parts with."""

from __future__ import annotations

import atexit
import os
import tempfile
import typing
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from core import registry
from core.bands import BandNames
from core.batch import Batch
from core.checkpoint import export_encoder
from core.config import digest
from core.contract import Contract, Input, Normalisation
from core.encoders.base import EncoderSpec
from core.encoders.convnet import ConvNetSpec
from core.encoders.vit import ViTSpec
from core.maskers.random import Random
from core.predictors.base import PredictorSpec
from core.predictors.transformer import TransformerSpec
from core.projection import ProjectionSpec
from core.recipes.base import Recipe, RecipeSpec
from core.recipes.ibot import Distillation
from core.resize import finer
from core.rng import key
from core.teachers.base import TeacherSpec
from core.teachers.ema import Ema
from core.testing.texts import with_texts, write_tokenizer
from core.text.model import TextSpec
from core.views import Augment

SCENE = Input(
    name="scene",
    bands=("blue", "green", "red", "nir", "swir1", "swir2"),
    patch=(8, 8),
    size=(32, 48),
    spacing=(10.0, 10.0),
    unit="m",
    normalisation=Normalisation(method="fixed", mean=(0.1,) * 6, std=(1 / 1.5,) * 6),
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


def encoder_spec(*entries: Input) -> ViTSpec:
    """Describe a tiny encoder of the given inputs; none = all of them."""
    return ViTSpec(contract=Contract(inputs=entries or tuple(INPUTS.values())), width=24, depth=2, heads=2)


def narrowed(entry: Input, name: str, bands: BandNames) -> Input:
    """Give an input of another name that has some of the bands, each with its own value space."""
    space = entry.normalisation
    if space.mean:
        at = [entry.bands.index(band) for band in bands]
        space = replace(space, mean=tuple(space.mean[i] for i in at), std=tuple(space.std[i] for i in at))
    return replace(entry, name=name, bands=bands, normalisation=space)


def grouped(entry: Input) -> Input:
    """Give the same input with its bands in two groups of unequal size; one band alone is a group of its own."""
    cut = max(len(entry.bands) // 3, 1)
    return replace(entry, groups=tuple(group for group in (entry.bands[:cut], entry.bands[cut:]) if group))


def recipe_spec(name: str, *entries: Input) -> RecipeSpec:
    """Describe any recipe of the folder at tiny size: its networks are filled in, the rest is its default."""
    part = registry.get("recipes", name)
    inputs = entries or tuple(INPUTS.values())
    if name == "multimae":
        inputs = tuple(grouped(entry) for entry in inputs)
    return tiny(filled(part, encoder_for(name, inputs), TransformerSpec(width=16, depth=1, heads=2)))


def learner_spec(name: str, entry: Input) -> RecipeSpec:
    """Describe any recipe at a size that learns something in seconds, for one input."""
    part = registry.get("recipes", name)
    inputs = (grouped(entry) if name == "multimae" else entry,)
    contract = Contract(inputs=inputs)
    encoder: EncoderSpec = ViTSpec(contract=contract, width=48, depth=3, heads=3)
    if name == "spark":
        encoder = ConvNetSpec(contract=contract, widths=(16, 32, 48), depths=(1, 1, 1))
    made: Any = tiny(filled(part, encoder, TransformerSpec(width=32, depth=1, heads=2)))
    short: dict[str, Any] = {}
    if name in ("ibot", "attmask"):
        # momenta for a million steps would leave the teacher where it began, and its centres behind what they follow, so
        # that all patches together jump from prototype to prototype; there is no time for a temperature that rises; few
        # prototypes for few images; views that are large enough for a wave
        short["teacher"] = Ema(start=0.9, end=1.0)
        short["head"] = ProjectionSpec(hidden=64, bottleneck=32, num_prototypes=32)
        short["distillation"] = Distillation(teacher_temperature=(0.04, 0.04), centre_momentum=0.5)
        short["views"] = Augment(scale=(0.5, 1.0))
    if name == "latent_mim":
        # the momentum as above; of 16 tokens a tenth is one, from which no other can be told
        short["teacher"] = Ema(start=0.95, end=1.0)
        short["masker"] = Random(ratio=0.75)
    if name == "dmae":
        short["distil_weight"] = 0.1  # the teacher here has random weights: it may not drown the pixels
    if name == "localmim":
        # histograms of 2 and 4 pixels are noise, and take most of the time
        short["scales"], short["levels"] = (1.0, 0.5), (2, 3)
    spec: RecipeSpec = replace(made, **short)
    return spec


def encoder_for(name: str, inputs: tuple[Input, ...]) -> EncoderSpec:
    """Describe the tiny encoder that a recipe is examined with."""
    if name == "spark":
        return ConvNetSpec(contract=Contract(inputs=inputs), widths=(8, 12, 16), depths=(1, 1, 1))
    return encoder_spec(*inputs)


def filled(
    part: type[Any], encoder: EncoderSpec, predictor: PredictorSpec, teacher: TeacherSpec | None = None
) -> RecipeSpec:
    """Build a recipe's spec from its required fields, by their types: encoder, predictor, teacher, vocabulary."""
    hints = typing.get_type_hints(part)
    makers: dict[Any, Any] = {
        EncoderSpec: lambda: encoder,
        PredictorSpec: lambda: predictor,
        TeacherSpec: lambda: teacher or teacher_of(encoder),
    }
    required = [f.name for f in fields(part) if f.default is MISSING and f.default_factory is MISSING]
    given = {field: makers[hints[field]]() for field in required}
    if hints.get("text") is TextSpec:
        file = str(write_tokenizer(_folder() / "tokenizer.json"))
        given["text"] = TextSpec(tokenizer=file)
    spec: RecipeSpec = part(**given)
    return spec


def tiny(spec: RecipeSpec) -> RecipeSpec:
    """Make small what a recipe has of its own beside the encoder and the predictor: its head, its text branch."""
    known: Any = spec
    small: dict[str, Any] = {}
    if hasattr(spec, "head"):
        small["head"] = ProjectionSpec(hidden=32, bottleneck=16, num_prototypes=64)
    if hasattr(spec, "text"):
        small["text"] = replace(known.text, width=12, depth=1, heads=2, inner=24, length=16)
    made: RecipeSpec = replace(known, **small)
    return made


@cache
def _folder() -> Path:
    """Keep what the samples write until the interpreter ends."""
    folder = tempfile.TemporaryDirectory(prefix="halfseen-samples-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def teacher_of(encoder: EncoderSpec) -> TeacherSpec:
    """Store an encoder like the given one, with weights of its own, and describe it as a frozen teacher."""
    from core.teachers.frozen import Frozen

    folder = _folder() / f"teacher-{digest(encoder)}-{os.getpid()}"
    if not folder.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            export_encoder(encoder.build(), folder, about={})
    return Frozen(path=str(folder))


def ragged_batch(entry: Input, seed: int = 0) -> Batch:
    """Make four samples: whole; a missing corner that cuts patches; a missing or speckled band; no data at all.

    The first band of the third sample is missing altogether where there are 14 bands, and speckled elsewhere.
    """
    draw = torch.Generator().manual_seed(seed)
    image = torch.randn(4, len(entry.bands), *entry.size, generator=draw)
    valid = torch.ones_like(image, dtype=torch.bool)
    # the far corner, so that the padded slots of a ragged sample point at hidden tokens and not at missing ones
    corner = tuple(slice(s // 2 - 3, s) for s in entry.size)
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


def batch_for(recipe: Recipe, entry: Input, seed: int = 0) -> Batch:
    """Make the same four samples as a recipe's loader would give them: at its detail, with reports where it reads them."""
    batch = ragged_batch(finer(entry, recipe.detail), seed)
    return with_texts(batch, seed=seed) if hasattr(recipe, "text") else batch
