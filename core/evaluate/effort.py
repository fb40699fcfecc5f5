"""How far an evaluation is, by a rough count of its arithmetic: its pieces differ a hundredfold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from core.evaluate.folds import INNER_FOLDS, Method
from core.evaluate.inputs import Features

Tell = Callable[[str, float], None]
"""Called before each piece of work with what it is, and the share of all work that is done (0 to 1)."""

SCORES_PER_FIT = 50
"""Weights of a resample that are added up while one number of a feature array is fitted, measured."""


class Effort:
    """Counts the pieces of work of one evaluation, and tells of each as it begins.

    Args:
        tell: whom; None = nobody.
        arrays: (M, D) of every feature set.
        methods: that learn from them.
        taught: numbers of images that they learn from.
        folds: of the outer cross-validation.
        repeats: of all that.
        scored: weights to add up for one prediction: metrics x draws x images x classes.
    """

    def __init__(
        self,
        tell: Tell | None,
        arrays: Sequence[Features],
        methods: Sequence[Method],
        *,
        taught: Sequence[int],
        folds: int,
        repeats: int,
        scored: int,
    ) -> None:
        self._tell, self._folds, self._done = tell, folds, 0.0
        pieces = list(product(arrays, methods, taught))
        self._scoring = len(pieces) * repeats * scored / SCORES_PER_FIT
        self._total = self._scoring + repeats * sum(self._size(*piece) for piece in pieces)

    def fitting(self, what: str, array: Features, method: Method, taught: int) -> None:
        """Tell that out-of-fold predictions begin."""
        self._begin(what, self._size(array, method, taught))

    def resampling(self, share: float) -> None:
        """Tell that the scores of a share of all resamples begin."""
        self._begin("intervals", share * self._scoring)

    def _begin(self, what: str, size: float) -> None:
        if self._tell is not None:
            self._tell(what, min(1.0, self._done / self._total))
        self._done += size

    def _size(self, array: Features, method: Method, taught: int) -> float:
        settings = len(method.settings)
        fits = self._folds * (1 if settings == 1 else 1 + INNER_FOLDS * settings)
        return float(fits * taught * array.shape[1])
