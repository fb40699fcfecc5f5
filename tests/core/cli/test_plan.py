"""The plan's numbers against published and measured ones."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core import registry
from core.batch import Batch
from core.cli.plan import cost, plan_text, sketch
from core.contract import Contract, Input, Normalisation
from core.encoders.base import EncoderSpec
from core.engine.config import Pretrain
from core.engine.loop import build
from core.testing.samples import recipe_spec
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


ENTRY = Input(
    name="photograph",
    bands=("red", "green", "blue"),
    patch=(8, 8),
    size=(64, 64),
    spacing=(1.0, 1.0),
    unit="px",
    normalisation=Normalisation(method="per_image"),
)


def _planned(name: str, encoder: EncoderSpec | None = None) -> Pretrain:
    return replace(tiny(), recipe=replace(recipe_spec(name, ENTRY), **({"encoder": encoder} if encoder else {})))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", registry.names("recipes"))
def test_every_recipe_is_planned(name: str) -> None:
    text = plan_text(_planned(name), {})
    assert f"recipe       {name}: {registry.get('recipes', name).cost:.2f} times the compute of mae" in text
    forward = re.search(r"([\d.e+-]+) GFLOP forward per sample", text)
    assert forward is not None
    assert float(forward[1]) > 0


@pytest.mark.parametrize("kind", ["swin", "swinv2"])
def test_an_encoder_that_merges_tokens_is_counted_stage_by_stage(kind: str) -> None:
    shape = {"width": 24, "depths": (2, 2), "heads": (2, 2), "window": (4, 4)}
    encoder: EncoderSpec = registry.get("encoders", kind)(contract=Contract(inputs=(ENTRY,)), **shape)
    config = _planned("simmim", encoder)
    one = cost(sketch(config), config, ENTRY)
    block = 12 * 2.0  # operations per token and squared width: qkv 3, projection 1, MLP 8
    linear = 2 * block * (24**2 * 64 + 48**2 * 16)
    attention = 2 * 4 * 16 * (24 * 64 + 48 * 16)
    stem, merging, head = 2 * 64 * 3 * 64 * 24, 2 * 4 * 24 * 48 * 16, 2 * 48 * 4 * 192 * 16
    assert one.forward == pytest.approx(linear + attention + stem + merging + head, rel=0.1)


def test_an_encoder_of_convolutions_counts_its_kernels_and_keeps_activations() -> None:
    config = _planned("spark")
    one = cost(sketch(config), config, ENTRY)
    assert one.activations > 0
    assert one.forward > cost(sketch(_planned("mae")), _planned("mae"), ENTRY).forward / 10


def test_a_recipe_with_views_is_counted_for_both() -> None:
    both, plain = _planned("ibot"), _planned("simmim")
    assert cost(sketch(both), both, ENTRY).forward > 2 * cost(sketch(plain), plain, ENTRY).forward


def test_a_run_that_makes_its_own_vocabulary_is_planned_with_a_full_one() -> None:
    config = _planned("mrm")
    untold = replace(config, recipe=replace(config.recipe, text=replace(config.recipe.text, tokenizer="")))  # type: ignore[attr-defined, call-arg]
    words = dict(sketch(untold).named_parameters())["text.words.weight"]
    assert words.shape[0] == 30_000
    assert words.is_meta
    assert "the vocabulary, of at most 30,000 pieces, is made from the reports" in plan_text(untold, {})


def test_a_teacher_is_held_without_gradient_and_moments() -> None:
    config = _planned("maskalign")
    recipe = sketch(config)
    learnt = sum(p.numel() for p in recipe.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in recipe.parameters())
    assert 0 < learnt < everything
    assert f"{(16 * learnt + 4 * (everything - learnt)) / 1e6:.1f} MB with gradient" in plan_text(config, {})
