"""Linear probe: what a linear classifier can read from frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features, classes weighted inversely to their frequency.

    scikit-learn's `LogisticRegression` (L-BFGS) minimises sum_i w_i * cross_entropy_i + |W|^2 / (2 C); the intercept is
    not penalised. Every feature is centred and scaled by the training side's mean and standard deviation; a feature
    that is constant there becomes 0.

    Attributes:
        settings: candidate C, from strongest regularisation to weakest; inner folds of the training side choose.
        max_iter: L-BFGS steps before a fit counts as not converged.
        tol: largest absolute gradient component, of the loss averaged over images, at which a fit has converged.
    """

    settings: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    max_iter: int = 5000
    tol: float = 1e-5
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
        from sklearn.exceptions import ConvergenceWarning  # here: importing scikit-learn costs a second
        from sklearn.linear_model import LogisticRegression

        train, test = standardise(features, queries)
        model = LogisticRegression(
            class_weight="balanced", solver="lbfgs", max_iter=self.max_iter, tol=self.tol, warm_start=True
        )
        probabilities = np.zeros((len(settings), len(queries), num_classes))
        unconverged = 0
        for row in np.argsort(settings, kind="stable"):  # ascending C: each fit starts at its neighbour's optimum
            model.set_params(C=float(settings[row]))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(train, labels)
            failed = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
            unconverged += bool(failed)
            for other in (w for w in caught if w not in failed):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
            probabilities[row][:, model.classes_] = model.predict_proba(test)
        return probabilities, unconverged


def standardise(features: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Centre and scale both by the mean and standard deviation of `features`; what is constant there becomes 0."""
    mean = features.mean(0, dtype=np.float64)
    std = features.std(0, dtype=np.float64)
    constant = std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)  # float32 rounding of a constant is no spread
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, std))
    return (features - mean) * scale, (queries - mean) * scale
