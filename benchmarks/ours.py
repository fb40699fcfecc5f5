"""The same MAE step by halfseen: `core.recipes.mae` on a `Batch`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.sizes import Work
from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.vit import ViTSpec
from core.maskers.random import Random
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe
from core.recipes.mae import Mae
from core.rng import key
from core.targets.pixels import Pixels

BANDS = ("red", "green", "blue")


def recipe(work: Work) -> Recipe:
    """Build our MAE for a work; pixels as they are, like the peers' default loss."""
    entry = Input(
        name="photograph",
        bands=BANDS,
        patch=(work.patch, work.patch),
        size=(work.image, work.image),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    encoder = ViTSpec(contract=Contract(inputs=(entry,)), width=work.width, depth=work.depth, heads=work.heads)
    predictor = TransformerSpec(width=work.decoder_width, depth=work.decoder_depth, heads=work.decoder_heads)
    return Mae(
        encoder=encoder, predictor=predictor, masker=Random(ratio=work.ratio), target=Pixels(normalise="none")
    ).build()


def batch_of(images: Tensor) -> Batch:
    """Wrap normalised images, all of them valid."""
    count = len(images)
    return Batch(
        image=images,
        valid=torch.ones_like(images, dtype=torch.bool),
        bands=BANDS,
        spacing=torch.ones(count, 2),
        unit="px",
        offset=torch.zeros(count, 3),
        scale=torch.ones(count, 3),
        key=torch.tensor([key(0, 0, index) for index in range(count)]),
        index=torch.arange(count),
        row=torch.arange(count),
    ).to(images.device)


class HalfseenMae(nn.Module):
    """The recipe behind the peers' signature: images in, loss out."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.recipe = recipe(work)
        self.batch: Batch | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.batch is None:  # the loader makes it, outside the step
            self.batch = batch_of(images)
        loss: Tensor = self.recipe(self.batch, self.batch.rng).loss
        return loss


class HalfseenEncoder(nn.Module):
    """The encoder alone, on what the masker lets it see or on every token; its "loss" is the mean of its tokens."""

    def __init__(self, work: Work, *, visible_only: bool) -> None:
        super().__init__()
        built = recipe(work)
        self.encoder, self.masker, self.visible_only = built.encoder, Random(ratio=work.ratio), visible_only
        self.batch: Batch | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.batch is None:
            self.batch, _ = self.encoder.prepare(batch_of(images))
        grid = self.batch.grid(self.encoder.contract.inputs[0].patch)
        plan = self.masker(self.batch, grid, self.batch.rng) if self.visible_only else None
        tokens: Tensor = self.encoder(self.batch, plan).value
        return tokens.square().mean()
