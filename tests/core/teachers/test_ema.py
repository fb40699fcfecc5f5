"""The moving average: momentum by its schedule, the mean itself by hand."""

from __future__ import annotations

import math

import pytest
import torch

from core.errors import ConfigError
from core.teachers._weights import average
from core.teachers.ema import Ema
from core.testing.samples import encoder_spec


def momentum(spec: Ema, progress: float) -> float:
    return 1.0 - spec.share(torch.tensor(progress)).item()


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.99), (0.5, 0.995), (1.0, 1.0)])
def test_cosine_momentum_is_that_of_byol_and_latent_mim(progress, expected):
    assert momentum(Ema(start=0.99), progress) == pytest.approx(expected, abs=1e-7)
    quarter = 1.0 - (1.0 - 0.99) * (1.0 + math.cos(math.pi / 4)) / 2.0
    assert momentum(Ema(start=0.99), 0.25) == pytest.approx(quarter, abs=1e-7)


def test_linear_momentum_ends_early_and_stays():
    """The schedule of HPM: 0.999 to 0.9999 within 100 of 800 epochs."""
    spec = Ema(start=0.999, end=0.9999, schedule="linear", until=0.125)
    expected = {0.0: 0.001, 0.0625: 0.00055, 0.125: 0.0001, 0.7: 0.0001}
    for progress, share in expected.items():
        assert spec.share(torch.tensor(progress)).item() == pytest.approx(share, rel=1e-4)


def test_share_near_zero_keeps_its_digits():
    assert Ema(start=0.9999, end=0.99999).share(torch.tensor(1.0)).item() == pytest.approx(1e-5, rel=1e-5)


def test_average_by_hand():
    mean, module = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    with torch.no_grad():
        mean.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.weight.copy_(torch.tensor([[3.0, -2.0]]))
    average(mean, module, torch.tensor(0.25))
    assert mean.weight.tolist() == [[1.5, 1.0]]
    assert module.weight.tolist() == [[3.0, -2.0]]


def test_teacher_begins_as_the_student_and_lags_behind():
    student = encoder_spec().build()
    teacher = Ema(start=0.5, end=0.5).build(student)
    began = student.norm.bias.clone()
    assert torch.equal(teacher.encoder.norm.bias, began)
    with torch.no_grad():
        student.norm.bias.add_(1.0)
    assert teacher.follow(student, torch.tensor(0.3)) is False
    torch.testing.assert_close(teacher.encoder.norm.bias, began + 0.5)


def test_momentum_one_never_moves():
    student = encoder_spec().build()
    teacher = Ema().build(student)
    before = teacher.encoder.class_token.clone()
    with torch.no_grad():
        student.class_token.add_(1.0)
    teacher.follow(student, torch.tensor(1.0))
    assert torch.equal(teacher.encoder.class_token, before)


@pytest.mark.parametrize("options", [{"start": -0.1}, {"start": 0.9, "end": 0.8}, {"end": 1.1}])
def test_momentum_outside_its_range_is_refused(options):
    with pytest.raises(ConfigError, match="expected a momentum that rises within 0 to 1"):
        Ema(**options)


@pytest.mark.parametrize("until", [0.0, 1.5])
def test_a_schedule_that_never_ends_is_refused(until):
    with pytest.raises(ConfigError, match="for 'until'"):
        Ema(until=until)
