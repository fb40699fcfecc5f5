from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from core.evaluate.regression import NUMBER_METRICS, regression_scores

DRAW = np.random.Generator(np.random.Philox(key=4))
TRUTH = DRAW.normal(300.0, 20.0, 40)
ANSWER = TRUTH + DRAW.normal(0.0, 10.0, 40)
GROUPS = [f"g{i // 4}" for i in range(40)]


def test_scores_equal_sklearns_also_of_a_resample() -> None:
    counts = DRAW.multinomial(40, [1 / 40] * 40)
    picked = np.repeat(np.arange(40), counts)
    weights = np.stack([np.ones(40), counts.astype(np.float64)])
    for name, reference in (("R2", r2_score), ("MAE", mean_absolute_error), ("RMSE", root_mean_squared_error)):
        expected = [reference(TRUTH, ANSWER), reference(TRUTH[picked], ANSWER[picked])]
        np.testing.assert_allclose(NUMBER_METRICS[name](TRUTH, ANSWER, weights), expected)


def test_images_without_a_label_count_nowhere() -> None:
    gaps = TRUTH.copy()
    gaps[:7] = np.nan
    wild = ANSWER.copy()
    wild[:7] = 1e9
    for metric in NUMBER_METRICS.values():
        np.testing.assert_allclose(
            metric(gaps, wild, np.ones((1, 40))), metric(TRUTH[7:], ANSWER[7:], np.ones((1, 33)))
        )


def test_equal_labels_have_no_variance_to_explain() -> None:
    assert np.isnan(NUMBER_METRICS["R2"](np.full(9, 0.1), ANSWER[:9], np.ones((1, 9)))[0])


def test_rows_name_the_number_where_there_are_several() -> None:
    one = regression_scores(
        TRUTH[:, None], ANSWER[:, None], GROUPS, ("height",), features="", method="", draws=200, seed=0
    )
    assert [row.metric for row in one] == ["R2", "MAE", "RMSE"]
    assert one[0].value == pytest.approx(r2_score(TRUTH, ANSWER))
    assert one[0].low < one[0].value < one[0].high
    both = np.stack([TRUTH, TRUTH], 1), np.stack([ANSWER, TRUTH], 1)
    two = regression_scores(*both, GROUPS, ("height", "age"), features="", method="", draws=200, seed=0)
    assert [row.metric for row in two[3:]] == ["R2 of age", "MAE of age", "RMSE of age"]
    assert two[3].value == pytest.approx(1.0)


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_a_large_offset_of_the_labels_does_not_drown_their_variance(offset: float) -> None:
    truth, answer = offset + np.arange(40.0), offset + np.arange(40.0) + DRAW.normal(0, 3, 40)
    got = NUMBER_METRICS["R2"](truth, answer, np.ones((1, 40)))[0]
    assert got == pytest.approx(r2_score(truth - offset, answer - offset), abs=1e-6)


def test_a_number_without_any_label_has_no_score() -> None:
    nothing = np.full(40, np.nan)
    assert all(np.isnan(metric(nothing, ANSWER, np.ones((1, 40)))[0]) for metric in NUMBER_METRICS.values())
