"""The invariants that every recipe keeps, in 2D and 3D: nodata, no leak, exact count, ranks, replay, bands by name.

A test class gives the fixtures `recipe` (of all inputs), `fresh` (builds one of
a single input) and `entry`, and inherits the exam; see tests/contracts/test_recipes.py.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.optim import AdamW

from core.batch import Batch, valid_tokens
from core.contract import Input
from core.encoders.base import Tokens
from core.engine.config import Optim
from core.engine.optim import decay_groups, make_optimizer
from core.engine.state import optimizer_tensors, restore_optimizer
from core.groups import cut
from core.maskers.base import Masker
from core.plan import Plan
from core.recipes.base import Recipe
from core.shapes import Grid
from core.testing.samples import INPUTS, batch_for, recipe_spec


class RecipeContract:
    """The exam."""

    @pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
    def test_missing_voxels_change_neither_loss_nor_gradient(
        self, recipe: Recipe, entry: Input, content: float
    ) -> None:
        batch = batch_for(recipe, entry)
        loss, gradients = loss_and_gradients(recipe, batch)
        filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
        again, other = loss_and_gradients(recipe, filled)
        assert math.isfinite(loss)
        assert loss > 0
        assert again == loss
        assert gradients.keys() == other.keys()
        assert all(torch.equal(gradients[name], other[name]) for name in gradients)

    def test_hidden_content_never_reaches_the_encoder(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        image = batch.image.clone().requires_grad_()
        step = watched(recipe, replace(batch, image=image))
        torch.stack(
            [tokens.value.square().sum() + tokens.prefix.square().sum() for tokens in step.tokens]
        ).sum().backward()
        for masked, grid, plan in step.plans:
            assert masked.image.grad is not None
            measured = masked.image.grad.masked_fill(~masked.valid, 0.0)  # zeros in place of missing data say nothing
            reached = cut(measured, masked.bands, grid).abs().amax(dim=2)
            assert bool((reached[~plan.see] == 0.0).all())
            assert bool((reached[plan.see] > 0.0).all())

    def test_padded_slots_hold_nothing(self, recipe: Recipe, entry: Input) -> None:
        step = watched(recipe, batch_for(recipe, entry))
        for (_, _, plan), tokens in zip(step.plans, step.tokens, strict=True):
            counts = plan.see.sum(1)
            assert len(counts.unique()) > 1
            if not tokens.full_grid:
                assert tokens.ok is not None
                assert torch.equal(tokens.ok.sum(1), counts)

    def test_hides_the_exact_share_of_valid_tokens(self, recipe: Recipe, entry: Input) -> None:
        ratio: float = recipe.masker.ratio  # type: ignore[union-attr, assignment]
        for masked, grid, plan in watched(recipe, batch_for(recipe, entry)).plans:
            valid = valid_tokens(masked, grid)
            for sample in range(len(masked)):
                count = int(valid[sample].sum())
                assert int(plan.hide[sample].sum()) == min(math.ceil(round(ratio * count, 6)), max(count - 1, 0))
            assert not bool((plan.hide & plan.see).any())
            assert not bool(((plan.hide | plan.see) & ~valid).any())

    def test_batch_mates_change_nothing(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        together = watched(recipe, batch)
        for sample in range(3):
            alone = watched(recipe, batch.take([sample]))
            for (_, _, plan), (_, _, own) in zip(together.plans, alone.plans, strict=True):
                assert torch.equal(own.see[0], plan.see[sample])
            for tokens, own_tokens in zip(together.tokens, alone.tokens, strict=True):
                count = own_tokens.value.shape[1]
                torch.testing.assert_close(own_tokens.value[0], tokens.value[sample, :count], rtol=1e-5, atol=1e-5)

    def test_a_step_can_be_replayed(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        assert loss_and_gradients(recipe, batch)[0] == loss_and_gradients(recipe, batch)[0]
        other = replace(batch, key=batch.key + 1)
        assert loss_and_gradients(recipe, other)[0] != loss_and_gradients(recipe, batch)[0]

    def test_bands_count_by_name(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        order = list(reversed(range(len(entry.bands))))
        shuffled = replace(
            batch,
            bands=tuple(entry.bands[i] for i in order),
            **{name: getattr(batch, name)[:, order] for name in ("image", "valid", "offset", "scale")},
        )
        assert loss_and_gradients(recipe, shuffled)[0] == loss_and_gradients(recipe, batch)[0]

    def test_value_space_is_applied_once(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        assert loss_and_gradients(recipe, batch.normalised())[0] == loss_and_gradients(recipe, batch)[0]

    def test_a_batch_without_data_gives_zero(self, recipe: Recipe, entry: Input) -> None:
        loss, gradients = loss_and_gradients(recipe, batch_for(recipe, entry).take([3]))
        assert loss == 0.0
        assert all(bool((gradient == 0.0).all()) for gradient in gradients.values())

    def test_a_stopped_run_continues_bitwise(self, fresh: Callable[[], Recipe], entry: Input) -> None:
        straight, first, second = (fresh() for _ in range(3))
        optimizer = _optimizer(straight)
        _updates(straight, optimizer, entry, range(4))
        before = _optimizer(first)
        _updates(first, before, entry, range(2))
        second.load_state_dict(first.state_dict())
        after = _optimizer(second)
        restore_optimizer(after, optimizer_tensors(before), source=Path("memory"))
        _updates(second, after, entry, range(2, 4))
        found, expected = second.state_dict(), straight.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert any(not torch.equal(value, first.state_dict()[name]) for name, value in expected.items())

    def test_every_parameter_learns(self, fresh: Callable[[], Recipe], entry: Input) -> None:
        alone = fresh()
        alone.progress.fill_(0.5)
        reached: set[str] = set()
        for seed in range(3):  # which tokens are seen, and with them which vectors are used, is a matter of chance
            _, gradients = loss_and_gradients(alone, batch_for(alone, entry, seed))
            reached |= {name for name, gradient in gradients.items() if bool(gradient.abs().max() > 0)}
        assert sorted({n for n, p in alone.named_parameters() if p.requires_grad} - reached) == []

    def test_pictures_show_the_truth_where_it_was_seen(self, recipe: Recipe, entry: Input) -> None:
        batch = batch_for(recipe, entry)
        pictures = recipe(batch, batch.rng, pictures=True).pictures
        assert pictures is not None
        hidden = pictures.mask
        for axis, edge in enumerate(pictures.patch, start=1):
            hidden = hidden.repeat_interleave(edge, dim=axis)
        hidden = hidden[:, None].expand_as(pictures.original)
        lit = ~hidden & (pictures.seen != 0)
        assert torch.equal(pictures.seen[lit], pictures.original[lit])
        assert bool((pictures.seen[hidden] == 0).all())
        for name, painted in pictures.reconstructions.items():
            true = pictures.targets.get(name, pictures.original)
            mask = hidden if painted.shape == hidden.shape else hidden[:, :1].expand_as(painted)
            assert torch.equal(painted[~mask], true[~mask])
            assert not torch.equal(painted[mask], true[mask])


def _optimizer(recipe: Recipe) -> AdamW:
    optim = Optim(lr=1e-2, weight_decay=0.05)
    return make_optimizer(decay_groups(recipe.named_parameters(), 0.05), optim, torch.device("cpu"))


def _updates(recipe: Recipe, optimizer: AdamW, entry: Input, steps: range) -> None:
    """Train as the engine does, on a batch that follows from the step."""
    for step in steps:
        torch.manual_seed(step)
        recipe.progress.fill_(step / 4)
        batch = batch_for(recipe, entry, step)
        optimizer.zero_grad(set_to_none=True)
        recipe(batch, batch.rng).loss.backward()
        optimizer.step()
        recipe.progress.fill_((step + 1) / 4)
        if recipe.updated():
            optimizer.state.clear()


@dataclass
class Watched:
    """What happened in one step: every plan with the batch and grid it was made for, and what the encoder answered."""

    plans: list[tuple[Batch, Grid, Plan]]
    tokens: list[Tokens]


class _Watch:
    """Stand in for a recipe's masker and note what it is asked and says."""

    def __init__(self, masker: Masker, seen: Watched) -> None:
        self.masker, self.seen = masker, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.masker, name)

    def __call__(self, batch: Batch, grid: Grid, *rest: Any) -> Plan:
        if batch.image.requires_grad:
            batch.image.retain_grad()
        plan = self.masker(batch, grid, *rest)
        self.seen.plans.append((batch, grid, plan))
        return plan


