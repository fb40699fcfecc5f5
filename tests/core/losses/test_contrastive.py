"""Contrast within a sample and across ranks: by hand, with what does not count left out, and without NaN."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from core.losses import masked_mean
from core.losses.contrastive import patch_contrast, sample_contrast

COUNTED = torch.tensor([[True, True, False, True], [False, True, False, False], [False] * 4])


def vectors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_two_tokens_by_hand():
    prediction = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    value = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    error = patch_contrast(prediction, value, torch.ones(1, 2, dtype=torch.bool), temperature=0.5)
    half = 1.0 / math.sqrt(2.0)
    first = math.log(math.exp(half / 0.5) + 1.0) - half / 0.5  # cosines 0.707 and 0
    second = math.log(math.exp(half / 0.5) + math.exp(2.0)) - 2.0  # cosines 0.707 and 1
    assert error.flatten().tolist() == pytest.approx([first, second], rel=1e-6)


def test_half_precision_changes_nothing():
    prediction, value = vectors(0, 2, 6, 16), vectors(1, 2, 6, 16)
    everywhere = torch.ones(2, 6, dtype=torch.bool)
    whole = patch_contrast(prediction, value, everywhere, temperature=0.2)
    among = sample_contrast(prediction[0], value[0], everywhere[0], temperature=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_contrast(prediction, value, everywhere, temperature=0.2), whole)
        assert torch.equal(sample_contrast(prediction[0], value[0], everywhere[0], temperature=0.2), among)


def test_symmetric_asks_both_ways():
    prediction, value = vectors(0, 2, 5, 3), vectors(1, 2, 5, 3)
    everywhere = torch.ones(2, 5, dtype=torch.bool)
    ways = [patch_contrast(*pair, everywhere, temperature=0.2) for pair in ((prediction, value), (value, prediction))]
    both = patch_contrast(prediction, value, everywhere, temperature=0.2, symmetric=True)
    torch.testing.assert_close(both, (ways[0] + ways[1]) / 2.0)
    assert not torch.allclose(*ways)


@pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
def test_tokens_that_do_not_count_are_neither_asked_nor_offered(content):
    prediction, value = vectors(0, 3, 4, 6), vectors(1, 3, 4, 6)
    error = patch_contrast(prediction, value, COUNTED, temperature=0.2)
    filled = [torch.where(COUNTED[..., None], t, content).requires_grad_() for t in (prediction, value)]
    again = patch_contrast(*filled, COUNTED, temperature=0.2, symmetric=False)
    assert torch.equal(error, again)
    assert bool((again[~COUNTED] == 0.0).all())
    kept = [t[:1, [0, 1, 3]] for t in (prediction, value)]
    alone = patch_contrast(*kept, torch.ones(1, 3, dtype=torch.bool), temperature=0.2)
    torch.testing.assert_close(error[0, [0, 1, 3]], alone[0])
    masked_mean(again, COUNTED[..., None]).backward()
    for tensor in filled:
        assert bool(torch.isfinite(tensor.grad).all())
        assert bool((tensor.grad[~COUNTED] == 0.0).all())


def test_a_single_token_is_found_for_sure():
    error = patch_contrast(vectors(0, 3, 4, 6), vectors(1, 3, 4, 6), COUNTED, temperature=0.2)
    assert error[1].abs().max() < 1e-6


def test_samples_by_hand_and_without_those_that_do_not_count():
    one, other = vectors(0, 4, 3), vectors(1, 4, 3)
    counted = torch.tensor([True, False, True, True])
    error = sample_contrast(one, other, counted, temperature=0.1)
    unit = [torch.nn.functional.normalize(t[counted], dim=-1) for t in (one, other)]
    expected = torch.nn.functional.cross_entropy(unit[0] @ unit[1].T / 0.1, torch.arange(3), reduction="none")
    torch.testing.assert_close(error[counted], expected)
    assert error[1] == 0.0
    back = sample_contrast(other, one, counted, temperature=0.1)
    both = sample_contrast(one, other, counted, temperature=0.1, symmetric=True)
    torch.testing.assert_close(both, (error + back) / 2.0)


def test_no_sample_at_all_gives_zero_and_no_gradient():
    one = vectors(0, 4, 3).requires_grad_()
    nothing = torch.zeros(4, dtype=torch.bool)
    loss = masked_mean(sample_contrast(one, vectors(1, 4, 3), nothing, temperature=0.1, symmetric=True), nothing)
    loss.backward()
    assert loss.item() == 0.0
    assert bool((one.grad == 0.0).all())


SAMPLES = torch.tensor([True, True, True, False, True, False])  # two ranks of three: unequal counts


def across(one: torch.Tensor, other: torch.Tensor, counted: torch.Tensor) -> dict[str, torch.Tensor]:
    one, other = one.clone().requires_grad_(), other.clone().requires_grad_()
    loss = masked_mean(sample_contrast(one, other, counted, temperature=0.2, symmetric=True), counted)
    loss.backward()
    return {"loss": loss.detach(), "one": one.grad, "other": other.grad}


@pytest.mark.slow
def test_two_ranks_equal_the_joined_batch(tmp_path: Path):
    """Each rank's gradient is summed over ranks and divided by their number, as DDP does with shared weights."""
    start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    joined = across(vectors(0, 6, 5), vectors(1, 6, 5), SAMPLES)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2.0, joined["loss"])
    for name in ("one", "other"):
        torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]) / 2.0, joined[name])


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    found = across(vectors(0, 6, 5)[rows], vectors(1, 6, 5)[rows], SAMPLES[rows])
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()
