"""k nearest neighbours: what the features say without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from core.errors import ConfigError

CHUNK = 1024
"""Queries compared with the whole bank at once."""


def vote(bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float, num_classes: int) -> Tensor:
    """Let the `k` most similar bank features vote for their class, (M, K) probabilities.

    Wu, Xiong, Yu, Lin 2018, arXiv 1805.01978, section 3.4: similarity s is the cosine, a neighbour's vote is
    exp(s / temperature). Deviations: votes are divided by their sum, so that they are probabilities.

    Args:
        bank: (N, D) features of known class, any scale; they are divided by their length here.
        labels: (N,) int64 classes of the bank.
        queries: (M, D).
        k: neighbours, at most N.
        temperature: 0.07 in the paper; smaller trusts the nearest more.
        num_classes: K.

    Raises:
        ConfigError: `k` is not within 1..N or `temperature` is not positive.
    """
    if not 1 <= k <= len(bank) or temperature <= 0:
        raise ConfigError(
            f"expected 1 <= k <= {len(bank)} labelled images and a positive temperature, got k={k}, "
            f"temperature={temperature}: choose a smaller k."
        )
    bank = F.normalize(bank, dim=1)
    one_hot = F.one_hot(labels, num_classes).to(bank.dtype)
    parts = []
    for chunk in F.normalize(queries, dim=1).split(CHUNK):
        similarity, neighbour = (chunk @ bank.T).topk(k, dim=1)
        weight = torch.softmax(similarity / temperature, dim=1)
        parts.append((weight[..., None] * one_hot[neighbour]).sum(1))
    return torch.cat(parts)


def check_neighbours(method: object, images: int, meaning: str) -> None:
    """Refuse k-NN that asks for more neighbours than `images`, of which `meaning` says what they are.

    Raises:
        ConfigError: it does; any other method passes.
    """
    most = max((int(k) for k in method.settings), default=0) if isinstance(method, NearestNeighbours) else 0
    if most > images:
        raise ConfigError(f"expected at most {images} neighbours, as {meaning}, got k={most}: choose a smaller k.")


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours:
    """The k-NN method of the evaluation table.

    Attributes:
        settings: candidate numbers of neighbours; with more than one, inner folds of the training side choose.
        temperature: of the votes.
        standardise: centre and scale each feature by the training side first. Off in the literature; features that
            share a large common vector have cosines close to 1 without it.
    """

    settings: tuple[int, ...] = (20,)
    temperature: float = 0.07
    standardise: bool = False
    name: ClassVar[str] = "k-NN"

    def predict(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        queries: NDArray[np.float32],
        *,
        num_classes: int,
        settings: Sequence[float],
    ) -> tuple[NDArray[np.float64], int]:
        """Give class probabilities (settings, M, K) and 0, since nothing is optimised that could fail to converge.

        Raises:
            ConfigError: more neighbours asked for than labelled images exist.
        """
        bank, asked = torch.from_numpy(features).double(), torch.from_numpy(queries).double()
        if self.standardise:
            mean, std = bank.mean(0), bank.std(0, correction=0)
            std = torch.where(std > 0, std, 1.0)
            bank, asked = (bank - mean) / std, (asked - mean) / std
        votes = [
            vote(
                bank,
                torch.from_numpy(labels),
                asked,
                k=int(k),
                temperature=self.temperature,
                num_classes=num_classes,
            )
            for k in settings
        ]
        return torch.stack(votes).numpy(), 0
