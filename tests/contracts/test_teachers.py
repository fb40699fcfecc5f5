"""Every teacher of the folder sits the exam, in 2D with six and fourteen bands and in 3D with 5 x 1 x 1 mm voxels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core import registry
from core.testing.samples import INPUTS, encoder_spec, teacher_of
from core.testing.teacher_contract import TeacherContract


@pytest.fixture(params=registry.names("teachers"))
def name(request):
    return request.param


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


def build(name, seed):
    torch.manual_seed(seed)
    spec = replace(encoder_spec(), drop_path=0.5)
    part = registry.get("teachers", name)
    student = spec.build()
    return student, (teacher_of(spec) if name == "frozen" else part()).build(student)


@pytest.fixture
def pair(name):
    return build(name, 0)


@pytest.fixture
def again(name):
    return lambda: build(name, 1)


class TestTeachers(TeacherContract):
    pass


def test_the_folder_is_visited():
    assert set(registry.names("teachers")) == {"ema", "frozen", "itself", "random_start"}
