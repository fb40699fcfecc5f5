"""What every teacher promises: it is read as the student is, never trained, never noisy, and stored with the run.

A test class gives the fixtures `pair` (a student and the teacher built for it), `again` (builds another such pair, with
weights of its own) and `entry`, and inherits the exam; see tests/contracts/test_teachers.py. The student drops paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Backbone
from core.maskers.random import Random
from core.plan import Plan
from core.shapes import patchify, unpatchify
from core.teachers.base import Teacher
from core.testing.samples import ragged_batch

Pair = tuple[Backbone, Teacher]


class TeacherContract:
    """The exam."""

    def test_reads_what_the_student_reads(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        batch, _ = student.prepare(ragged_batch(entry))
        found, ours = teacher.observe(batch, levels=(1,), attention=True), student(batch)
        assert found.grid == ours.grid
        assert found.ok is not None
        assert torch.equal(found.ok, ours.ok)
        assert found.levels[1].value.shape[:2] == found.value.shape[:2] == ours.value.shape[:2]
        assert found.attention is not None
        assert bool((found.attention[:3].sum(2) > 0).all())

    @pytest.mark.parametrize("content", [1e4, math.nan])
    def test_missing_voxels_change_nothing(self, pair: Pair, entry: Input, content: float) -> None:
        student, teacher = pair
        batch = ragged_batch(entry)
        filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
        one, two = (teacher.observe(student.prepare(each)[0]).value for each in (batch, filled))
        assert bool(torch.isfinite(one).all())
        assert torch.equal(one, two)

    def test_a_plan_hides_from_it_as_from_the_student(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        batch, plan = _planned(student, entry)
        patches = patchify(batch.image, entry.patch)
        changed = torch.where(plan.see[..., None], patches, patches + 1.0)
        other = replace(batch, image=unpatchify(changed, entry.grid()))
        one, two = teacher.observe(batch, plan), teacher.observe(other, plan)
        assert torch.equal(one.value, two.value)
        assert torch.equal(one.prefix, two.prefix)
        assert not torch.equal(teacher.observe(batch).value, teacher.observe(other).value)

    def test_gives_no_gradient(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        batch, _ = student.prepare(ragged_batch(entry))
        asked = replace(batch, image=batch.image.requires_grad_())
        tokens = teacher.observe(asked, levels=(1,), attention=True)
        found = [tokens.value, tokens.prefix, tokens.levels[1].value, tokens.attention]
        assert not any(tensor is not None and tensor.requires_grad for tensor in found)
        assert not any(parameter.requires_grad for parameter in teacher.parameters())

    def test_stays_in_evaluation_mode(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        batch, _ = student.prepare(ragged_batch(entry))
        expected = teacher.observe(batch).value
        whole = nn.ModuleList([student, teacher]).train()
        for seed in range(3):
            torch.manual_seed(seed)
            assert torch.equal(teacher.observe(batch).value, expected)
        assert not any(module.training for module in teacher.modules())
        assert whole[0].training
        assert not torch.equal(student(batch).value, student(batch).value)

    def test_its_weights_are_stored_once_and_apart_from_the_student(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        own = teacher.state_dict()
        assert {name for name, _ in teacher.named_parameters()} <= own.keys()
        theirs = {value.data_ptr() for value in student.state_dict().values()}
        assert not any(value.data_ptr() in theirs for value in own.values())

    def test_a_restored_teacher_goes_on_as_the_first(self, pair: Pair, again: Callable[[], Pair], entry: Input) -> None:
        for step in range(4):
            _learn(pair[0], seed=step)
            pair[1].follow(pair[0], torch.tensor(step / 6))
        other = again()
        for mine, theirs in zip(other, pair, strict=True):
            mine.load_state_dict(theirs.state_dict())
        batch, _ = pair[0].prepare(ragged_batch(entry))
        for step in range(4, 6):
            one, two = (teacher.observe(batch).value for _, teacher in (pair, other))
            assert torch.equal(one, two)
            for student, teacher in (pair, other):
                _learn(student, seed=step)
                teacher.follow(student, torch.tensor(step / 6))

    def test_watching_changes_no_weight(self, pair: Pair, entry: Input) -> None:
        batch, plan = _planned(pair[0], entry)
        before = [_weights(module) for module in pair]
        pair[1].observe(batch, plan, levels=(1,), attention=True)
        assert all(_same(one, _weights(module)) for one, module in zip(before, pair, strict=True))

    def test_following_at_the_start_leaves_the_student_alone(self, pair: Pair, entry: Input) -> None:
        student, teacher = pair
        before = _weights(student)
        assert teacher.follow(student, torch.tensor(0.0)) is False
        assert _same(before, _weights(student))


def _planned(student: Backbone, entry: Input) -> tuple[Batch, Plan]:
    batch, _ = student.prepare(ragged_batch(entry))
    return batch, Random(ratio=0.5)(batch, entry.grid(), batch.rng)


def _learn(student: Backbone, seed: int) -> None:
    """Move every trainable weight, as an update does."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
