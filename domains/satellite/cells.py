"""Blocks of the ground that no two splits share, and the labelled cells in them.

A block is a square of the ground, the same one in every scene of a coordinate reference system, so that dates and scenes
that overlap cannot put one place into two splits. A cell is the part of a block that one window is scored on; each labelled
pixel of a scene is in one cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.finetune import Split
from core.rng import key
from datasets import LazyImage
from domains.satellite.labels import Box, Classes, sampled


@dataclass(frozen=True, eq=False)
class Cell:
    """A labelled part of a scene that one window shows.

    Attributes:
        scene: row of the manifest.
        block: name of the block that it is in.
        box: where it is.
        label: (rows, columns) int16 class numbers, -1 = none.
    """

    scene: int
    block: str
    box: Box
    label: NDArray[np.int16]


def blocks_of(scene: LazyImage, side: int, steps: tuple[float, float] | None, group: str) -> Iterator[tuple[str, Box]]:
    """Cut a scene into the blocks of the ground that it shows, with their names.

    Args:
        scene: the scene.
        side: pixels along the side of a block.
        steps: size of the pixels by which `side` counts, one for all scenes of a CRS; None = the scene's own.
        group: what names the place of a scene that has no georeference, or a rotated one.
    """
    placed = scene.georeference
    north_up = placed is not None and not (placed.transform[1] or placed.transform[3])
    axes = []
    for axis, length in enumerate(scene.size):
        centre = np.arange(length) + 0.5
        if placed is not None and north_up:
            step, first = ((placed.transform[4], placed.transform[5]), (placed.transform[0], placed.transform[2]))[axis]
            numbers = np.floor((first + step * centre) / ((steps or placed.steps)[axis] * side)).astype(np.int64)
        else:
            numbers = (centre // side).astype(np.int64)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), length]
        axes.append([(int(numbers[start]), start, stop) for start, stop in itertools.pairwise(edges)])
    where = placed.crs if placed is not None and north_up else group
    for row, top, bottom in axes[0]:
        for column, left, right in axes[1]:
            yield f"{where} block {row},{column}", (top, bottom, left, right)


def cells_of(
    number: int,
    scene: LazyImage,
    rasters: Sequence[LazyImage],
    classes: Classes,
    blocks: Iterator[tuple[str, Box]],
    size: tuple[int, int],
) -> list[Cell]:
    """Cut the labelled blocks of a scene into cells of at most `size`; of several rasters, the first that says something."""
    found = []
    for block, box in blocks:
        label = np.full((box[1] - box[0], box[3] - box[2]), -1, dtype=np.int16)
        for raster in rasters:
            if (label < 0).any():
                label = np.where(label < 0, classes.numbered(sampled(raster, scene, box)), label)
        for top in range(0, label.shape[0], size[0]):
            for left in range(0, label.shape[1], size[1]):
                part = label[top : top + size[0], left : left + size[1]]
                if (part >= 0).any():
                    y, x = box[0] + top, box[2] + left
                    found.append(Cell(number, block, (y, y + part.shape[0], x, x + part.shape[1]), part.copy()))
    return found


def deal(blocks: Sequence[str], pixels: NDArray[np.int64], validation: float, test: float, seed: int) -> list[Split]:
    """Deal blocks to train, validation and test so that each class is in all three where it is in enough blocks.

    Iterative stratification (Sechidis et al. 2011, doi 10.1007/978-3-642-23808-6_10): the class in the fewest blocks comes
    first, and each of its blocks goes where most of that class is still wanted. Deviations: what is wanted is measured as
    a part of the split's share, so that a class in three blocks is in all splits; ties go by a hash of the name.

    Args:
        blocks: of each cell.
        pixels: (cells, K) labelled pixels.
        validation: share of each class; 0 = no block.
        test: likewise.
        seed: of the order among equals.
    """
    names = sorted(set(blocks), key=lambda name: key(seed, "finetune split", name))
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), pixels.shape[1]), dtype=np.int64)
    np.add.at(counts, [place[name] for name in blocks], pixels)
    wants: dict[Split, float] = {"train": 1.0 - validation - test, "test": test, "validation": validation}
    order = [part for part, share in wants.items() if share > 0]
    shares = np.array([wants[part] for part in order])[:, None]
    wanted = np.ones_like(shares) * counts.sum(0)
    chosen = np.full(len(names), -1)
    while (chosen < 0).any():
        left = (counts > 0) & (chosen < 0)[:, None]
        holders = left.sum(0)
        rarest = int(np.where(holders > 0, holders, len(names) + 1).argmin())
        for number in sorted(np.flatnonzero(left[:, rarest]), key=lambda n: -counts[n, rarest]):
            split = int(wanted[:, rarest].argmax())
            chosen[number] = split
            wanted[split] -= counts[number] / shares[split]
    return [order[chosen[place[name]]] for name in blocks]
