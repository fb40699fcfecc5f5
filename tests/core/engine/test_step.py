"""One update: slices, clipping, and numbers that are not finite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.engine.config import Optim
from core.engine.optim import decay_groups, make_optimizer
from core.engine.state import State
from core.engine.step import Precision, count_skipped, slices, train_step
from core.errors import ConfigError, NumericsError
from core.recipes.base import Recipe
from tests.core.engine.stub import ALONE, StubRecipeSpec, StubSpec, batch_of

CPU = Precision("fp32", torch.device("cpu"))
PLAIN = StubRecipeSpec(encoder=StubSpec(dropout=0.0))


def run(spec: StubRecipeSpec = PLAIN, **options: object) -> tuple[Recipe, object, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    recipe = spec.build()
    optim = Optim(lr=0.1)
    optimizer = make_optimizer(decay_groups(recipe.named_parameters(), 0.0), optim, torch.device("cpu"))
    batch = batch_of("photograph", [1, 2, 3, 4])
    batch = replace(batch, valid=torch.ones_like(batch.valid))
    settings = {"accumulate": 1, "clip_norm": None, "precision": CPU, "world": ALONE} | options
    before = {name: p.detach().clone() for name, p in recipe.named_parameters()}
    outcome = train_step(recipe, optimizer, batch, **settings)  # type: ignore[arg-type]
    return recipe, outcome, before


def gradient(recipe: Recipe) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in recipe.parameters() if p.grad is not None])


def test_slices_are_the_batch_in_order() -> None:
    batch = batch_of("volume", [5, 6, 7, 8, 9, 10])
    parts = list(slices(batch, 3))
    assert [part.index.tolist() for part in parts] == [[5, 6], [7, 8], [9, 10]]
    assert torch.equal(torch.cat([part.image for part in parts]), batch.image)
    assert [part.size for part in parts] == [(4, 4, 4)] * 3


def test_slices_must_be_equal() -> None:
    with pytest.raises(ConfigError, match=r"optim\.accumulate': expected a number that divides .* 6, got 4"):
        list(slices(batch_of("volume", list(range(6))), 4))


def test_accumulated_loss_is_the_mean_of_the_slices_losses() -> None:
    recipe, outcome, _ = run(accumulate=2)
    torch.manual_seed(1)
    fresh = PLAIN.build()
    batch = batch_of("photograph", [1, 2, 3, 4])
    batch = replace(batch, valid=torch.ones_like(batch.valid))
    losses = [fresh(part, part.rng).loss for part in slices(batch, 2)]
    (sum(losses) / 2).backward()
    assert outcome.loss == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-6)
    assert torch.allclose(gradient(recipe), gradient(fresh), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clipping_bounds_the_gradient_and_reports_its_norm_before(share: float) -> None:
    whole, outcome, _ = run()
    norm = float(gradient(whole).norm())
    assert outcome.grad_norm == pytest.approx(norm, rel=1e-6)
    clipped, outcome, _ = run(clip_norm=share * norm)
    assert outcome.grad_norm == pytest.approx(norm, rel=1e-6)
    assert float(gradient(clipped).norm()) == pytest.approx(min(1.0, share) * norm, rel=1e-4)


def test_loss_that_is_not_finite_leaves_the_weights_alone() -> None:
    recipe, outcome, before = run(replace(PLAIN, poison=(3,)))
    assert not outcome.finite
    assert all(torch.equal(p, before[name]) for name, p in recipe.named_parameters())


def test_finite_step_moves_every_weight_that_was_used() -> None:
    recipe, outcome, before = run()
    assert outcome.finite
    moved = {name for name, p in recipe.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, _ in recipe.named_parameters() if "volume" not in name}


def test_bf16_is_used_where_it_is_asked_for() -> None:
    _, full, _ = run()
    _, half, _ = run(precision=Precision.of("bf16", torch.device("cpu")))
    assert half.loss != full.loss
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert Precision.of("auto", torch.device("cpu")).name == "fp32"


def skip(state: State, times: int, steps: int) -> None:
    _, outcome, _ = run(replace(PLAIN, poison=(3,)))
    for _ in range(times):
        state.step += 1
        count_skipped(state, outcome, steps, [7, 3])


def test_one_skipped_step_is_forgiven_in_a_short_run() -> None:
    state = State()
    skip(state, 1, steps=100)
    assert (state.skipped, state.skipped_in_row) == (1, 1)
    with pytest.raises(
        NumericsError, match=r"loss nan .* at step 2 from rows \[7, 3\].*2 steps were skipped.*allowed: 1"
    ):
        skip(state, 1, steps=100)


def test_five_in_a_row_end_a_long_run() -> None:
    state = State()
    skip(state, 4, steps=100_000)
    with pytest.raises(NumericsError, match="5 in a row"):
        skip(state, 1, steps=100_000)


def test_finite_step_ends_a_streak() -> None:
    state = State()
    skip(state, 4, steps=100_000)
    _, fine, _ = run()
    count_skipped(state, fine, 100_000, [])
    skip(state, 4, steps=100_000)
    assert (state.skipped, state.skipped_in_row) == (8, 4)
