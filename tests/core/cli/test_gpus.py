"""The plan for many cards: bytes by hand, and SatVision at full size without its weights."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core import registry
from core.batch import Batch
from core.cli.gpus import CARD_PEAK, MFU, Weights, check_shares, memory
from core.cli.plan import cost, plan_text, sketch
from core.contract import Contract, Input, Normalisation
from core.engine.config import How, Pretrain
from core.engine.recompute import recompute_blocks
from core.engine.shard import block_lists
from core.errors import ConfigError
from core.maskers.cells import Cells
from core.recipes.base import Recipe
from core.recipes.simmim import Simmim
from tests.core.cli.presets import base, tiny

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = Weights(learnt=1000, still=200, together=300, largest=50)


def test_memory_of_whole_weights_by_hand() -> None:
    held = memory(WEIGHTS, 77.0, 8, shared=False, again=False)
    assert held == {"weights": 4800, "gradients": 4000, "moments": 8000, "passing": 2400, "activations": 77}


def test_memory_of_shared_weights_by_hand() -> None:
    """300 stand whole with their gradient; two blocks of 50 as well; all copies in bf16 stay, unless blocks run again."""
    held = memory(WEIGHTS, 77.0, 8, shared=True, again=False)
    assert (held["weights"], held["gradients"], held["moments"]) == (600, 500, 1000)
    assert held["passing"] == 8 * 300 + 2 * 1200 + 2 * 8 * 50
    assert memory(WEIGHTS, 77.0, 8, shared=True, again=True)["passing"] == 8 * 300 + 2 * 300 + 2 * 8 * 50


def test_weights_are_counted_as_they_are_shared_out() -> None:
    recipe = sketch(tiny())
    found = Weights.of(recipe)
    everything = sum(p.numel() for p in recipe.parameters())
    encoder, decoder = block_lists(recipe)
    block = sum(p.numel() for p in encoder[0].parameters())
    assert (len(encoder), len(decoder)) == (2, 1)
    assert found.largest == block
    assert found.together == everything - block
    assert found.learnt + found.still == everything


def test_rate_and_days_follow_from_the_operations() -> None:
    config = replace(base(), steps=100_000_000)
    text = plan_text(config, {}, num_gpus=8)
    forward = cost(sketch(config), config, config.recipe.encoder.contract.inputs[0]).forward
    rate = 8 * CARD_PEAK * MFU / (3 * forward)
    told = re.search(r"([\d,]+) samples/s, ([\d.]+) days for 100,000,000 steps", text)
    assert told is not None
    assert float(told[1].replace(",", "")) == pytest.approx(rate, rel=1e-3)
    assert float(told[2]) == pytest.approx(64 * 100_000_000 / rate / 86400, abs=0.06)
    slower = plan_text(replace(config, how=How(checkpoint_activations=True)), {}, num_gpus=8)
    told = re.search(r"([\d,]+) samples/s", slower)
    assert told is not None
    assert float(told[1].replace(",", "")) == pytest.approx(rate * 3 / 4, rel=1e-3)


def test_the_way_that_the_run_is_set_is_marked() -> None:
    for how in (
        How(),
        How(checkpoint_activations=True),
        How(shard="full"),
        How(shard="full", checkpoint_activations=True),
    ):
        text = plan_text(replace(tiny(), how=how), {}, num_gpus=4)
        marked = [line for line in text.splitlines() if "as this run is set" in line]
        options = f"shard={how.shard}{' checkpoint_activations' * how.checkpoint_activations}"
        assert [" ".join(line.split()).startswith(options + " ") for line in marked] == [True]


def test_one_card_shares_with_nobody() -> None:
    text = plan_text(replace(tiny(), how=How(shard="full")), {}, num_gpus=1)
    assert "shard=full" not in text
    assert "fits, as this run is set" in text


def test_cards_that_cannot_share_a_batch_are_refused() -> None:
    check_shares(base(), 16)
    with pytest.raises(ConfigError, match=r"32 cards with optim\.accumulate=4 share evenly, a multiple of 128, got 64"):
        check_shares(base(), 32)


def batch_of(entry: Input, count: int) -> Batch:
    image = torch.rand(count, len(entry.bands), *entry.size)
    numbers, zeros = torch.arange(count), torch.zeros(count, len(entry.bands))
    return Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.ones(count, 2),
        unit="px",
        offset=zeros,
        scale=zeros + 1,
        key=numbers,
        index=numbers,
        row=numbers,
    )


def _kept(recipe: Recipe, entry: Input, count: int) -> int:
    """Bytes that a forward pass in bf16 keeps, without weights, their copies and what no fused attention keeps."""
    batch = batch_of(entry, count)
    weights = {p.untyped_storage().data_ptr() for p in recipe.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-2:] != (64, 64):
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        recipe(batch, batch.rng)
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["swin", "swinv2", "vit"])
def test_activations_are_about_what_a_step_keeps(kind: str) -> None:
    entry = Input(
        name="photograph",
        bands=("red", "green", "blue"),
        patch=(4, 4),
        size=(64, 64),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    shape = {"depth": 6, "heads": 2} if kind == "vit" else {"depths": (6,), "heads": (2,), "window": (8, 8)}
    encoder = registry.get("encoders", kind)(contract=Contract(inputs=(entry,)), width=128, **shape)
    config: Pretrain = replace(tiny(), recipe=Simmim(encoder=encoder, masker=Cells()))
    one = cost(sketch(config), config, entry)
    recipe = config.recipe.build().train()
    assert _kept(recipe, entry, 2) - _kept(recipe, entry, 1) == pytest.approx(one.activations, rel=0.35)
    recompute_blocks(recipe)
    inputs = one.recomputed - one.activations / 6  # the block that runs comes later, in the backward pass
    images = 12 * 4 * 64 * 64 * 3  # the loss keeps some images, which the plan does not count
    assert inputs <= _kept(recipe, entry, 2) - _kept(recipe, entry, 1) <= inputs + images


@pytest.mark.slow
def test_satvision_giant_is_planned_within_30_seconds_and_without_its_weights() -> None:
    """In a process of its own, whose memory is its own: 10.6 GB of weights would show."""
    script = """
import resource
from core.cli.plan import plan_text
from core.encoders.cards.satvision import satvision_spec
from core.engine.config import Data, How, Optim, Pretrain, Stream
from core.maskers.cells import Cells
from core.recipes.simmim import Simmim

recipe = Simmim(encoder=satvision_spec("giant"), masker=Cells())
how = How(shard="full", checkpoint_activations=True)
data = Data(streams=(Stream(input="toa", batch_size=4096),))
print(plan_text(Pretrain(recipe=recipe, data=data, optim=Optim(lr=3e-4), steps=1000, how=how), {}, num_gpus=64))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "encoder      2595.05 M parameters" in done.stdout
    assert "everything   2653.78 M parameters, 42.46 GB with gradient and optimiser" in done.stdout
    assert "64 of toa at once on each" in done.stdout
    own = next(line for line in done.stdout.splitlines() if "as this run is set" in line)
    assert re.findall(r"[\d.]+ [GM]B", own)[:3] == ["165.9 MB", "165.9 MB", "331.7 MB"]
    assert int(done.stdout.split()[-1]) < 2e6  # KiB
