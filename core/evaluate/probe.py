"""Linear probe: what a linear classifier can read from frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from core.evaluate.logistic import fit_path

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features, classes weighted inversely to their frequency.

    It minimises sum_i w_i * cross_entropy_i + |W|^2 / (2 C), the intercept not penalised: what scikit-learn's
    `LogisticRegression` does, which the tests compare, several times faster (`core.evaluate.logistic`). Every feature is
    centred and scaled by the training side's mean and standard deviation; a feature that is constant there becomes 0.

    Attributes:
        settings: candidate C, from strongest regularisation to weakest; inner folds of the training side choose.
        max_iter: Newton steps before a fit counts as not converged; some ten are usual.
        tol: how near to the optimum a fit has converged, see `fit_path`; 2e-3 leaves every probability within 1e-3 of the
            optimum's for the settings above (`benchmarks.probe`), and less near for weaker regularisation.
    """

    settings: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    max_iter: int = 100
    tol: float = 2e-3
    name: ClassVar[str] = "linear probe"

    def predict(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        queries: NDArray[np.float32],
        *,
        num_classes: int,
        settings: Sequence[float],
    ) -> tuple[Floats, int]:
        """Fit on (N, D) once per setting; give probabilities (settings, M, K) and how many fits did not converge.

        A fit that did not converge is counted, not hidden: the table says so. A class without training images gets
        probability 0.
        """
        train, test = standardise(features, queries)
        present, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        fits = fit_path(
            train,
            codes,
            (len(labels) / len(present) / counts)[codes],
            num_classes=len(present),
            settings=sorted(settings),
            max_iter=self.max_iter,
            tol=self.tol,
        )
        probabilities = np.zeros((len(settings), len(queries), num_classes))
        for row, fit in zip(np.argsort(settings, kind="stable"), fits, strict=True):
            probabilities[row][:, present] = fit.probabilities(test)
        return probabilities, sum(not fit.converged for fit in fits)


def standardise(features: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Centre and scale both by the mean and standard deviation of `features`; what is constant there becomes 0."""
    mean = features.mean(0, dtype=np.float64)
    std = features.std(0, dtype=np.float64)
    constant = std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)  # float32 rounding of a constant is no spread
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
    return (features - mean) * scale, (queries - mean) * scale
