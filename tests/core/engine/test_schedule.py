"""The learning rate at the places that matter."""

from __future__ import annotations

import itertools

import pytest

from core.engine.schedule import learning_rate


def rate(step: int, **changes: float) -> float:
    options = {"peak": 2.0, "warmup_steps": 4, "steps": 104, "final_share": 0.1} | changes
    return learning_rate(step, **options)  # type: ignore[arg-type]


def test_warm_up_rises_in_equal_parts_to_the_peak() -> None:
    assert [rate(step) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize(("step", "value"), [(29, 1.7364), (54, 1.1), (79, 0.4636), (104, 0.2)])
def test_cosine_passes_its_quarters(step: int, value: float) -> None:
    assert rate(step) == pytest.approx(value, abs=1e-4)


def test_rate_falls_all_the_way_and_never_reaches_zero_share() -> None:
    rates = [rate(step, final_share=0.0) for step in range(4, 104)]
    assert all(a > b > 0 for a, b in itertools.pairwise(rates))


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rate(0, warmup_steps=0) == 2.0
