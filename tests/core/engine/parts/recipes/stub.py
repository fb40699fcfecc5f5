"""A recipe that predicts hidden patches from noisy ones, and can be told to fail on chosen rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from core.batch import Batch
from core.encoders.base import Backbone, EncoderSpec
from core.encoders.stub import StubSpec
from core.losses import masked_mean, squared
from core.recipes.base import Recipe, RecipeSpec, StepOutput
from core.rng import SampleRng
from core.shapes import patchify


@dataclass(frozen=True, kw_only=True)
class StubRecipeSpec(RecipeSpec):
    """Describe it.

    Attributes:
        encoder: any.
        noise: amplitude of what is added to the input.
        poison: rows of the manifest that turn the loss into NaN.
    """

    encoder: EncoderSpec = field(default_factory=StubSpec)
    noise: float = 0.5
    poison: tuple[int, ...] = ()

    def build(self) -> StubRecipe:
        return StubRecipe(self)


class StubRecipe(Recipe):
    def __init__(self, spec: StubRecipeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = spec.encoder.build()
        inputs = self.encoder.contract.inputs
        self.heads = nn.ModuleDict({e.name: nn.Linear(spec.encoder.width, 2 ** len(e.patch)) for e in inputs})

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        batch, entry = self.encoder.prepare(batch)
        target = patchify(batch.image, entry.patch)
        hide = rng.split("mask").uniform(target.shape[1]) < 0.5
        noisy = batch.image + self.spec.noise * rng.split("noise").uniform(*batch.image.shape[1:])
        tokens = self.encoder(type(batch)(**(vars(batch) | {"image": noisy})))
        weight = hide[..., None] & patchify(batch.valid, entry.patch)
        loss = masked_mean(squared(self.heads[entry.name](tokens.value), target), weight)
        if self.spec.poison and torch.isin(batch.row, torch.tensor(self.spec.poison)).any():
            loss = loss * float("nan")
        return StepOutput(loss, {"image": loss.detach()})

    def updated(self) -> bool:
        return False

    def kept(self) -> Backbone:
        return self.encoder
