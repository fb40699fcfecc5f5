"""k-means over vectors of which parts may be missing, in passes over a stream: nothing is kept but sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Vectors = Iterable[tuple[Tensor, Tensor]]
"""Pairs of (M, P) float32 values and (M, P) bool, True = known; every row has a known value."""


def squared_distances(value: Tensor, known: Tensor, centroids: Tensor) -> Tensor:
    """Sum squared differences over each row's known values, up to a term of the row alone: (M, K), may be negative."""
    filled = torch.where(known, value, 0.0)
    with torch.autocast(value.device.type, enabled=False):  # in bfloat16 neighbouring codes would be confused
        if bool(known.all()):
            return centroids.square().sum(1) - 2.0 * filled @ centroids.T
        return known.to(filled) @ centroids.square().T - 2.0 * filled @ centroids.T


def nearest_centroid(value: Tensor, known: Tensor, centroids: Tensor) -> Tensor:
    """Give the centroid nearest to each row in its known values, (M,) int64; the first of equally near ones."""
    return squared_distances(value, known, centroids).argmin(1)


def kmeans(stream: Callable[[], Vectors], size: int, *, passes: int, draw: torch.Generator, pool: int) -> Tensor:
    """Cluster (Lloyd 1982) from k-means++ seeds (Arthur and Vassilvitskii 2007), (K, P) float32.

    A centroid is the mean, value by value, of the known values of its rows. A centroid without rows goes to the row of the
    pool that is worst served.

    Args:
        stream: gives the vectors from the start, the same each time it is called.
        size: K.
        passes: over the stream after the one that fills the pool.
        draw: decides every choice; on the CPU.
        pool: rows kept to seed from.

    Raises:
        ValueError: fewer than K different rows in the pool.
    """
    value, known = _reservoir(stream(), pool, draw)
    centroids = _seeds(value, known, size, draw)
    for _ in range(passes):
        total, count, rows = torch.zeros_like(centroids), torch.zeros_like(centroids), torch.zeros(size)
        for vectors, there in stream():
            code = nearest_centroid(vectors, there, centroids)
            total.index_add_(0, code, torch.where(there, vectors, 0.0))
            count.index_add_(0, code, there.to(total))
            rows += torch.bincount(code, minlength=size)
        centroids = torch.where(count > 0, total / count.clamp(min=1.0), centroids)
        centroids = reseeded(centroids, rows, value, known)
    return centroids


def reseeded(centroids: Tensor, rows: Tensor, value: Tensor, known: Tensor) -> Tensor:
    """Send each centroid without rows to one of the vectors that the others serve worst, what is missing filled by them."""
    empty, served = (rows == 0).nonzero()[:, 0], centroids[rows > 0]
    if not len(empty) or not len(served):
        return centroids
    filled = torch.where(known, value, served[nearest_centroid(value, known, served)])
    distance = torch.cdist(filled, served).amin(1)
    worst = distance.argsort(descending=True)[: len(empty)]
    moved = centroids.clone()
    moved[empty[: len(worst)]] = filled[worst]
    return moved


def _reservoir(stream: Vectors, pool: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep `pool` rows, all equally likely: those with the smallest random number."""
    value, known, rank = torch.empty(0), torch.empty(0, dtype=torch.bool), torch.empty(0)
    for vectors, there in stream:
        number = torch.rand(len(vectors), generator=draw)
        value = torch.cat([value, vectors]) if len(value) else vectors
        known = torch.cat([known, there]) if len(known) else there
        rank = torch.cat([rank, number])
        kept = rank.argsort()[:pool]
        value, known, rank = value[kept], known[kept], rank[kept]
    return value, known


def _seeds(value: Tensor, known: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """Choose K rows, each with a chance in proportion to its squared distance from those before it."""
    mean = torch.where(known, value, 0.0).sum(0) / known.sum(0).clamp(min=1)
    whole = torch.where(known, value, mean)
    chosen = torch.randint(len(whole), (1,), generator=draw) if len(whole) else torch.empty(0, dtype=torch.int64)
    far = (whole - whole[chosen]).square().sum(1) if len(whole) else torch.empty(0)
    while len(chosen) < size:
        if not bool((far > 0).any()):
            raise ValueError(f"expected at least {size} different vectors to cluster, got {len(chosen)}.")
        following = torch.multinomial(far, 1, generator=draw)
        chosen = torch.cat([chosen, following])
        far = torch.minimum(far, (whole - whole[following]).square().sum(1))
    return whole[chosen].clone()
