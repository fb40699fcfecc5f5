"""The plan's numbers against published and measured ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core.batch import Batch
from core.cli.plan import cost, plan_text, sketch
from core.engine.config import Pretrain
from core.engine.loop import build
from tests.core.cli.presets import base, tiny


def _entry(config: Pretrain):  # type: ignore[no-untyped-def]
    return config.recipe.encoder.contract.inputs[0]


def test_mae_base_costs_what_the_formula_says() -> None:
    """ViT-B/16 at 224 with a decoder of 8 x 512: 19.4 GFLOP forward."""
    config = base()
    one = cost(sketch(config), config, _entry(config))
    assert (one.tokens, one.seen) == (196, 49)
    assert one.forward == pytest.approx(19.4e9, rel=0.005)


def test_operations_agree_with_a_count_of_the_real_step() -> None:
    config = tiny()
    recipe, entry = build(config.recipe, 0).eval(), _entry(config)
    image = torch.rand(1, 3, *entry.size)
    batch = Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.ones(1, 2),
        unit="px",
        offset=torch.zeros(1, 3),
        scale=torch.ones(1, 3),
        key=torch.zeros(1, dtype=torch.int64),
        index=torch.zeros(1, dtype=torch.int64),
        row=torch.zeros(1, dtype=torch.int64),
    )
    # the counter knows no formula for the CPU's fused attention
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        recipe(batch, batch.rng)
    assert cost(sketch(config), config, entry).forward == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_sketch_has_the_parameters_of_the_real_recipe_and_no_memory() -> None:
    config = tiny()
    drawn, real = sketch(config), build(config.recipe, 0)
    assert {n: p.shape for n, p in drawn.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert all(p.is_meta for p in drawn.parameters())


def test_plan_says_steps_samples_and_epochs() -> None:
    text = plan_text(tiny(), {"photograph": 400})
    assert "64 tokens per sample, 16 seen by the encoder (25%)" in text
    assert "about 100 steps, 1600 samples, 4.0 epochs" in text
    assert "epochs" not in plan_text(tiny(), {})
