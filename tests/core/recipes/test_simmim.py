"""SimMIM with an encoder that merges tokens: the recipe exam; two ranks with several; and the method's own claims."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from core.contract import Contract
from core.errors import ConfigError
from core.fills.mask_token import MaskToken
from core.maskers.cells import Cells
from core.predictors.transformer import TransformerSpec
from core.recipes.simmim import Simmim
from core.testing.encoder_contract import tiny_spec
from core.testing.recipe_contract import RecipeContract, loss_and_gradients
from core.testing.samples import INPUTS, SCENE, ragged_batch

ALL = Contract(inputs=tuple(INPUTS.values()))
KINDS = ["swin", "swinv2", "relative_vit"]


def build(kind: str, contract: Contract = ALL):
    torch.manual_seed(0)
    return Simmim(encoder=tiny_spec(kind, contract)).build()


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestSimmim(RecipeContract):
    @pytest.fixture
    def recipe(self):
        return build("swinv2")

    @pytest.fixture
    def fresh(self, entry):
        return lambda: build("swinv2", Contract(inputs=(entry,)))


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for kind in KINDS:
        for name, entry in INPUTS.items():
            rows = [0, 2] if rank == 0 else [1, 3]  # rank 1 has the missing corner and the sample without data
            loss, gradients = loss_and_gradients(build(kind), ragged_batch(entry).take(rows))
            torch.save({"loss": loss, "gradients": gradients}, Path(folder) / f"{kind}.{name}.{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one_process():
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_rank, (folder,), nprocs=2, start_method="forkserver")
        for kind in KINDS:
            for name, entry in INPUTS.items():
                loss, gradients = loss_and_gradients(build(kind), ragged_batch(entry))
                ranks = [torch.load(Path(folder) / f"{kind}.{name}.{rank}.pt") for rank in (0, 1)]
                assert sum(found["loss"] for found in ranks) / 2 == pytest.approx(loss, rel=1e-5)
                for key, gradient in gradients.items():
                    mean = (ranks[0]["gradients"][key] + ranks[1]["gradients"][key]) / 2
                    torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_absolute_error_of_hidden_measured_values():
    recipe = build("swinv2")
    batch, entry = recipe.encoder.prepare(ragged_batch(SCENE))
    seen = {}
    recipe.predictors["image"].register_forward_hook(lambda _, args, out: seen.update(plan=args[1], out=out))
    loss = recipe(batch, batch.rng).loss.item()
    size = entry.grid().tokens
    hidden = seen["plan"].hide.reshape(4, 1, *size).repeat_interleave(8, 2).repeat_interleave(8, 3)
    painted = seen["out"].detach().reshape(4, *size, 6, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(4, 6, 32, 48)
    scored = hidden & batch.valid
    error = (painted - batch.image).abs()
    assert loss == pytest.approx(float((error * scored).sum() / scored.sum()), rel=1e-5)


def test_its_defaults_are_those_of_the_paper():
    recipe = build("swin")
    assert recipe.masker == Cells(ratio=0.6)
    assert recipe.fill == MaskToken(stage=0)
    assert recipe.mask_token.shape == (1, 1, 16)
    assert recipe.branches["image"].terms["image"].where == "hide"


def test_a_mask_token_may_enter_after_a_stage():
    recipe = replace(Simmim(encoder=tiny_spec("swin", ALL)), fill=MaskToken(stage=1)).build()
    assert recipe.mask_token.shape == (1, 1, recipe.encoder.level_width(1))
    _, gradients = loss_and_gradients(recipe, ragged_batch(SCENE))
    assert float(gradients["mask_token"].abs().max()) > 0
    with pytest.raises(ConfigError, match="stage below 2"):
        replace(Simmim(encoder=tiny_spec("swin", ALL)), fill=MaskToken(stage=2)).build()


def test_a_predictor_that_needs_tokens_apart_refuses_an_encoder_that_merges_them():
    with pytest.raises(ConfigError, match="choose the predictor 'linear'"):
        Simmim(encoder=tiny_spec("swin", ALL), predictor=TransformerSpec(width=16, depth=1, heads=2)).build()


def test_hidden_cells_are_read_off_the_visible_ones():
    torch.manual_seed(0)
    recipe = Simmim(encoder=tiny_spec("swin", Contract(inputs=(SCENE,)))).build()
    batch = ragged_batch(SCENE).take([0, 1, 2])
    flat = torch.randn(3, 6, 1, 1).expand_as(batch.image)  # every sample has its own value in each band
    optimizer = torch.optim.AdamW(recipe.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        batch = replace(batch, image=flat, key=batch.key + step)
        optimizer.zero_grad()
        loss = recipe(batch, batch.rng).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
