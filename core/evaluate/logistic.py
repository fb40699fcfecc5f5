"""Logistic regression under several strengths of its penalty: Newton's method, its steps found by conjugate gradients.

Frozen features are nearly alike: some directions vary a million times less than others, and L-BFGS takes hundreds of steps
in such a valley. Here features are rotated to their principal directions, in which curvature is known well enough to divide
by it, and with fewer images than features to the span of the images, out of which no optimum leads. Both are exact changes
of coordinates. Losses and gradients are of double precision; what only proposes a direction is of single precision.

Shapes: N images, D features, R <= min(N, D) directions, K classes; solutions are (K, R + 1) with the intercept last, and
of two classes (1, R + 1), the second's logit above the first's, as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACCURACY = 0.1
"""Share of the gradient that a step's own equation may leave unsolved; less as the optimum nears."""
MAX_DIRECTIONS = 1000
"""Conjugate directions of one step."""
ROUNDING = 1e-24
"""Squared size of a gradient (over the curvature) that is rounding: no direction is sought in it."""
SHORTEST = 1e-9
"""Share of a Newton step below which rounding hides what is left to gain."""


@dataclass(frozen=True)
class Fit:
    """A linear classifier.

    Attributes:
        weight: (D, K).
        intercept: (K,).
        converged: whether the optimum was reached.
    """

    weight: Floats
    intercept: Floats
    converged: bool

    def probabilities(self, queries: Floats) -> Floats:
        """Give the softmax of `queries` (M, D) @ weight + intercept, (M, K)."""
        logits = queries @ self.weight + self.intercept
        likely: Floats = np.exp(logits - logits.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        return likely


def fit_path(
    features: Floats,
    labels: Ints,
    image_weights: Floats,
    *,
    num_classes: int,
    settings: Sequence[float],
    max_iter: int,
    tol: float,
) -> list[Fit]:
    """Minimise sum_i w_i * cross_entropy_i + |W|^2 / (2 C) for each C, each from the optimum of the one before.

    Args:
        features: (N, D).
        labels: (N,) in 0..K-1, each of which occurs.
        image_weights: (N,) w.
        num_classes: K, at least 2.
        settings: C; ascending is fastest.
        max_iter: Newton steps of each fit.
        tol: a fit ends with the Newton step whose decrement sqrt(g' H^-1 g), of gradient and Hessian of the loss averaged
            over weights, is at most this: before it the loss was about tol^2 / 2 above its least.
    """
    share = torch.from_numpy(image_weights / image_weights.sum())
    given = torch.from_numpy(features)
    centre = share @ given  # the intercept, which is not penalised, takes the shift
    basis, spread = principal(given - centre, share)
    one = torch.ones(1, dtype=torch.float64)
    design = torch.cat([basis.T @ (given - centre).T, one.expand(1, len(given))])
    columns = 1 if num_classes == 2 else num_classes
    even = torch.cat([spread, one]) / (
        4 if num_classes == 2 else num_classes
    )  # curvature where classes are equally likely
    rough, codes = design.float(), torch.from_numpy(labels)
    solution = torch.zeros(columns, len(design), dtype=torch.float64)
    fits = []
    for c in settings:
        penalty = torch.cat([torch.full_like(spread, 1 / (c * image_weights.sum())), 0 * one])
        objective = _Objective(design, rough, codes, share, penalty, num_classes)
        solution, converged = _minimise(objective, solution, even + penalty, max_iter=max_iter, tol=tol)
        logits = _of_all_classes(solution, num_classes)
        weight = basis @ logits[:, :-1].T
        fits.append(Fit(weight.numpy(), (logits[:, -1] - centre @ weight).numpy(), converged))
    return fits


def principal(features: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Give the principal directions (D, R) of centred features (N, D), and their variances (R,) where images count `share`."""
    if len(features) < features.shape[1]:
        span = torch.linalg.qr(features.T).Q
        basis, spread = principal(features @ span, share)
        return span @ basis, spread
    spread, basis = torch.linalg.eigh(features.T @ (share[:, None] * features))
    return basis, spread.clamp(min=0)


@dataclass(frozen=True)
class _Objective:
    """The penalised loss, averaged over weights; `design` is (R + 1, N), and `rough` the same in single precision."""

    design: Tensor
    rough: Tensor
    labels: Tensor
    share: Tensor
    penalty: Tensor
    num_classes: int

    def value(self, solution: Tensor) -> tuple[float, Tensor]:
        """Give the loss, and the probabilities (K, N) that `gradient` and `curve` ask for."""
        log_likely = torch.log_softmax(_of_all_classes(solution @ self.design, self.num_classes), 0)
        cost = self.share @ -log_likely.gather(0, self.labels[None])[0]
        return float(cost + 0.5 * (solution.square() @ self.penalty).sum()), log_likely.exp()

    def gradient(self, solution: Tensor, probabilities: Tensor) -> Tensor:
        error = probabilities.scatter_add(0, self.labels[None], -torch.ones_like(probabilities[:1])) * self.share
        return (self.design @ error[-len(solution) :].T).T + solution * self.penalty

    def curve(self, direction: Tensor, probabilities: Tensor, shares: Tensor) -> Tensor:
        """Multiply the Hessian by a direction; `probabilities` and their product with the share of images, single."""
        moved = _of_all_classes(direction.float() @ self.rough, self.num_classes)
        moved = (moved - (probabilities * moved).sum(0)) * shares
        return (self.rough @ moved[-len(direction) :].T).T + direction * self.penalty


def _of_all_classes(rows: Tensor, num_classes: int) -> Tensor:
    """Put a first row of zeros before the only one of two classes."""
    return rows if len(rows) == num_classes else torch.cat([torch.zeros_like(rows), rows])


def _minimise(
    objective: _Objective, solution: Tensor, even: Tensor, *, max_iter: int, tol: float
) -> tuple[Tensor, bool]:
    cost, probabilities = objective.value(solution)
    for _ in range(max_iter):
        gradient = objective.gradient(solution, probabilities)
        move, solved = _newton_step(objective, gradient, probabilities, even, least=tol**2)
        slope = float((gradient * move).sum())
        length, last = 1.0, solved and -slope <= tol**2  # of a step that is not solved, the slope says too little
        while (reached := objective.value(solution + length * move))[0] > cost + 1e-4 * length * slope:
            length /= 2
            if length < SHORTEST:
                return solution, last
        solution = solution + length * move
        cost, probabilities = reached
        if last:
            return solution, True
    return solution, False


def _newton_step(
    objective: _Objective, gradient: Tensor, probabilities: Tensor, even: Tensor, *, least: float
) -> tuple[Tensor, bool]:
    """Solve Hessian @ step = -gradient by preconditioned conjugate gradients; say whether that was enough of them.

    Where nothing curves (all intercepts moved alike, or probabilities of exactly 0 and 1) the steps end: with what rounding
    left over, of a size up to `least`, the equation is solved; otherwise it is not, and the direction itself is a step down.
    """
    rough = probabilities.float()
    shares = rough * objective.share.float()
    step, left = torch.zeros_like(gradient), -gradient
    direction = ready = left / even
    size = float((left * ready).sum())
    enough = max(min(ACCURACY**2, size**0.5) * size, ROUNDING)  # sizes are squares
    for _ in range(MAX_DIRECTIONS):
        if size <= enough:
            return step, True
        curved = objective.curve(direction, rough, shares)
        curvature = float((direction * curved).sum())
        if curvature <= 0:
            return (step if bool(step.any()) else direction), size <= least
        length = size / curvature
        step = step + length * direction
        left = left - length * curved
        ready = left / even
        before, size = size, float((left * ready).sum())
        direction = ready + (size / before) * direction
    return step, size <= enough
