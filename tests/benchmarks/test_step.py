"""The step does the work that its formula says: no hidden patch is encoded, nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.measure import Ratio, interleave, train_flops, train_step
from benchmarks.ours import HalfseenMae
from benchmarks.plain_mae import PlainAllTokens, PlainMae
from benchmarks.sizes import SIZES, all_token_flops, block_flops, mae_flops

WORK = replace(SIZES["tiny"], batch=2)


@pytest.mark.parametrize(
    ("module", "formula"),
    [(HalfseenMae, mae_flops), (PlainMae, mae_flops), (PlainAllTokens, all_token_flops)],
    ids=["ours", "plain", "all tokens"],
)
def test_flops_are_within_3_percent_of_the_formula(module: type[nn.Module], formula) -> None:
    images = torch.randn(WORK.batch, 3, WORK.image, WORK.image)
    counted = train_flops(module(WORK), images) / (3 * formula(WORK))
    assert counted == pytest.approx(1.0, abs=0.03)


def test_formula_gives_the_published_cost_of_mae_base() -> None:
    base = replace(SIZES["tiny"], width=768, heads=12, decoder_width=512, decoder_heads=16, decoder_depth=8)
    assert mae_flops(base) / 1e9 == pytest.approx(19.4, abs=0.05)
    assert all_token_flops(base) / 1e9 == pytest.approx(35.2, abs=0.05)
    assert block_flops(10, 8) == 24 * 10 * 64 + 4 * 100 * 8


def test_one_step_of_ours_lowers_the_loss_on_its_own_batch() -> None:
    work = replace(WORK, image=64, depth=2, decoder_depth=1)
    images = torch.randn(2, 3, 64, 64)
    module = HalfseenMae(work)
    step = train_step(module, images, lr=1e-3)
    before = module(images).item()
    for _ in range(5):
        step()
    assert module(images).item() < before


def test_interleave_times_every_step_once_per_round_and_starts_with_another_each_time() -> None:
    calls: list[str] = []
    times = interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(calls) == "cab" + "abc" + "bca" + "cab"


def test_ratio_is_the_median_of_pairs_and_the_ratio_of_the_best() -> None:
    ratio = Ratio.of([2.0, 9.0, 3.0], [1.0, 3.0, 3.0])
    assert ratio == Ratio(median=2.0, best=2.0)
