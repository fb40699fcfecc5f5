"""On a CUDA card: activation checkpointing saves memory and changes nothing, weights are shared out, MFU is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from core.contract import Contract, Input, Normalisation
from core.encoders.swinv2 import SwinV2Spec
from core.engine import shard
from core.engine.config import Optim
from core.engine.distributed import World
from core.engine.optim import decay_groups, make_optimizer
from core.engine.recompute import recompute_blocks
from core.engine.step import Precision, train_step
from core.maskers.cells import Cells
from core.recipes.base import Recipe
from core.recipes.simmim import Simmim

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
ENTRY = Input(
    name="photograph",
    bands=("red", "green", "blue"),
    patch=(4, 4),
    size=(128, 128),
    spacing=(1.0, 1.0),
    unit="px",
    normalisation=Normalisation(method="per_image"),
)
SPEC = Simmim(
    encoder=SwinV2Spec(
        contract=Contract(inputs=(ENTRY,)), width=128, depths=(2, 6), heads=(4, 8), window=(8, 8), drop_path=0.2
    ),
    masker=Cells(),
)


@pytest.fixture(autouse=True)
def _kernels_may_differ() -> None:
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A group of one process, which speaks nccl."""
    torch.cuda.set_device(0)
    place = World(0, 1, torch.device("cuda", 0))
    file = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("nccl", init_method=f"file://{file}", rank=0, world_size=1, device_id=place.device)
    yield place
    distributed.destroy_process_group()


def trained(place: World, settle: Callable[[Recipe], None], *, count: int = 16) -> tuple[list[float], int]:
    """Make four steps in bf16; give their losses and the most memory that was held."""
    from benchmarks.mfu import batch_for

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place.device)
    torch.manual_seed(0)
    recipe = SPEC.build().train()
    settle(recipe)
    recipe.to(place.device)
    precision = Precision("bf16", place.device, keep_casts=not shard.is_sharded(recipe))
    optimizer = make_optimizer(decay_groups(recipe.named_parameters(), 0.05), Optim(lr=1e-4), place.device)
    batch = batch_for(SPEC, count).to(place.device)
    losses = []
    for step in range(4):
        torch.manual_seed(step)
        outcome = train_step(recipe, optimizer, batch, accumulate=1, clip_norm=1.0, precision=precision, world=place)
        losses.append(outcome.loss)
    return losses, torch.cuda.max_memory_allocated(place.device)


def test_blocks_that_run_again_give_the_same_losses_in_half_the_memory(card: World) -> None:
    plain, kept = trained(card, lambda recipe: None)
    again, less = trained(card, lambda recipe: recompute_blocks(recipe) and None)
    assert again == pytest.approx(plain, rel=1e-3)
    assert less < kept / 2


def test_weights_in_parts_give_the_same_losses(card: World) -> None:
    plain, _ = trained(card, lambda recipe: None)
    apart, _ = trained(card, lambda recipe: shard.shard(recipe, card))
    assert apart == pytest.approx(plain, rel=1e-3)


def test_parts_on_the_card_are_saved_and_read_on_the_cpu(card: World, tmp_path: Path) -> None:
    from core.checkpoint import verify
    from core.engine import sharded_checkpoint

    recipe = SPEC.build()
    shard.shard(recipe, card)
    tensors = {f"model/{name}": value for name, value in recipe.state_dict().items()}
    folder = sharded_checkpoint.save(tmp_path, 1, tensors, {}, card)
    assert verify(folder) is None
    whole = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in tensors.items()}
    sharded_checkpoint.read(folder, whole)
    assert all(torch.equal(whole[name], shard.whole(value).cpu()) for name, value in tensors.items())


def test_the_plan_foretells_the_memory_of_a_step(card: World) -> None:
    from benchmarks.fsdp import foretold

    for again in (False, True):
        _, held = trained(card, lambda recipe, again=again: again and recompute_blocks(recipe) and None, count=64)
        assert held == pytest.approx(foretold(SPEC, 64, 1, shared=False, again=again), rel=0.5)


def test_mfu_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.mfu", "--only=mae_vit_l", "--batch=32", "--no-compile", "--rounds=3"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "mfu.jsonl")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "mfu.jsonl").read_text().splitlines()[0])
    assert record["tflops"] > 1
    assert record["mfu"] is None or 0.01 < record["mfu"] < 1
