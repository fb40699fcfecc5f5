"""Restarts: when they are due, what becomes of both networks, and that everything follows from the seed."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.teachers.random_start import RandomStart
from core.testing.samples import encoder_spec


def pair(restarts=(0.5,), seed=0):
    torch.manual_seed(seed)
    student = encoder_spec().build()
    return student, RandomStart(restarts=restarts).build(student)


def moved(student):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    return weights(student)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, two):
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_it_begins_with_the_students_random_weights():
    student, teacher = pair()
    assert same(weights(student), weights(teacher.encoder))


def test_nothing_happens_before_the_share():
    student, teacher = pair()
    before, learnt = weights(teacher.encoder), moved(student)
    assert teacher.follow(student, torch.tensor(0.49)) is False
    assert same(before, weights(teacher.encoder))
    assert same(learnt, weights(student))


def test_at_the_share_the_teacher_becomes_the_student_who_begins_anew():
    student, teacher = pair()
    began, learnt = weights(student), moved(student)
    assert teacher.follow(student, torch.tensor(0.5)) is True
    assert same(learnt, weights(teacher.encoder))
    fresh = weights(student)
    for name in ("class_token", "stems.volume.weight", "blocks.1.mlp.fc1.weight"):
        assert not torch.equal(fresh[name], learnt[name])
        assert not torch.equal(fresh[name], began[name])
    assert torch.equal(fresh["norm.weight"], torch.ones(24))


def test_each_restart_happens_once_and_draws_other_weights():
    student, teacher = pair(restarts=(0.2, 0.6))
    told, drawn = [], []
    for step in range(10):
        told.append(teacher.follow(student, torch.tensor(step / 10)))
        drawn.append(student.class_token.clone())
    assert [step for step, restarted in enumerate(told) if restarted] == [2, 6]
    assert int(teacher.stage) == 2
    assert not torch.equal(drawn[2], drawn[6])


def test_a_share_that_float32_cannot_hold_is_not_missed():
    for share in (0.1, 0.3, 0.7, 0.9):
        student, teacher = pair(restarts=(share,))
        assert teacher.follow(student, torch.zeros(()).fill_(share)) is True


def test_it_knows_whether_the_student_has_begun():
    student, teacher = pair(restarts=(0.2, 0.4))
    told = []
    for step in range(5):
        teacher.follow(student, torch.tensor(step / 5))
        told.append(bool(teacher.fresh))
    assert told == [False, True, True, False, False]


def test_fresh_weights_follow_from_the_seed_alone():
    found = []
    for noise in (1, 2):
        student, teacher = pair(seed=5)
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        teacher.follow(student, torch.tensor(0.8))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(weights(student))
    assert same(*found)
    student, teacher = pair(seed=6)
    teacher.follow(student, torch.tensor(0.8))
    assert not torch.equal(student.class_token, found[0]["class_token"])


def test_other_modules_are_renewed_by_name():
    student, teacher = pair()
    teacher.follow(student, torch.tensor(0.5))
    one, two, three = (torch.nn.Linear(3, 3) for _ in range(3))
    for module, name in ((one, "predictor"), (two, "predictor"), (three, "head")):
        teacher.renew(module, lambda: torch.nn.Linear(3, 3), name)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, three.weight)


@pytest.mark.parametrize("restarts", [(0.0,), (1.0,), (0.5, 0.5), (0.6, 0.2)])
def test_restarts_that_never_come_are_refused(restarts):
    with pytest.raises(ConfigError, match="expected restarts at rising shares"):
        RandomStart(restarts=restarts)


def test_without_restarts_it_stays_random():
    student, teacher = pair(restarts=())
    before = weights(teacher.encoder)
    moved(student)
    assert teacher.follow(student, torch.tensor(0.9)) is False
    assert same(before, weights(teacher.encoder))
