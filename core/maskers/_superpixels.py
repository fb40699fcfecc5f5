"""Regions that follow edges: superpixels, joined where they are alike, kept where their surroundings do not explain them."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.errors import ConfigError
from core.maskers._unexplained import neighbours, scores_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class RegionCut:
    """Describe how an image is cut into regions, and which of them are worth hiding.

    Sizes are in token edges or token areas, so they mean the same in 2D and 3D and at any spacing. Intensities are in units
    of each band's own range in the image, from its first to its 99th percentile.

    Attributes:
        algorithm: `slic` (Achanta et al. 2012), 2D and 3D; `felzenszwalb` (2004), 2D only.
        superpixel: area of a superpixel.
        compactness: `slic` only; how much closeness counts beside likeness.
        smooth: deviation of the Gaussian that is applied first, in token edges.
        merge: neighbours are joined, the most alike first, while their means differ by less than this.
        smallest: regions below this area are not used.
        largest: nor those above this share of the measured image; joining stops there.
        keep: share of the regions, those that are hardest to predict from around, that are kept.
        least: smallest error of that prediction for a region that is kept.
        shift: a region is moved at random by up to this, in token edges,
        grow: and its border in or out by up to this.
    """

    algorithm: Literal["slic", "felzenszwalb"] = "slic"
    superpixel: float = 1.0
    compactness: float = 0.1
    smooth: float = 0.06
    merge: float = 0.1
    smallest: float = 0.5
    largest: float = 0.2
    keep: float = 0.6
    least: float = 0.05
    shift: float = 0.25
    grow: float = 0.125

    def __post_init__(self) -> None:
        if min(self.superpixel, self.compactness, self.keep) <= 0 or self.keep > 1 or not 0 < self.largest <= 1:
            raise ConfigError(
                f"expected superpixel and compactness above 0, keep and largest above 0 and at most 1, got {self}."
            )
        if min(self.smooth, self.merge, self.smallest, self.least, self.shift, self.grow) < 0:
            raise ConfigError(f"expected sizes and differences of 0 or more, got {self}.")


@dataclass(frozen=True)
class Cut:
    """An image in regions.

    Attributes:
        labels: (*S) int32, the region of each voxel, 1 to K; 0 = of none.
        scores: (K,) how badly each is predicted from around, against how varied its surroundings are.
        kept: (K,) bool, which are worth hiding.
    """

    labels: Array
    scores: Array
    kept: Array

    def masks(self, *, kept: bool = True) -> Array:
        """Give the kept regions as masks (R, *S) bool, highest score first; or the others."""
        numbers = np.flatnonzero(self.kept if kept else ~self.kept)
        numbers = numbers[np.argsort(-self.scores[numbers], kind="stable")]
        masks: Array = self.labels[None] == (numbers + 1).reshape(-1, *(1,) * self.labels.ndim)
        return masks


def cut(image: Array, valid: Array, spacing: tuple[float, ...], patch: tuple[int, ...], wish: RegionCut) -> Cut:
    """Cut one image into regions; the same image always gives the same ones.

    Args:
        image: (C, *S) float; what it holds where it is not valid is never used.
        valid: (C, *S) bool; a voxel with any band is measured.
        spacing: size of a voxel along each axis; only its proportions count.
        patch: voxels of a token.
        wish: how.

    Returns:
        the regions; none where the image is constant, or has no data.
    """
    measured = np.asarray(valid.any(axis=0))
    scaled = _scaled(image, valid)
    if scaled is None or measured.sum() < 2 * math.prod(patch):
        return Cut(np.zeros(measured.shape, np.int32), np.zeros(0), np.zeros(0, bool))
    steps = tuple(s / min(spacing) for s in spacing)
    labels = np.where(measured, _superpixels(scaled, steps, patch, wish), 0)
    largest = wish.largest * measured.sum()
    labels = _dense(_merged(labels, scaled, wish.merge, largest))
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    labels = _dense(np.where(((areas >= wish.smallest * math.prod(patch)) & (areas <= largest))[labels], labels, 0))
    errors, scores = scores_of(scaled, measured, labels, steps)
    enough = np.flatnonzero(errors >= wish.least)
    order = enough[np.argsort(-scores[enough], kind="stable")]
    kept = np.zeros(len(scores), bool)
    kept[order[: math.ceil(wish.keep * len(scores))]] = True
    return Cut(labels, scores, kept)


def _scaled(image: Array, valid: Array) -> Array | None:
    """Bring every band to its own range, 0 to 1; a band that is missing at a voxel is the mean of the others there."""
    bands = np.zeros(image.shape, np.float32)
    used = np.zeros(len(image), bool)
    for number, (band, there) in enumerate(zip(image, valid, strict=True)):
        if there.any():
            low, high = np.percentile(band[there], (1.0, 99.0))
            if low == high:  # what differs is smaller than a hundredth of the image
                low, high = band[there].min(), band[there].max()
            if high - low > 1e-6 * max(abs(low), abs(high), 1e-6):
                bands[number] = np.clip((band - low) / (high - low), 0.0, 1.0)
                used[number] = True
    if not used.any():
        return None
    bands, there = bands[used], valid[used]
    mean = np.where(there, bands, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.where(there, bands, mean).astype(np.float32)


def _superpixels(scaled: Array, spacing: tuple[float, ...], patch: tuple[int, ...], wish: RegionCut) -> Array:
    try:
        from skimage.segmentation import felzenszwalb, slic
    except ImportError as error:
        raise missing_library() from error
    area = wish.superpixel * math.prod(patch)
    sigma = tuple(wish.smooth * p for p in patch)
    if wish.algorithm == "felzenszwalb":
        smallest = max(round(wish.smallest * math.prod(patch)), 1)
        found = felzenszwalb(scaled, scale=area, sigma=max(sigma), min_size=smallest, channel_axis=0)
    else:
        found = slic(
            scaled,
            n_segments=max(round(math.prod(scaled.shape[1:]) / area), 2),
            compactness=wish.compactness,
            sigma=sigma,
            spacing=spacing,
            convert2lab=False,
            start_label=0,
            channel_axis=0,
        )
    labels: Array = found.astype(np.int32) + 1
    return labels


def missing_library() -> ConfigError:
    """Say which extra brings superpixels."""
    return ConfigError(
        "expected scikit-image, which cuts images into superpixels, and it is not installed: "
        "pip install 'halfseen[superpixel]'."
    )


def _dense(labels: Array) -> Array:
    """Renumber labels 1 to K in order, 0 stays 0."""
    found, dense = np.unique(np.concatenate([[0], labels.ravel()]), return_inverse=True)
    del found
    result: Array = dense[1:].reshape(labels.shape).astype(np.int32)
    return result


def _merged(labels: Array, scaled: Array, merge: float, largest: float) -> Array:
    """Join neighbours, the most alike first, while their means differ less than `merge` and the area allows."""
    count = int(labels.max()) + 1
    areas = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(labels.ravel(), band.ravel(), count) for band in scaled], axis=1)
    means = sums / np.maximum(areas, 1.0)[:, None]
    touching: list[set[int]] = [set() for _ in range(count)]
    for a, b in neighbours(labels, diagonal=False).tolist():
        touching[a].add(b)
        touching[b].add(a)
    age, home = [0] * count, np.arange(count)

    queue: list[tuple[float, int, int, int, int]] = []

    def compare(a: int, others: set[int]) -> None:
        every = np.array(sorted(others), np.int64)
        for b, difference in zip(
            every.tolist(), np.sqrt(((means[every] - means[a]) ** 2).mean(1)).tolist(), strict=True
        ):
            low, high = min(a, b), max(a, b)
            heapq.heappush(queue, (difference, low, high, age[low], age[high]))

    for a in range(count):
        compare(a, {b for b in touching[a] if b > a})
    while queue:
        difference, a, b, age_a, age_b = heapq.heappop(queue)
        if difference >= merge:
            break
        if (age_a, age_b) != (age[a], age[b]) or areas[a] + areas[b] > largest:
            continue
        means[a] = (means[a] * areas[a] + means[b] * areas[b]) / (areas[a] + areas[b])
        areas[a] += areas[b]
        home[home == b] = a
        age[a], age[b] = age[a] + 1, -1
        for other in touching[b]:
            touching[other].discard(b)
            if other != a:
                touching[other].add(a)
                touching[a].add(other)
        touching[b] = set()
        compare(a, touching[a])
    return home[labels]
