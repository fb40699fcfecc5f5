"""The student as its own teacher: no weights of its own, no change of the student's mode."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.teachers.itself import Itself
from core.testing.samples import SCENE, encoder_spec, ragged_batch


def test_it_changes_as_the_student_does():
    student = encoder_spec().build().eval()
    teacher = Itself().build(student)
    batch, _ = student.prepare(ragged_batch(SCENE))
    before = teacher.observe(batch).value
    with torch.no_grad():
        student.norm.bias.add_(1.0)
    torch.testing.assert_close(teacher.observe(batch).value, before + 1.0)
    assert not list(teacher.parameters())
    assert not teacher.state_dict()


def test_the_student_goes_on_training_and_wanting_gradients():
    student = replace(encoder_spec(), drop_path=0.5).build().train()
    teacher = Itself().build(student)
    batch, _ = student.prepare(ragged_batch(SCENE))
    teacher.observe(batch)
    assert all(module.training for module in student.modules())
    assert student.class_token.requires_grad
