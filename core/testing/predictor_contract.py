"""What every predictor keeps, of each encoder that it accepts, in 2D and 3D: shape, reach, no leak, no batch mates.

A test class gives the fixtures `name` and `entry` and inherits the exam; see tests/contracts/test_predictors.py.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from core import registry
from core.batch import Batch
from core.contract import Contract, Input
from core.encoders.base import Backbone, EncoderSpec, Tokens
from core.encoders.convnet import ConvNetSpec
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.groups import cut
from core.maskers.random import Random
from core.plan import Plan
from core.predictors.base import PredictorSpec
from core.predictors.transformer import TransformerSpec
from core.recipes._one_view import inner_levels
from core.testing.samples import grouped, ragged_batch

MASKER = Random(ratio=0.6)
SIZES: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2}  # of required fields, by their names
REFUSED = {  # kinds of encoder that a predictor must refuse, and no other
    "transformer": {"swinv2"},
    "u_decoder": {"grouped"},
    "linear": set[str](),
}


class PredictorContract:
    """The exam."""

    def test_predicts_every_token_of_the_plan(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            step = run(case, ragged_batch(case.entry))
            assert step.prediction.shape == (4, case.entry.grid().num_tokens, case.values)
            assert len(step.plan.see.sum(1).unique()) > 2
            assert bool(torch.isfinite(step.prediction).all())

    def test_predicts_any_number_of_values(self, name: str, entry: Input) -> None:
        for case in suited(name, entry, values=5):
            step = run(case, ragged_batch(case.entry))
            assert step.prediction.shape == (4, case.entry.grid().num_tokens, 5)
            assert float(step.prediction[step.plan.hide].detach().std()) > 0.0

    def test_every_parameter_learns_from_hidden_tokens(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            step = run(case, ragged_batch(case.entry))
            step.prediction[step.plan.hide].square().sum().backward()
            for parameter, value in case.predictor.named_parameters():
                assert value.grad is not None, parameter
                assert bool(torch.isfinite(value.grad).all()), parameter
                assert float(value.grad.abs().max()) > 0.0, parameter

    def test_no_two_hidden_tokens_are_predicted_alike(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            step = run(case, ragged_batch(case.entry).take([0]))
            hidden = step.prediction[step.plan.hide].detach().double()
            assert len(hidden) >= 10
            assert float(torch.pdist(hidden).min()) > 1e-6, case.kind

    def test_hidden_and_missing_content_is_not_read(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            batch, _ = case.encoder.prepare(ragged_batch(case.entry))
            image = batch.image.clone().requires_grad_()
            step = run(case, Batch(**{f.name: getattr(batch, f.name) for f in fields(Batch)} | {"image": image}))
            step.prediction.square().sum().backward()
            assert image.grad is not None
            reached = cut(image.grad, case.entry.bands, case.entry.grid()).abs().amax(dim=2)
            assert bool((reached[~step.plan.see] == 0.0).all()), case.kind
            assert float(reached[step.plan.see].mean()) > 0.0, case.kind

    def test_seen_tokens_go_back_to_their_places(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            if predictor_spec(name).reads_hidden and "drop" in case.encoder.abilities:
                prepared, _ = case.encoder.prepare(ragged_batch(case.entry))
                plan = MASKER(prepared, case.entry.grid(), prepared.rng)
                tokens = case.encoder(prepared, plan, levels=case.levels)
                before = case.predictor(tokens, plan, prepared)
                tokens.value.data[0, 2] += 1.0
                moved = (case.predictor(tokens, plan, prepared) != before).any(2).nonzero().tolist()
                assert moved == [[0, int(plan.see[0].nonzero()[2])]]
                assert not bool(before[~plan.see].any())

    def test_a_batch_mate_that_sees_everything_moves_no_token(self, name: str, entry: Input) -> None:
        """Then there are as many slots as tokens, and yet those of the other sample are no places of the grid."""
        for case in suited(name, entry):
            if "drop" not in case.encoder.abilities:
                continue
            batch, _ = case.encoder.prepare(ragged_batch(case.entry).take([0, 0]))
            see = torch.ones(2, case.entry.grid().num_tokens, dtype=torch.bool)
            see[1, ::2] = False
            found = []
            for rows in ([0, 1], [1]):
                plan, own = Plan(see=see[rows], hide=~see[rows]), batch.take(rows)
                tokens = case.encoder(own, plan, levels=case.levels)
                assert tokens.full_grid is False
                found.append(case.predictor(tokens, plan, own)[-1])
            torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)

    def test_batch_mates_change_nothing(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            together = run(case, ragged_batch(case.entry))
            for sample in range(3):
                alone = run(case, ragged_batch(case.entry).take([sample]))
                known = alone.plan.hide[0] | alone.plan.see[0]
                torch.testing.assert_close(
                    alone.prediction[0, known], together.prediction[sample, known], rtol=1e-4, atol=1e-4
                )

    def test_works_in_half_precision(self, name: str, entry: Input) -> None:
        for case in suited(name, entry):
            with torch.autocast("cpu", torch.bfloat16):
                step = run(case, ragged_batch(case.entry))
                step.prediction[step.plan.hide].float().square().mean().backward()
            assert bool(torch.isfinite(step.prediction).all()), case.kind

    def test_what_does_not_suit_is_refused_with_a_sentence(self, name: str, entry: Input) -> None:
        accepted = {case.kind for case in suited(name, entry)}
        assert accepted, "a predictor that suits no encoder"
        if name in REFUSED:
            assert set(encoder_specs(entry)) - accepted == REFUSED[name]


@dataclass(frozen=True)
class Case:
    """A predictor built for an encoder of one input.

    Attributes:
        kind: of encoder.
        entry: the input, with band groups in the kind `grouped`.
        encoder: in evaluation mode.
        predictor: the module.
        levels: stages that the predictor reads.
        values: P.
        token: hidden tokens are replaced by a mask token, not left out.
    """

    kind: str
    entry: Input
    encoder: Backbone
    predictor: nn.Module
    levels: tuple[int, ...]
    values: int
    token: bool


@dataclass(frozen=True)
class Step:
    """What was hidden and what was predicted."""

    plan: Plan
    prediction: Tensor


def encoder_specs(entry: Input) -> dict[str, EncoderSpec]:
    """Describe tiny encoders of one input, by kind: plain, hierarchical with ever finer and ever coarser maps, grouped."""
    contract, groups = Contract(inputs=(entry,)), Contract(inputs=(grouped(entry),))
    window = (2,) * entry.ndim
    return {
        "vit": ViTSpec(contract=contract, width=24, depth=2, heads=2),
        "convnet": ConvNetSpec(contract=contract, widths=(8, 12, 16), depths=(1, 1, 1), kernel_2d=3, kernel_3d=3),
        "swinv2": SwinV2Spec(contract=contract, width=12, depths=(1, 1), heads=(2, 2), window=window),
        "grouped": ViTSpec(contract=groups, width=24, depth=2, heads=2),
    }


def predictor_spec(name: str) -> PredictorSpec:
    """Describe any predictor of the folder at tiny size: required fields by name or type, the rest is its default."""
    part = registry.get("predictors", name)
    hints = typing.get_type_hints(part)
    given: dict[str, Any] = {}
    for field in fields(part):
        if field.default is MISSING and field.default_factory is MISSING:
            nested = hints[field.name] is PredictorSpec
            assert nested or field.name in SIZES, f"predictor '{name}': give '{field.name}' a size in this file"
            given[field.name] = TransformerSpec(**SIZES) if nested else SIZES[field.name]
    spec: PredictorSpec = part(**given)
    return spec


def suited(name: str, entry: Input, values: int | None = None) -> Iterator[Case]:
    """Build a predictor for each kind of encoder that it does not refuse; anything but a refusal fails the test."""
    for kind, spec in encoder_specs(entry).items():
        torch.manual_seed(0)
        encoder = spec.build().eval()
        predictor, (own,) = predictor_spec(name), spec.contract.inputs
        num_values = values or max(len(group) for group in own.groups or (own.bands,)) * own.grid().voxels
        try:
            levels = inner_levels(encoder, predictor)
            module = predictor.build(encoder, {own.name: num_values})
        except ConfigError as refusal:
            refused = str(refusal)
            if not ("expected" in refused and ("choose" in refused or "name" in refused)):
                raise AssertionError(f"'{name}' refuses '{kind}' without saying what to do: {refused}") from refusal
            continue
        token = predictor.reads_hidden or "drop" not in encoder.abilities
        yield Case(kind, own, encoder, module.eval(), levels, num_values, token)


def run(case: Case, batch: Batch) -> Step:
    """Mask, encode and predict one batch."""
    prepared, _ = case.encoder.prepare(batch)
    plan = MASKER(prepared, case.entry.grid(), prepared.rng)
    extra: dict[str, Any] = {}
    if case.token:
        extra = {"mask_token": torch.linspace(-1.0, 1.0, case.encoder.level_width(0))[None, None]}
    tokens: Tokens = case.encoder(prepared, plan, levels=case.levels, **extra)
    return Step(plan, case.predictor(tokens, plan, prepared))
