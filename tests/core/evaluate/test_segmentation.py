from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from core.errors import DataError
from core.evaluate.segmentation import (
    MAP_METRICS,
    confusion,
    dice_per_class,
    iou_per_class,
    map_scores,
    mean_dice,
    mean_iou,
    pixel_accuracy,
    segmentation_scores,
)

DRAW = np.random.Generator(np.random.Philox(key=3))


def maps(images: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.from_numpy(DRAW.integers(-1, classes, (images, 9, 7)))
    answers = torch.from_numpy(DRAW.integers(0, classes, (images, 9, 7)))
    answers = torch.where((torch.arange(9 * 7).reshape(9, 7) % 2 == 0) & (labels >= 0), labels, answers)
    return labels, answers


def test_each_image_has_the_table_that_sklearn_counts_of_its_labelled_pixels() -> None:
    labels, answers = maps()
    tables = confusion(labels, answers, 4)
    for image in range(len(labels)):
        known = (labels[image] >= 0).numpy()
        expected = confusion_matrix(labels[image].numpy()[known], answers[image].numpy()[known], labels=range(4))
        np.testing.assert_array_equal(tables[image].numpy(), expected)


def test_scores_equal_sklearns_and_any_resample_is_a_repetition_of_images() -> None:
    labels, answers = maps()
    tables = confusion(labels, answers, 4).numpy()
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 0, 1, 2]], dtype=np.float64)
    for draw, counts in enumerate(weights.astype(int)):
        picked = np.repeat(np.arange(5), counts)
        truth, answer = labels[picked].numpy().ravel(), answers[picked].numpy().ravel()
        truth, answer = truth[truth >= 0], answer[truth >= 0]
        expected = jaccard_score(truth, answer, average=None)
        np.testing.assert_allclose(iou_per_class(tables, weights)[draw], expected)
        np.testing.assert_allclose(mean_iou(tables, weights)[draw], expected.mean())
        np.testing.assert_allclose(mean_dice(tables, weights)[draw], f1_score(truth, answer, average="macro"))
        np.testing.assert_allclose(pixel_accuracy(tables, weights)[draw], (truth == answer).mean())


def test_a_class_that_is_nowhere_counts_in_no_mean() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    answers = torch.tensor([[[0, 1, 1, 1]]])
    tables = confusion(labels, answers, 3).numpy()
    once = np.ones((1, 1))
    np.testing.assert_allclose(iou_per_class(tables, once), [[1 / 2, 2 / 3, np.nan]])
    np.testing.assert_allclose(dice_per_class(tables, once), [[2 / 3, 4 / 5, np.nan]])
    assert mean_iou(tables, once)[0] == pytest.approx(7 / 12)
    assert map_scores(tables) == pytest.approx(
        {"mean IoU": 7 / 12, "mean Dice": 11 / 15, "balanced pixel accuracy": 3 / 4, "pixel accuracy": 3 / 4}
    )


def test_pixels_without_a_label_change_nothing_whatever_is_answered_there() -> None:
    labels, answers = maps()
    other = torch.where(labels < 0, 3 - answers, answers)
    assert torch.equal(confusion(labels, answers, 4), confusion(labels, other, 4))
    assert int(confusion(labels, answers, 4).sum()) == int((labels >= 0).sum())


def test_rows_have_intervals_of_groups_and_one_per_class() -> None:
    labels, answers = maps(images=6)
    labels[labels == 3] = 2
    answers[answers == 3] = 2
    tables = confusion(labels, answers, 4).numpy()
    groups = ["a", "a", "b", "b", "c", "c"]
    rows = segmentation_scores(tables, groups, "wxyz", features="test", method="linear", draws=200, seed=0)
    by_name = {row.metric: row for row in rows}
    assert list(by_name) == [*MAP_METRICS, *(f"{kind} of {name}" for kind in ("IoU", "Dice") for name in "wxy")]
    for row in rows:
        assert row.low <= row.value <= row.high
    assert by_name["IoU of x"].value == pytest.approx(iou_per_class(tables, np.ones((1, 6)))[0, 1])
    one = segmentation_scores(tables[:4], ["a"] * 2 + ["b"] * 2, "wxyz", features="", method="", draws=200, seed=0)
    pairs = {mean_iou(tables[:4], np.array([w], dtype=float))[0] for w in ([2, 2, 0, 0], [0, 0, 2, 2], [1, 1, 1, 1])}
    assert {one[0].low, one[0].high} <= pairs  # whole groups were drawn, never single images
    with pytest.raises(DataError, match="at least 2 groups"):
        segmentation_scores(tables, ["a"] * 6, "wxyz", features="", method="", draws=200, seed=0)


def test_a_label_beyond_the_classes_is_refused_and_not_counted_in_the_next_image() -> None:
    labels = torch.tensor([[[0, 2]], [[0, 1]]])
    with pytest.raises(DataError, match="expected class numbers below 2, got the label 2"):
        confusion(labels, torch.zeros_like(labels), 2)


@pytest.mark.parametrize("answer", [-1, 2])
def test_an_answer_that_is_no_class_is_refused_where_it_would_be_counted(answer: int) -> None:
    labels = torch.tensor([[[0, -1]], [[0, 1]]])
    answers = torch.zeros_like(labels)
    answers[0, 0, 1] = answer
    assert confusion(labels, answers, 2).tolist() == [[[1, 0], [0, 0]], [[1, 0], [1, 0]]]
    answers[1, 0, 1] = answer
    with pytest.raises(DataError, match=f"expected answers of 0 to 1 wherever there is a label, got {answer}"):
        confusion(labels, answers, 2)


def test_a_class_of_a_single_group_has_a_score_and_no_interval() -> None:
    tables = np.zeros((4, 2, 2), np.int64)
    tables[:, 0, 0] = 50
    tables[0, 1] = [10, 30]
    rows = segmentation_scores(tables, list("abcd"), ("7", "water"), features="", method="", draws=400, seed=0)
    assert "IoU of class 7" in {row.metric for row in rows}
    water = {row.metric: row for row in rows}["Dice of water"]
    assert water.value == pytest.approx(60 / 70)
    assert np.isnan([water.low, water.high]).all()
    assert water.undefined == pytest.approx((3 / 4) ** 4, abs=0.06)
