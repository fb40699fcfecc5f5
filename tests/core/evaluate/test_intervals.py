from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from core.evaluate import intervals
from core.evaluate.intervals import group_draws, interval_rows, percentile_interval
from core.evaluate.table import undefined_notes


def all_draws(groups: list[str], **options: int) -> np.ndarray:
    return np.concatenate(list(group_draws(groups, **options)))


def test_a_group_is_drawn_whole_and_every_draw_has_as_many_groups() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = all_draws(groups, draws=200, seed=1)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()


def test_draws_are_reproducible_and_do_not_depend_on_row_order_or_memory_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [f"g{i % 7}" for i in range(30)]
    weights = all_draws(groups, draws=150, seed=3)
    order = np.random.default_rng(0).permutation(30)
    shuffled = all_draws([groups[i] for i in order], draws=150, seed=3)
    np.testing.assert_array_equal(shuffled, weights[:, order])
    monkeypatch.setattr(intervals, "CHUNK", 30 * 11)
    np.testing.assert_array_equal(all_draws(groups, draws=150, seed=3), weights)
    assert (all_draws(groups, draws=150, seed=4) != weights).any()


def test_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    weights = all_draws([str(i) for i in range(400)], draws=2000, seed=0)
    low, high = percentile_interval(weights @ values / weights.sum(1))
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.08)
    assert low < values.mean() < high


def test_interval_over_groups_is_wider_than_over_images_that_repeat_each_other() -> None:
    """Ten copies of each of 40 values are 40 pieces of evidence, so the honest interval is sqrt(10) times as wide."""
    values = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    by_group = all_draws([str(i // 10) for i in range(400)], draws=2000, seed=0)
    by_image = all_draws([str(i) for i in range(400)], draws=2000, seed=0)
    widths = [np.diff(percentile_interval(w @ values / w.sum(1)))[0] for w in (by_group, by_image)]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(10), rel=0.1)


def test_coverage_of_the_interval_is_near_its_level() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    weights = all_draws([str(i) for i in range(60)], draws=400, seed=0)
    for _ in range(300):
        values = rng.normal(size=60)
        low, high = percentile_interval(weights @ values / 60)
        hits += low <= 0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_percentiles_leave_undefined_draws_out() -> None:
    samples = np.r_[np.arange(101.0), [np.nan] * 5]
    assert percentile_interval(samples) == pytest.approx((2.5, 97.5))
    assert percentile_interval(samples, level=0.5) == pytest.approx((25.0, 75.0))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_more_undefined_draws_than_an_interval_may_leave_out_leave_none() -> None:
    samples = np.r_[np.arange(95.0), [np.nan] * 5]
    assert np.isfinite(percentile_interval(samples)).all()
    samples[0] = np.nan
    assert np.isnan(percentile_interval(samples)).all()
    assert np.isfinite(percentile_interval(samples, level=0.9)).all()


@pytest.mark.parametrize(("holding", "given"), [(1, False), (2, False), (5, True)])
def test_what_few_groups_hold_has_an_interval_only_where_resamples_seldom_miss_them(holding: int, given: bool) -> None:
    held = np.arange(20) < holding
    values = np.where(held, np.linspace(0.2, 0.8, 20), 0.0)

    def score(weights: np.ndarray) -> np.ndarray:
        total = weights @ held
        return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)

    names = [str(group) for group in range(20)]
    (row,) = interval_rows({"score": score}, names, features="test", method="none", draws=4000, seed=1)
    assert row.undefined == pytest.approx((1 - holding / 20) ** 20, abs=0.03)
    assert row.value == pytest.approx(values[held].mean())
    assert (np.isfinite([row.low, row.high]).all(), row.low < row.high) == (given, given)
    (note,) = undefined_notes({row.metric: row.undefined})
    assert note.startswith(f"score: not defined in {100 * row.undefined:.3g} % of the resamples, ")
    assert ("which are left out" in note, "no interval" in note) == (given, not given)


def test_one_group_or_too_few_draws_are_refused() -> None:
    with pytest.raises(DataError, match=r"at least 2 groups to resample, got 1 \('p1'\)"):
        all_draws(["p1", "p1"], draws=100, seed=0)
    with pytest.raises(ConfigError, match="at least 100 bootstrap draws"):
        all_draws(["p1", "p2"], draws=99, seed=0)


def test_rows_of_several_scores_share_their_draws_and_hold_few_of_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=1000)
    groups = [str(i) for i in range(1000)]
    scores = {"mean": lambda w: w @ values / w.sum(1), "twice": lambda w: 2 * (w @ values) / w.sum(1)}
    options = {"features": "test", "method": "none", "draws": 1000, "seed": 0}
    monkeypatch.setattr(intervals, "CHUNK", 20_000)
    tracemalloc.start()
    mean, twice = interval_rows(scores, groups, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # all draws together are 8e6 bytes
    low, high = percentile_interval(all_draws(groups, draws=1000, seed=0) @ values / 1000)
    assert (mean.metric, mean.value) == ("mean", pytest.approx(values.mean()))
    assert (mean.low, mean.high) == pytest.approx((low, high))
    assert (twice.low, twice.high) == pytest.approx((2 * low, 2 * high))
