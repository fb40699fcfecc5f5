"""What is to be answered: the interface of labels of any kind, split by group, with their loss and their scores.

There is no way to train on test images or to choose a check by them: every batch's rows are looked up in the declared
split, and a row of another split is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.batch import Batch
from core.errors import DataError
from core.finetune.config import Finetune

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Example:
    """A batch with what is labelled in its images, for labels that are as large as images.

    Attributes:
        batch: the images.
        label: (B, *S) int64 class numbers, -1 = not labelled.
    """

    batch: Batch
    label: Tensor


OTHER_SPLIT = (
    "use more groups, larger shares (--validation, --test), or deal them anew (--training.seed); a list's own split is mended "
    "in the list, or left aside with --split=dealt"
)
"""What to do about a part that holds too little."""


class Targets(ABC):
    """Labels of the rows of a collection.

    Attributes:
        names: of the classes or numbers that the head answers with.
        groups: patient, scene or block of each row; a group lies in one split.
        split: of each row.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    split: tuple[Split, ...]

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Name what `scores` gives; higher is better for each that may choose a check."""

    @abstractmethod
    def rows(self, split: Split) -> Tensor:
        """Give the labelled rows of a split, ascending."""

    @abstractmethod
    def of(self, given: Batch | Example, split: Split) -> Tensor:
        """Look up the truth for a batch of that split.

        Raises:
            DataError: a row of another split, or without a label.
        """

    @abstractmethod
    def refuse(self, config: Finetune) -> None:
        """Refuse options that mean nothing for these labels.

        Raises:
            ConfigError: there is one.
        """

    @abstractmethod
    def class_weight(self) -> Tensor:
        """Weigh each class inversely to how much of it is trained on, (K,)."""

    @abstractmethod
    def loss(self, answer: Tensor, truth: Tensor, config: Finetune, weight: Tensor | None) -> Tensor:
        """Compare answers with the truth, a scalar; `weight` (K,) of the classes."""

    @abstractmethod
    def summary(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Keep of each image's answer what scores need, (B, ...)."""

    @abstractmethod
    def scores(self, rows: NDArray[np.int64], summary: NDArray[Any]) -> dict[str, float]:
        """Score images together, by the names of `metrics`."""


def batch_of(given: Batch | Example) -> Batch:
    """Give the images of what a loader gave."""
    return given.batch if isinstance(given, Example) else given


def check_groups(count: int, groups: Sequence[str], split: Sequence[Split]) -> None:
    """Refuse labels that are not one per row, and groups that two splits share.

    Raises:
        DataError: so it is.
    """
    if not count == len(groups) == len(split):
        raise DataError(f"expected one label, group and split per row, got {count}, {len(groups)}, {len(split)}.")
    first: dict[str, Split] = {}
    for group, part in zip(groups, split, strict=True):
        if first.setdefault(group, part) != part:
            raise DataError(
                f"group '{group}' is in split '{first[group]}' and in split '{part}': "
                "put every image of a patient, scene or slide into one split."
            )


def check_rows(targets: Targets, batch: Batch, split: Split, labelled: Tensor) -> Tensor:
    """Give the rows of a batch, all of one split and with a label.

    Args:
        targets: the labels.
        batch: the images.
        split: where they must be from.
        labelled: (rows,) bool.

    Raises:
        DataError: a row of another split, or without a label.
    """
    rows = batch.row.cpu()
    for row in rows.tolist():
        if targets.split[row] != split or not labelled[row]:
            state = "has no label" if not labelled[row] else f"belongs to split '{targets.split[row]}'"
            raise DataError(
                f"row {row} (group '{targets.groups[row]}') {state}, but came in a batch for '{split}': "
                "select the rows of one split before loading."
            )
    return rows


def rows_of(split: Sequence[Split], labelled: Tensor, wanted: Split) -> Tensor:
    """List the labelled rows of a split, ascending."""
    inside = torch.tensor([part == wanted for part in split], dtype=torch.bool)
    return torch.nonzero(inside & labelled).flatten()


def check_classes(names: Sequence[str], train: Tensor, validation: Tensor, what: str) -> None:
    """Refuse a split from which a class cannot be learnt, or by which no check can be chosen.

    Args:
        names: of the K classes.
        train: (K,) how much of each there is to train on.
        validation: (K,) how much of each there is to choose by.
        what: images or pixels.

    Raises:
        DataError: so it is.
    """
    missing = [name for name, count in zip(names, train.tolist(), strict=True) if not count]
    if missing:
        raise DataError(f"expected training {what} of every class, got none of {missing}: {OTHER_SPLIT}.")
    if int((validation > 0).sum()) < 2:
        raise DataError(
            f"expected validation {what} of at least 2 classes, to choose the best check by: {OTHER_SPLIT}."
        )
