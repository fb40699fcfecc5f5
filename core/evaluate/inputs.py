"""From what a user has (label and group columns, feature arrays) to what the protocol needs, or a sentence why not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, DataError

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Labels:
    """Labels as class numbers.

    Attributes:
        codes: (M,) int64 in 0..K-1; for ordinal labels in their order.
        names: the K class names.
    """

    codes: NDArray[np.int64]
    names: tuple[str, ...]


def encode_labels(labels: Sequence[Any] | NDArray[Any], *, ordinal: bool, order: Sequence[Any] | None = None) -> Labels:
    """Number the classes: numbers and numerals by value, other names by alphabet, or all by a declared `order`.

    Only classes that occur are counted; the distance of two ordinal classes is that of their positions among those.

    Raises:
        DataError: labels are missing, are measurements rather than classes, name fewer than 2 classes, or are not in
            `order`.
        ConfigError: ordinal labels are names and no order was declared.
    """
    given = [value.item() if isinstance(value, np.generic) else value for value in labels]
    missing = [i for i, value in enumerate(given) if _is_missing(value)]
    if missing:
        raise DataError(
            f"expected a label for every image, but {_rows(missing, len(given))} have none: leave those images out."
        )
    numbers = [_number(value) for value in given]
    numeric = all(number is not None for number in numbers)
    if numeric and any(number != int(number) for number in numbers if number is not None):
        example = next(value for value, number in zip(given, numbers, strict=True) if number != int(number or 0))
        raise DataError(
            f"expected class labels, got the measurement {example}: choose another label column, bin this one, or "
            "learn it as a number with `finetune regress`."
        )
    names = [
        str(int(number)) if numeric and number is not None else str(value)
        for value, number in zip(given, numbers, strict=True)
    ]
    present = set(names)
    if len(present) < 2:
        raise DataError(f"expected labels of at least 2 classes, got {sorted(present)} for all {len(names)} images.")
    if order is not None:
        declared = [str(entry) for entry in order]
        unknown = sorted(present - set(declared))
        if unknown or len(set(declared)) != len(declared):
            raise DataError(f"expected labels from the declared order {declared}, each once, got also {unknown}.")
        classes = [name for name in declared if name in present]
    elif numeric:
        classes = sorted(present, key=int)
    elif ordinal:
        raise ConfigError(
            f"ordinal labels that are names need their order, got {sorted(present)}: declare it from least to most, "
            "or evaluate them as classes without order (--ordinal=no)."
        )
    else:
        classes = sorted(present)
    number_of = {name: number for number, name in enumerate(classes)}
    return Labels(np.array([number_of[name] for name in names], dtype=np.int64), tuple(classes))


def check_groups(groups: Sequence[Any] | NDArray[Any], images: int) -> NDArray[np.str_]:
    """Give the groups (M,) as strings.

    Raises:
        DataError: not one per image, or missing for some.
    """
    if len(groups) != images:
        raise DataError(f"expected one group for each of {images} labelled images, got {len(groups)}.")
    missing = [i for i, value in enumerate(groups) if _is_missing(value)]
    if missing:
        raise DataError(
            f"expected a group for every image, but {_rows(missing, images)} have none: "
            "give each its patient, scene or slide."
        )
    return np.array([str(value) for value in groups], dtype=np.str_)


def check_features(
    feature_sets: Mapping[str, Features | Sequence[Features]], images: int
) -> dict[str, tuple[Features, ...]]:
    """Give each named entry as one or more float32 arrays (M, D); several are seeds of the same thing.

    Raises:
        ConfigError: no feature set.
        DataError: a wrong shape, or numbers that are not finite; the message names the set and its rows.
    """
    if not feature_sets:
        raise ConfigError("expected at least one feature set to evaluate, got none.")
    checked: dict[str, tuple[Features, ...]] = {}
    for name, entry in feature_sets.items():
        arrays = [entry] if isinstance(entry, np.ndarray) else list(entry)
        if not arrays:
            raise ConfigError(f"'{name}': expected a feature array, or one per seed, got an empty list.")
        checked[name] = tuple(_check_array(name, array, images) for array in arrays)
    return checked


def _check_array(name: str, array: Features, images: int) -> Features:
    array = np.asarray(array)
    if array.ndim != 2 or len(array) != images or not array.shape[1]:
        raise DataError(f"'{name}': expected features (M, D) of {images} labelled images, got shape {array.shape}.")
    array = np.ascontiguousarray(array, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        raise DataError(
            f"'{name}': expected finite features, but {_rows(bad.tolist(), images)} hold NaN or infinity: "
            "look at those images, and at the normalisation of the encoder's input."
        )
    return array


def _rows(rows: Sequence[int], total: int) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    more = "" if len(rows) <= 5 else f" and {len(rows) - 5} more"
    return f"rows {shown}{more} of {total}"


def _is_missing(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, (float, np.floating)) and math.isnan(value))
        or (isinstance(value, str) and value.strip().lower() in ("", "nan"))
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
