"""Blocks that run again in the backward pass: the same numbers bit for bit, and less to keep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from core import registry
from core.engine.recompute import recompute_blocks
from core.engine.shard import block_lists
from core.errors import ConfigError
from core.recipes.base import Recipe
from core.testing.samples import INPUTS, ragged_batch, recipe_spec
from tests.core.engine.same import training
from tests.core.engine.stub import learner, pretrain, train

ENTRY = next(iter(INPUTS.values()))


def built(name: str) -> Recipe:
    torch.manual_seed(0)
    return recipe_spec(name).build().train()


def drop_paths(recipe: Recipe) -> Recipe:
    """Let every block leave branches out at random, so that running it again must draw the same numbers."""
    for module in recipe.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.5
    return recipe


def step(recipe: Recipe, *, bf16: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Give loss, gradients, and the bytes that were kept for the backward pass besides the weights."""
    batch = ragged_batch(ENTRY)
    weights = {p.untyped_storage().data_ptr() for p in (*recipe.parameters(), *recipe.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = recipe(batch, batch.rng).loss
    held = sum(kept.values())
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in recipe.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("name", registry.names("recipes"))
def test_every_recipe_gives_the_same_loss_and_gradients(name: str) -> None:
    plain = drop_paths(built(name))
    again = copy.deepcopy(plain)
    assert recompute_blocks(again) > 0
    assert list(again.state_dict()) == list(plain.state_dict())
    (loss, gradients, kept), (theirs, other, less) = step(plain), step(again)
    assert torch.equal(loss, theirs)
    assert gradients.keys() == other.keys()
    assert all(torch.equal(gradients[n], other[n]) for n in gradients)
    assert less < kept


@pytest.mark.parametrize("encoder", ["swin", "swinv2"])
def test_windows_run_again_in_the_number_format_of_the_first_time(encoder: str) -> None:
    from core.contract import Contract
    from core.maskers.random import Random
    from core.recipes.simmim import Simmim

    shape = {"width": 16, "depths": (4, 4), "heads": (2, 2), "window": (4, 4)}
    spec = registry.get("encoders", encoder)(contract=Contract(inputs=(ENTRY,)), drop_path=0.5, **shape)
    torch.manual_seed(0)
    plain = Simmim(encoder=spec, masker=Random(ratio=0.5)).build().train()
    again = copy.deepcopy(plain)
    assert recompute_blocks(again) == 8
    (loss, gradients, kept), (theirs, other, less) = step(plain, bf16=True), step(again, bf16=True)
    assert torch.equal(loss, theirs)
    assert all(torch.equal(gradients[n], other[n]) for n in gradients)
    assert less < kept / 2


def test_a_run_that_recomputes_is_the_same_run(tmp_path: Any) -> None:
    from dataclasses import replace

    config = pretrain(4, recipe=learner("simmim", 0.3))
    again = replace(config, how=replace(config.how, checkpoint_activations=True))
    one, two = train(tmp_path / "one", config), train(tmp_path / "two", again)
    assert training(one) == training(two)
    assert (one / "encoder/model.safetensors").read_bytes() == (two / "encoder/model.safetensors").read_bytes()


def test_nothing_is_kept_back_where_no_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = built("mae").eval()
    batch = ragged_batch(ENTRY)
    with torch.no_grad():
        expected = recipe(batch, batch.rng).loss
        recompute_blocks(recipe)
        monkeypatch.setattr("core.engine.recompute.checkpoint", None)  # would fail if it were called
        assert torch.equal(recipe(batch, batch.rng).loss, expected)


def test_a_teacher_keeps_nothing_and_is_left_alone() -> None:
    recipe = built("latent_mim")
    recompute_blocks(recipe)
    teacher = list(block_lists(recipe.get_submodule("teacher")))
    assert teacher
    assert not any("forward" in vars(block) for blocks in teacher for block in blocks)


def test_a_module_without_blocks_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"option 'how\.checkpoint_activations' has no effect: Linear has no list of blocks"
    ):
        recompute_blocks(nn.Linear(2, 2))
