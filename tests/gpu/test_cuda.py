"""On a CUDA card: the same numbers as on the CPU, the same masks, bf16 that learns, and a run that resumes."""

from __future__ import annotations

import pytest
import torch

from core import registry
from core.testing.recipe_contract import loss_and_gradients
from core.testing.samples import INPUTS, ragged_batch, recipe_spec

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _kernels_may_differ():
    """Scatter and gather have no deterministic CUDA kernels in every version."""
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=registry.names("recipes"))
def recipe(request):
    torch.manual_seed(0)
    return recipe_spec(request.param).build()


@pytest.mark.parametrize("entry", INPUTS.values(), ids=list(INPUTS))
def test_loss_and_gradients_equal_the_cpu(recipe, entry):
    batch = ragged_batch(entry)
    loss, gradients = loss_and_gradients(recipe, batch)
    recipe.to(CUDA)
    on_card, theirs = loss_and_gradients(recipe, batch.to(CUDA))
    assert on_card == pytest.approx(loss, rel=1e-4)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name].cpu(), gradient, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("entry", INPUTS.values(), ids=list(INPUTS))
def test_masks_equal_the_cpu(recipe, entry):
    batch, _ = recipe.encoder.prepare(ragged_batch(entry))
    plan = recipe.masker(batch, batch.grid(entry.patch), batch.rng)
    card = batch.to(CUDA)
    again = recipe.masker(card, card.grid(entry.patch), card.rng)
    assert torch.equal(again.hide.cpu(), plan.hide)


def test_a_run_in_bf16_learns_and_is_loaded(verb, samples, tmp_path):
    quick = [
        "--steps=40",
        "--optim.warmup_steps=5",
        "--how.validate_every=40",
        "--how.precision=bf16",
        "--how.device=cuda",
    ]
    outcome = verb("pretrain", "tiny", "--data", samples, "--out", tmp_path / "run", *quick)
    assert outcome.code == 0, outcome.err
    import json

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for kind in ("photograph", "volume"):
        losses = [line["loss"] for line in lines if line["event"] == "validation" and line["stream"] == kind]
        assert losses[-1] < 0.9 * losses[0]
