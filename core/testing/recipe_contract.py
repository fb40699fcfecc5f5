"""The invariants that every recipe keeps, in 2D and 3D: nodata, no leak, exact count, ranks, replay, bands by name.

A test class gives `recipe` and `entry` fixtures and inherits the exam; see tests/contracts/test_recipes.py.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from core.batch import Batch, valid_tokens
from core.contract import Input
from core.encoders.base import Tokens
from core.plan import Plan
from core.recipes.base import Recipe
from core.shapes import patchify
from core.testing.samples import INPUTS, ragged_batch, recipe_spec


class RecipeContract:
    """The exam."""

    @pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
    def test_missing_voxels_change_neither_loss_nor_gradient(
        self, recipe: Recipe, entry: Input, content: float
    ) -> None:
        batch = ragged_batch(entry)
        loss, gradients = loss_and_gradients(recipe, batch)
        filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
        again, other = loss_and_gradients(recipe, filled)
        assert math.isfinite(loss)
        assert loss > 0
        assert again == loss
        assert gradients.keys() == other.keys()
        assert all(torch.equal(gradients[name], other[name]) for name in gradients)

    def test_hidden_content_never_reaches_the_encoder(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        image = batch.image.clone().requires_grad_()
        plan, tokens = encoder_call(recipe, replace(batch, image=image))
        (tokens.value.square().sum() + tokens.prefix.square().sum()).backward()
        assert image.grad is not None
        reached = patchify(image.grad, entry.patch).abs().amax(dim=2)
        assert bool((reached[~plan.see] == 0.0).all())
        assert bool((reached[plan.see] > 0.0).all())

    def test_padded_slots_hold_nothing(self, recipe: Recipe, entry: Input) -> None:
        plan, tokens = encoder_call(recipe, ragged_batch(entry))
        counts = plan.see.sum(1)
        assert len(counts.unique()) > 2
        assert tokens.ok is not None
        assert torch.equal(tokens.ok.sum(1), counts)

    def test_hides_the_exact_share_of_valid_tokens(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        plan, _ = encoder_call(recipe, batch)
        valid = valid_tokens(batch.normalised(), batch.grid(entry.patch))
        ratio: float = recipe.masker.ratio  # type: ignore[union-attr, assignment]
        for sample in range(len(batch)):
            count = int(valid[sample].sum())
            assert int(plan.hide[sample].sum()) == min(math.ceil(round(ratio * count, 6)), max(count - 1, 0))
        assert not bool((plan.hide & plan.see).any())
        assert not bool(((plan.hide | plan.see) & ~valid).any())

    def test_batch_mates_change_nothing(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        plan, tokens = encoder_call(recipe, batch)
        for sample in range(3):
            alone, own = encoder_call(recipe, batch.take([sample]))
            assert torch.equal(alone.see[0], plan.see[sample])
            count = int(plan.see[sample].sum())
            torch.testing.assert_close(own.value[0], tokens.value[sample, :count], rtol=1e-5, atol=1e-5)

    def test_a_step_can_be_replayed(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        assert loss_and_gradients(recipe, batch)[0] == loss_and_gradients(recipe, batch)[0]
        other = replace(batch, key=batch.key + 1)
        assert loss_and_gradients(recipe, other)[0] != loss_and_gradients(recipe, batch)[0]

    def test_bands_count_by_name(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        order = list(reversed(range(len(entry.bands))))
        shuffled = replace(
            batch,
            bands=tuple(entry.bands[i] for i in order),
            **{name: getattr(batch, name)[:, order] for name in ("image", "valid", "offset", "scale")},
        )
        assert loss_and_gradients(recipe, shuffled)[0] == loss_and_gradients(recipe, batch)[0]

    def test_value_space_is_applied_once(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        assert loss_and_gradients(recipe, batch.normalised())[0] == loss_and_gradients(recipe, batch)[0]

    def test_a_batch_without_data_gives_zero(self, recipe: Recipe, entry: Input) -> None:
        loss, gradients = loss_and_gradients(recipe, ragged_batch(entry).take([3]))
        assert loss == 0.0
        assert all(bool((gradient == 0.0).all()) for gradient in gradients.values())

    def test_every_parameter_of_the_input_learns(self, recipe: Recipe, entry: Input) -> None:
        _, gradients = loss_and_gradients(recipe, ragged_batch(entry))
        others = [f".{name}." for name in INPUTS if name != entry.name]
        for name, parameter in recipe.named_parameters():
            if parameter.requires_grad and not any(other in name for other in others):
                assert name in gradients, name
                assert bool(gradients[name].abs().max() > 0), name

    def test_pictures_show_the_truth_where_it_was_seen(self, recipe: Recipe, entry: Input) -> None:
        batch = ragged_batch(entry)
        plan, _ = encoder_call(recipe, batch)
        pictures = recipe(batch, batch.rng, pictures=True).pictures
        assert torch.equal(pictures.mask.flatten(1), plan.hide)
        original, seen = (patchify(image, entry.patch) for image in (pictures.original, pictures.seen))
        assert torch.equal(seen, torch.where(plan.see[..., None], original, 0.0))
        painted = patchify(pictures.reconstructions["image"], entry.patch)
        assert torch.equal(painted[~plan.hide], original[~plan.hide])
        assert not torch.equal(painted[plan.hide], original[plan.hide])


def loss_and_gradients(recipe: Recipe, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Run one step and give its loss and every parameter's gradient."""
    recipe.zero_grad(set_to_none=True)
    output = recipe(batch, batch.rng)
    output.loss.backward()
    return output.loss.item(), {n: p.grad.clone() for n, p in recipe.named_parameters() if p.grad is not None}


def encoder_call(recipe: Recipe, batch: Batch) -> tuple[Plan, Tokens]:
    """Run one step and give what the encoder was asked and what it answered."""
    calls: list[tuple[Plan, Tokens]] = []
    hook = recipe.encoder.register_forward_hook(lambda _, args, out: calls.append((args[1], out)))
    try:
        recipe(batch, batch.rng)
    finally:
        hook.remove()
    return calls[0]


def check_ranks(names: tuple[str, ...]) -> None:
    """Assert that two ranks with unequal validity form the loss and gradients of one process on the joined batch."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (folder, names), nprocs=2, join=True)
        for name in names:
            for entry in INPUTS.values():
                loss, gradients = loss_and_gradients(_seeded(name), ragged_batch(entry))
                ranks: list[Any] = [torch.load(Path(folder) / f"{name}.{entry.name}.{r}.pt") for r in (0, 1)]
                assert sum(r["loss"] for r in ranks) / 2 == pytest.approx(loss, rel=1e-5)
                assert ranks[0]["gradients"].keys() == gradients.keys()
                for key, gradient in gradients.items():
                    mean = (ranks[0]["gradients"][key] + ranks[1]["gradients"][key]) / 2
                    torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def _seeded(name: str) -> Recipe:
    torch.manual_seed(0)
    return recipe_spec(name).build()


def _rank(rank: int, folder: str, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name in names:
        for entry in INPUTS.values():
            rows = [0, 2] if rank == 0 else [1, 3]  # rank 1 has the missing corner and the sample without data
            loss, gradients = loss_and_gradients(_seeded(name), ragged_batch(entry).take(rows))
            torch.save({"loss": loss, "gradients": gradients}, Path(folder) / f"{name}.{entry.name}.{rank}.pt")
    distributed.destroy_process_group()
