"""The fixed-mask loss: the same number each time, in evaluation mode, weighted by samples."""

from __future__ import annotations

import torch

from core.engine.step import Precision
from core.engine.validate import validate
from tests.core.engine.stub import ALONE, Loader, StubRecipeSpec

CPU = Precision("fp32", torch.device("cpu"))


def test_it_is_the_same_number_each_time_although_the_recipe_has_dropout() -> None:
    recipe = StubRecipeSpec().build().train()
    first, second = (validate(recipe, Loader().held_out(), precision=CPU, world=ALONE) for _ in range(2))
    assert first == second


def test_mode_is_put_back_and_no_gradient_is_left() -> None:
    recipe = StubRecipeSpec().build().train()
    validate(recipe, Loader().held_out(), precision=CPU, world=ALONE)
    assert recipe.training
    assert all(p.grad is None for p in recipe.parameters())


def test_streams_are_scored_apart_and_batches_weighted_by_samples() -> None:
    recipe = StubRecipeSpec().build().eval()
    batches = Loader().held_out()
    scores = validate(recipe, batches, precision=CPU, world=ALONE)
    assert [(score.stream, score.samples) for score in scores] == [("photograph", 4), ("volume", 2)]
    with torch.no_grad():
        losses = [recipe(batch, batch.rng).loss.double() for batch in batches]
    assert scores[0].loss == float((3 * losses[0] + losses[1]) / 4)
    assert scores[1].loss == float(losses[2])
    assert scores[0].terms == {"image": scores[0].loss}


def test_without_batches_there_is_no_score() -> None:
    assert validate(StubRecipeSpec().build(), [], precision=CPU, world=ALONE) == []
