"""The fixed-mask validation loss: the same held-out images with the same masks, each time it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from core.batch import Batch
from core.engine.distributed import World
from core.engine.step import Precision, pick
from core.recipes.base import Recipe


@dataclass(frozen=True)
class Score:
    """Loss of one stream's held-out images.

    Attributes:
        stream: name of the encoder's input.
        loss: mean over batches, weighted by their number of samples.
        terms: each term, likewise.
        samples: how many.
    """

    stream: str
    loss: float
    terms: dict[str, float]
    samples: int


def stream_of(recipe: Recipe, batch: Batch) -> str:
    """Name the stream that a batch belongs to: the encoder's input that reads it."""
    return recipe.encoder.contract.input_for(len(batch.size), batch.bands).name


def validate(recipe: Recipe, batches: Iterable[Batch], *, precision: Precision, world: World) -> list[Score]:
    """Score held-out batches in evaluation mode, one result per stream in order of appearance; the mode is put back.

    Every rank must be given the same batches. Each takes its part of each batch's samples and the recipe joins the
    numerators and denominators, so that the number does not depend on how many ranks there are; a batch smaller than
    the number of ranks is scored whole by all. Batches are weighted by samples because a recipe gives no denominators.
    """
    training = recipe.training
    recipe.eval()
    sums: dict[str, torch.Tensor] = {}
    names: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    with torch.no_grad():
        for batch in batches:
            mine = pick(batch, slice(world.rank, None, world.size)) if len(batch) >= world.size else batch
            mine = mine.to(world.device)
            with precision.autocast():
                output = recipe(mine, mine.rng)
            stream = stream_of(recipe, batch)
            names[stream] = sorted(output.terms)
            values = torch.stack([output.loss, *(output.terms[name] for name in names[stream])]).to(torch.float64)
            sums[stream] = sums.get(stream, 0.0) + world.sum(values) / world.size * len(batch)
            counts[stream] = counts.get(stream, 0) + len(batch)
    recipe.train(training)
    means = {stream: (total / counts[stream]).tolist() for stream, total in sums.items()}
    return [
        Score(stream, mean[0], dict(zip(names[stream], mean[1:], strict=True)), counts[stream])
        for stream, mean in means.items()
    ]
