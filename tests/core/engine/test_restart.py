"""Teachers through real runs: restarts and averages continue bitwise, and follow only steps that were made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.batch import Batch
from core.contract import Contract
from core.encoders.load import load_encoder
from core.encoders.vit import ViTSpec
from core.engine.config import How, Optim
from core.engine.loop import build, fit
from core.engine.run_folder import open_run
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe, RecipeSpec, StepOutput
from core.recipes.dbot import Dbot
from core.recipes.latent_mim import LatentMim
from core.teachers.ema import Ema
from core.teachers.random_start import RandomStart
from core.weights import read_weights
from tests.core.engine.same import assert_same_run, read
from tests.core.engine.stub import ALONE, INPUTS, Loader, pretrain

ENCODER = ViTSpec(contract=Contract(inputs=tuple(INPUTS.values())), width=8, depth=2, heads=2, drop_path=0.2)
RECIPES: dict[str, RecipeSpec] = {
    "dbot": Dbot(
        encoder=ENCODER,
        predictor=TransformerSpec(width=8, depth=1, heads=2),
        teacher=RandomStart(restarts=(0.5, 0.6)),
    ),
    "latent_mim": LatentMim(
        encoder=ENCODER, predictor=CrossAttentionSpec(width=8, depth=1, heads=2), teacher=Ema(start=0.5)
    ),
}
STEPS = 6  # dbot restarts after step 3, which ends at 0.5, and after step 4, the first that ends at 0.6 or later


class PowerError(Exception):
    """The power fails."""


@dataclass
class Run:
    """A run and what it had stored after each step, read while it went on."""

    out: Path
    model: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    optimizer: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)

    def read(self, step: int) -> None:
        folder = self.out / f"step_{step:06d}"
        if step:
            self.model[step] = read_weights(folder / "model.safetensors")
            self.optimizer[step] = read_weights(folder / "optimizer.safetensors")

    def part(self, step: int, name: str) -> dict[str, torch.Tensor]:
        """Weights of one part after a step."""
        stored = self.model[step].items()
        return {key.removeprefix(f"{name}."): value for key, value in stored if key.startswith(f"{name}.")}


def train(out: Path, name: str, *, until: int | None = None, resume: bool = False, poison: int | None = None) -> Run:
    """Train; die while the batch after step `until` is loaded; make the loss of step `poison`, counted from 0, NaN."""
    how = How(device="cpu", save_every=1, validate_every=3, log_every=1000)
    settings = pretrain(STEPS, recipe=RECIPES[name], how=how, optim=Optim(lr=1e-2, warmup_steps=1, clip_norm=1.0))
    loader, done = Loader(), Run(out)
    recipe = build(settings.recipe, settings.seed)
    if poison is not None:
        _poison(recipe, poison)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for at, batch in enumerate(loader.batches(start, stop), start):
            done.read(at)
            if at == until:
                raise PowerError
            yield batch

    with open_run(out, settings, world=ALONE, resume=resume) as run:
        ends = pytest.raises(PowerError) if until is not None else nullcontext()
        with ends:
            fit(recipe, settings, run, batches=batches, world=ALONE, held_out=loader.held_out)
    if until is None:
        done.read(STEPS)
    return done


def _poison(recipe: Recipe, step: int) -> None:
    whole = recipe.forward

    def forward(*given: Any, **named: Any) -> StepOutput:
        output = whole(*given, **named)
        now = round(float(recipe.progress) * STEPS)
        return replace(output, loss=output.loss * float("nan")) if recipe.training and now == step else output

    recipe.forward = forward  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs that nothing interrupted."""
    return {name: train(tmp_path_factory.mktemp(name) / "run", name) for name in RECIPES}


@pytest.mark.parametrize(("name", "died"), [("dbot", 2), ("dbot", 3), ("dbot", 4), ("latent_mim", 3)])
def test_a_stopped_run_continues_bitwise_also_across_a_restart(
    whole: dict[str, Run], name: str, died: int, tmp_path: Path
) -> None:
    train(tmp_path / "run", name, until=died)
    assert_same_run(whole[name].out, train(tmp_path / "run", name, resume=True).out, step=STEPS)


def test_restarts_come_when_they_are_due(whole: dict[str, Run]) -> None:
    assert [int(whole["dbot"].model[step]["teacher.stage"]) for step in range(1, 7)] == [0, 0, 1, 2, 2, 2]


def test_the_optimiser_forgets_at_a_restart_and_only_then(whole: dict[str, Run]) -> None:
    moments = [whole["dbot"].optimizer[step] for step in range(1, 7)]
    assert [bool(stored) for stored in moments] == [True, True, False, False, True, True]
    assert {int(value) for name, value in moments[4].items() if name.endswith("/step")} == {1}


def test_the_teacher_is_the_student_of_before_and_the_student_is_fresh(whole: dict[str, Run]) -> None:
    run, teacher, student = whole["dbot"], "teacher.encoder", "encoder"
    for name, value in run.part(1, teacher).items():
        assert torch.equal(value, run.part(2, teacher)[name])
    bias = "blocks.0.mlp.fc1.bias"  # begins at zero, and moves by little more than the rate in a step
    learnt, taken_over = run.part(2, student)[bias], run.part(3, teacher)[bias]
    assert bool(learnt.abs().max() > 0)
    assert not torch.equal(taken_over, learnt)
    torch.testing.assert_close(taken_over, learnt, rtol=0, atol=0.02)
    assert bool((run.part(3, student)[bias] == 0).all())
    assert bool((run.part(3, "predictor")["norm.bias"] == 0).all())
    assert bool(run.part(2, "predictor")["norm.bias"].abs().max() > 0)


def test_the_export_is_a_student_that_has_trained(whole: dict[str, Run]) -> None:
    exported = load_encoder(whole["dbot"].out).backbone.state_dict()
    assert all(torch.equal(exported[name], value) for name, value in whole["dbot"].part(STEPS, "encoder").items())
    assert bool(exported["blocks.0.mlp.fc1.bias"].abs().max() > 0)


def test_the_average_follows_only_steps_that_were_made(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "latent_mim", poison=2)
    steps = [event for event in read(run.out / "metrics.jsonl") if event["event"] == "step"]
    assert [event["skipped"] for event in steps] == [False, False, True, False, False, False]
    for part in ("teacher.encoder.class_token", "teacher_projector.0.weight"):
        pairs = itertools.pairwise(run.model[step][part] for step in range(1, 6))
        assert [torch.equal(*pair) for pair in pairs] == [False, True, False, False]


def test_the_average_is_what_its_momentum_says(whole: dict[str, Run]) -> None:
    run, token = whole["latent_mim"], "encoder.class_token"
    before, after = (run.model[step][f"teacher.{token}"] for step in (2, 3))
    share = Ema(start=0.5).share(torch.tensor(3 / STEPS))
    torch.testing.assert_close(after, before + share * (run.model[3][token] - before))
    assert float(share) == pytest.approx(0.25)
