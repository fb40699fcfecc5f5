from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from core.evaluate.inputs import check_features, check_groups, encode_labels


@pytest.mark.parametrize(
    ("labels", "names", "codes"),
    [
        ([3, 0, 10], ("0", "3", "10"), [1, 0, 2]),
        (["3", "0", "10"], ("0", "3", "10"), [1, 0, 2]),
        ([3.0, 0.0, 10.0], ("0", "3", "10"), [1, 0, 2]),
        (["mild", "none", "mild"], ("mild", "none"), [0, 1, 0]),
        (np.array([1, 0, 1], dtype=np.int32), ("0", "1"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
    ],
)
def test_numbers_are_ordered_by_value_and_names_by_alphabet(
    labels: Any, names: tuple[str, ...], codes: list[int]
) -> None:
    encoded = encode_labels(labels, ordinal=False)
    assert encoded.names == names
    assert encoded.codes.tolist() == codes


def test_a_declared_order_decides_the_numbers() -> None:
    order = ["none", "mild", "moderate", "severe"]
    encoded = encode_labels(["severe", "none", "mild"], ordinal=True, order=order)
    assert encoded.names == ("none", "mild", "severe")
    assert encoded.codes.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1, 1], r"labels of at least 2 classes, got \['1'\] for all 3"),
        ([1, None, 0], "rows 1 of 3 have none"),
        ([1.0, float("nan"), float("nan")], "rows 1, 2 of 3 have none"),
        (["a", "  ", "b"], "rows 1 of 3 have none"),
        (["a", "NaN", "b"], "rows 1 of 3 have none"),
        ([0.5, 1.0, 2.0], "expected class labels, got the measurement 0.5"),
    ],
)
def test_unusable_labels_are_a_sentence(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_labels(labels, ordinal=False)


def test_ordinal_names_without_an_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="ordinal labels that are names need their order"):
        encode_labels(["mild", "none"], ordinal=True)
    with pytest.raises(DataError, match=r"got also \['nonee'\]"):
        encode_labels(["mild", "nonee"], ordinal=True, order=["none", "mild"])


def test_features_that_are_not_finite_name_the_set_and_the_rows() -> None:
    features = np.ones((9, 4), dtype=np.float32)
    features[[2, 3, 4, 5, 6, 8], 1] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.nan]
    with pytest.raises(
        DataError, match=r"'random weights': expected finite features, but rows 2, 3, 4, 5, 6 and 1 more of 9"
    ):
        check_features({"encoder": np.ones((9, 2), np.float32), "random weights": [np.ones((9, 4)), features]}, 9)


def test_features_of_another_length_or_none_are_refused() -> None:
    with pytest.raises(DataError, match=r"features \(M, D\) of 9 labelled images, got shape \(8, 4\)"):
        check_features({"encoder": np.ones((8, 4), np.float32)}, 9)
    with pytest.raises(ConfigError, match="at least one feature set"):
        check_features({}, 9)
    with pytest.raises(ConfigError, match="got an empty list"):
        check_features({"encoder": []}, 9)


def test_groups_must_be_there_for_every_image() -> None:
    assert check_groups([1, 1, "b"], 3).tolist() == ["1", "1", "b"]
    with pytest.raises(DataError, match="one group for each of 3 labelled images, got 2"):
        check_groups(["a", "b"], 3)
    with pytest.raises(DataError, match="rows 1 of 2 have none"):
        check_groups(["a", None], 2)
