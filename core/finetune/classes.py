"""One class per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.batch import Batch
from core.evaluate.metrics import METRICS, metrics_for
from core.finetune.config import Finetune
from core.finetune.targets import Example, Split, Targets, batch_of, check_classes, check_groups, check_rows, rows_of


@dataclass(frozen=True, kw_only=True)
class Labelled(Targets):
    """Labels, groups and split of every row of the manifest, looked up by `Batch.row`.

    Attributes:
        codes: (rows,) int64 class numbers 0..K-1, in order where classes have one; -1 = no label.
        names: the K class names.
        groups: patient, scene or slide of each row; a group lies in one split.
        split: of each row.
        ordinal: the classes have an order, so quadratic kappa says something.
    """

    codes: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]
    split: tuple[Split, ...]
    ordinal: bool = False

    def __post_init__(self) -> None:
        check_groups(len(self.codes), self.groups, self.split)
        check_classes(self.names, self.count("train"), self.count("validation"), "images")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Name the scores of probes that suit these classes."""
        return metrics_for(ordinal=self.ordinal)

    def rows(self, split: Split) -> Tensor:
        """Give the labelled rows of a split, ascending."""
        return rows_of(self.split, self.codes >= 0, split)

    def count(self, split: Split) -> Tensor:
        """Count the images of each class in a split, (K,)."""
        return torch.bincount(self.codes[self.rows(split)], minlength=len(self.names))

    def of(self, given: Batch | Example, split: Split) -> Tensor:
        """Look up the batch's class numbers, (B,)."""
        return self.codes[check_rows(self, batch_of(given), split, self.codes >= 0)]

    def refuse(self, config: Finetune) -> None:
        """Refuse nothing: every option means something for classes."""

    def class_weight(self) -> Tensor:
        """Weigh each class inversely to its number of training images, (K,)."""
        count = self.count("train")
        return (count.sum() / (len(count) * count)).to(torch.float32)

    def loss(self, answer: Tensor, truth: Tensor, config: Finetune, weight: Tensor | None) -> Tensor:
        """Give the cross-entropy of logits (B, K)."""
        return F.cross_entropy(answer, truth, weight=weight, label_smoothing=config.label_smoothing)

    def summary(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Keep the probabilities, (B, K) float64."""
        return answer.double().softmax(1)

    def scores(self, rows: NDArray[np.int64], summary: NDArray[Any]) -> dict[str, float]:
        """Score images by the metrics of probes."""
        codes = self.codes[torch.from_numpy(rows)].numpy()
        once = np.ones((1, len(codes)))
        return {name: float(METRICS[name](codes, summary, once)[0]) for name in self.metrics}