def watched(recipe: Recipe, batch: Batch) -> Watched:
    """Run one step and tell what was planned and what the encoder made of it; the recipe must ask `self.masker`."""
    seen = Watched([], [])
    masker: Any = recipe.masker
    hook = recipe.encoder.register_forward_hook(lambda _, __, tokens: seen.tokens.append(tokens))
    recipe.masker = _Watch(masker, seen)  # type: ignore[assignment]
    try:
        recipe(batch, batch.rng)
    finally:
        hook.remove()
        recipe.masker = masker
    return seen


def loss_and_gradients(recipe: Recipe, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Run one step and give its loss and every parameter's gradient."""
    recipe.zero_grad(set_to_none=True)
    output = recipe(batch, batch.rng)
    output.loss.backward()
    return output.loss.item(), {n: p.grad.clone() for n, p in recipe.named_parameters() if p.grad is not None}


def check_ranks(names: tuple[str, ...]) -> None:
    """Assert that two ranks with unequal validity form the loss and gradients of one process on the joined batch."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (folder, names), nprocs=2, join=True)
        for name in names:
            for entry in INPUTS.values():
                recipe = _seeded(name)
                loss, gradients = loss_and_gradients(recipe, batch_for(recipe, entry))
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
            recipe = _seeded(name)
            loss, gradients = loss_and_gradients(recipe, batch_for(recipe, entry).take(rows))
            torch.save({"loss": loss, "gradients": gradients}, Path(folder) / f"{name}.{entry.name}.{rank}.pt")
    distributed.destroy_process_group()
