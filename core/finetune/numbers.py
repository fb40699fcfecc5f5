"""Numbers per image, such as a temperature or a share of cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.batch import Batch
from core.errors import ConfigError, DataError
from core.evaluate.regression import NUMBER_METRICS
from core.finetune.config import Finetune
from core.finetune.targets import OTHER_SPLIT, Example, Split, Targets, batch_of, check_groups, check_rows, rows_of


@dataclass(frozen=True, kw_only=True)
class Measured(Targets):
    """Numbers, groups and split of every row, looked up by `Batch.row`.

    Attributes:
        values: (rows, K) float64; NaN = not known, which counts in neither loss nor score.
        names: the K names of the numbers.
        groups: patient, scene or slide of each row; a group lies in one split.
        split: of each row.
    """

    values: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]
    split: tuple[Split, ...]

    def __post_init__(self) -> None:
        check_groups(len(self.values), self.groups, self.split)
        for number, name in enumerate(self.names):
            given = self.values[self.values[:, number].isfinite(), number]
            if len(given) and float(given.max() - given.min()) == 0:
                raise DataError(f"expected different values of '{name}', got {float(given[0]):g} for every image.")
            for part, least in (("train", 2), ("validation", 2)):
                known = self._known(part, number)
                if len(known) < least or float(known.max() - known.min()) == 0:
                    raise DataError(
                        f"expected at least 2 different values of '{name}' in the split '{part}', got "
                        f"{len(known)} images{' of one value' if len(known) else ''}: {OTHER_SPLIT}."
                    )

    def _known(self, split: Any, number: int) -> Tensor:
        values = self.values[self.rows(split), number]
        return values[values.isfinite()]

    @property
    def centre(self) -> tuple[float, ...]:
        """Mean of each number over the training images."""
        return tuple(float(self._known("train", number).mean()) for number in range(len(self.names)))

    @property
    def spread(self) -> tuple[float, ...]:
        """Standard deviation of each number over the training images."""
        return tuple(float(self._known("train", number).std()) for number in range(len(self.names)))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Name the scores of numbers."""
        return tuple(NUMBER_METRICS)

    def rows(self, split: Split) -> Tensor:
        """Give the rows of a split of which a number is known, ascending."""
        return rows_of(self.split, self.values.isfinite().any(1), split)

    def of(self, given: Batch | Example, split: Split) -> Tensor:
        """Look up the batch's numbers, (B, K) float32."""
        rows = check_rows(self, batch_of(given), split, self.values.isfinite().any(1))
        return self.values[rows].to(torch.float32)

    def refuse(self, config: Finetune) -> None:
        """Refuse what needs classes.

        Raises:
            ConfigError: there is such an option.
        """
        if config.balanced or config.label_smoothing:
            raise ConfigError(
                "balanced and label_smoothing have no effect on numbers: set --training.balanced=false and "
                "--training.label_smoothing=0."
            )

    def class_weight(self) -> Tensor:
        """Refused before: numbers have no classes."""
        raise ConfigError("expected classes to balance, got numbers.")

    def loss(self, answer: Tensor, truth: Tensor, config: Finetune, weight: Tensor | None) -> Tensor:
        """Give the mean square error of answers (B, K), each number in units of its spread; unknown ones count nowhere."""
        known = truth.isfinite()
        error = (answer - torch.where(known, truth, 0.0)) / torch.tensor(self.spread, device=answer.device)
        return (error.square() * known).sum() / known.sum().clamp(min=1)

    def summary(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Keep the numbers, (B, K) float64."""
        return answer.double()

    def scores(self, rows: NDArray[np.int64], summary: NDArray[Any]) -> dict[str, float]:
        """Average each score over the numbers."""
        truth, once = self.values[torch.from_numpy(rows)].double().numpy(), np.ones((1, len(rows)))
        return {
            name: float(np.nanmean([metric(truth[:, k], summary[:, k], once)[0] for k in range(truth.shape[1])]))
            for name, metric in NUMBER_METRICS.items()
        }
