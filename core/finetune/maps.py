"""A class at every place: label maps of images, and the section of a cloud mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.batch import Batch
from core.errors import ConfigError, DataError
from core.evaluate.segmentation import MAP_METRICS, confusion, map_scores
from core.finetune.config import Finetune
from core.finetune.targets import Example, Split, Targets, check_classes, check_groups, check_rows, rows_of


@dataclass(frozen=True, kw_only=True)
class Mapped(Targets):
    """Label maps of the rows, which come beside the images (`Example`), as a crop of one is a crop of the other.

    Attributes:
        pixels: (rows, K) int64, labelled pixels of each class.
        names: the K class names.
        groups: patient, scene or block of each row; a group lies in one split.
        split: of each row.
    """

    pixels: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]
    split: tuple[Split, ...]

    def __post_init__(self) -> None:
        check_groups(len(self.pixels), self.groups, self.split)
        check_classes(self.names, self.count("train"), self.count("validation"), "pixels")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Name the scores of maps of classes."""
        return tuple(MAP_METRICS)

    def rows(self, split: Split) -> Tensor:
        """Give the rows of a split that have a labelled pixel, ascending."""
        return rows_of(self.split, self.pixels.sum(1) > 0, split)

    def count(self, split: Split) -> Tensor:
        """Count the labelled pixels of each class in a split, (K,)."""
        return self.pixels[self.rows(split)].sum(0)

    def of(self, given: Batch | Example, split: Split) -> Tensor:
        """Give the label maps, (B, *S); -1 where there is no label or the image has measured nothing in any band.

        Raises:
            DataError: a row of another split, or a batch without label maps or with maps of another size.
        """
        if not isinstance(given, Example):
            raise DataError("expected batches with label maps (`Example`), got images alone.")
        check_rows(self, given.batch, split, self.pixels.sum(1) > 0)
        if given.label.shape != (len(given.batch), *given.batch.size):
            raise DataError(
                f"expected label maps of {len(given.batch)} images of {given.batch.size}, got {tuple(given.label.shape)}."
            )
        return torch.where(given.batch.valid.any(1), given.label, -1)

    def refuse(self, config: Finetune) -> None:
        """Refuse nothing: every option means something for classes."""

    def class_weight(self) -> Tensor:
        """Weigh each class inversely to its number of training pixels, (K,)."""
        count = self.count("train")
        return (count.sum() / (len(count) * count)).to(torch.float32)

    def loss(self, answer: Tensor, truth: Tensor, config: Finetune, weight: Tensor | None) -> Tensor:
        """Give the cross-entropy of logits (B, K, *S) over labelled pixels; a batch without any has none to give, 0."""
        if not bool((truth >= 0).any()):
            return answer.sum() * 0.0
        return F.cross_entropy(answer, truth, weight=weight, label_smoothing=config.label_smoothing, ignore_index=-1)

    def summary(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Keep each image's table of true against answered class, (B, K, K)."""
        return confusion(truth, answer.argmax(1), len(self.names))

    def scores(self, rows: NDArray[np.int64], summary: NDArray[Any]) -> dict[str, float]:
        """Score all labelled pixels together."""
        return map_scores(summary)


@dataclass(frozen=True, kw_only=True)
class Sections(Targets):
    """Cloud masks of vertical sections, looked up by `Batch.row`.

    Attributes:
        clouds: (rows, length, height) int8: 1 = cloud, 0 = none, -1 = not measured.
        groups: scene or orbit of each row; a group lies in one split.
        split: of each row.
        names: of the one class.
    """

    clouds: Tensor
    groups: tuple[str, ...]
    split: tuple[Split, ...]
    names: tuple[str, ...] = ("cloud",)

    def __post_init__(self) -> None:
        check_groups(len(self.clouds), self.groups, self.split)
        check_classes(("clear", "cloud"), self.count("train"), self.count("validation"), "places")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Name the scores of one class."""
        return "IoU", "Dice", "pixel accuracy"

    def rows(self, split: Split) -> Tensor:
        """Give the rows of a split that have a measured place, ascending."""
        return rows_of(self.split, (self.clouds >= 0).flatten(1).any(1), split)

    def count(self, split: Split) -> Tensor:
        """Count places without and with cloud in a split, (2,)."""
        places = self.clouds[self.rows(split)]
        return torch.stack([(places == 0).sum(), (places == 1).sum()])

    def of(self, given: Batch | Example, split: Split) -> Tensor:
        """Look up the sections, (B, length, height) int64."""
        batch = given.batch if isinstance(given, Example) else given
        rows = check_rows(self, batch, split, (self.clouds >= 0).flatten(1).any(1))
        return self.clouds[rows].to(torch.int64)

    def refuse(self, config: Finetune) -> None:
        """Refuse smoothing, which is of several classes.

        Raises:
            ConfigError: there is such an option.
        """
        if config.label_smoothing:
            raise ConfigError("label_smoothing has no effect on a cloud mask: set --training.label_smoothing=0.")

    def class_weight(self) -> Tensor:
        """Weigh places without and with cloud inversely to their number in training, (2,)."""
        count = self.count("train")
        return (count.sum() / (2 * count)).to(torch.float32)

    def loss(self, answer: Tensor, truth: Tensor, config: Finetune, weight: Tensor | None) -> Tensor:
        """Give the binary cross-entropy of logits (B, 1, length, height) over measured places."""
        known = (truth >= 0).to(answer.dtype)
        if weight is not None:
            known = known * weight[truth.clamp(min=0)]
        each = F.binary_cross_entropy_with_logits(answer[:, 0], truth.clamp(min=0).to(answer.dtype), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1e-6)

    def summary(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Keep each section's table of true against answered, (B, 2, 2); a place is cloud above a probability of 1/2."""
        return confusion(truth, (answer[:, 0] > 0).to(torch.int64), 2)

    def scores(self, rows: NDArray[np.int64], summary: NDArray[Any]) -> dict[str, float]:
        """Score the class cloud over all measured places together."""
        return cloud_scores(summary)


def cloud_scores(tables: NDArray[Any]) -> dict[str, float]:
    """Score cloud against none: intersection over union, Dice and accuracy over all places of (M, 2, 2) tables."""
    (clear, false), (missed, right) = tables.sum(0)
    union = false + missed + right
    return {
        "IoU": float(right / union) if union else float("nan"),
        "Dice": float(2 * right / (union + right)) if union else float("nan"),
        "pixel accuracy": float((clear + right) / tables.sum()),
    }
