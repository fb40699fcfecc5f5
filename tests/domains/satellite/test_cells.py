from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio import Affine

from datasets import LazyImage, open_image
from domains.satellite.cells import blocks_of, cells_of, deal
from domains.satellite.labels import find_classes, open_labels
from tests.domains.satellite.labelled import PLACE, write


def opened(path: Path, size: tuple[int, int], place: Affine | None = PLACE) -> LazyImage:
    return open_image(write(path, np.ones((2, *size), np.float32), place, None if place is None else "EPSG:32633"))


def test_blocks_cover_a_scene_once(tmp_path: Path) -> None:
    for place in (PLACE, None, Affine(8.0, 6.0, 500_003.0, 6.0, -8.0, 5_000_001.0)):
        seen = np.zeros((23, 31), dtype=int)
        names = []
        for name, (top, bottom, left, right) in blocks_of(opened(tmp_path / "a.tif", (23, 31), place), 8, None, "a"):
            seen[top:bottom, left:right] += 1
            names.append(name)
        assert (seen == 1).all()
        assert len(names) == len(set(names))


def test_a_place_is_in_the_same_block_whichever_scene_shows_it(tmp_path: Path) -> None:
    """Also where another scene begins elsewhere, or has finer pixels."""
    first = opened(tmp_path / "a.tif", (40, 40))
    steps = (10.0, 10.0)
    block_at: dict[tuple[float, float], set[str]] = defaultdict(set)
    others = (PLACE, PLACE @ Affine.translation(13, 7), PLACE @ Affine.translation(4, 4) @ Affine.scale(0.5))
    for number, place in enumerate(others):
        image = replace(first) if number == 0 else opened(tmp_path / f"{number}.tif", (40, 40), place)
        for name, (top, bottom, left, right) in blocks_of(image, 8, steps, "x"):
            for row in range(top, bottom):
                for column in range(left, right):
                    east = place.c + place.a * (column + 0.5)
                    north = place.f + place.e * (row + 0.5)
                    block_at[(east // 10, north // 10)].add(name)
    assert len(block_at) > 40 * 40
    assert {len(names) for names in block_at.values()} == {1}


def test_every_labelled_pixel_is_in_one_cell_and_cells_are_no_larger_than_a_window(tmp_path: Path) -> None:
    values = np.random.Generator(np.random.Philox(key=2)).integers(0, 4, (23, 31)).astype(np.uint8)
    values[:9, :9] = 0
    raster = open_labels(write(tmp_path / "cover.tif", values, nodata=0))
    found = find_classes([raster], {}, ())
    image = opened(tmp_path / "a.tif", (23, 31))
    cells = cells_of(5, image, [raster], found, blocks_of(image, 16, None, "a"), (6, 8))
    label = np.full((23, 31), -1)
    for cell in cells:
        top, bottom, left, right = cell.box
        assert bottom - top <= 6
        assert right - left <= 8
        assert cell.scene == 5
        assert (label[top:bottom, left:right] == -1).all()
        label[top:bottom, left:right] = cell.label
    np.testing.assert_array_equal(label, values.astype(int) - 1)


def test_the_first_raster_that_says_something_counts(tmp_path: Path) -> None:
    top = open_labels(write(tmp_path / "top.tif", np.array([[1, 0], [0, 0]], np.uint8), nodata=0))
    below = open_labels(write(tmp_path / "below.tif", np.array([[2, 2], [3, 0]], np.uint8), nodata=0))
    image = opened(tmp_path / "a.tif", (2, 2))
    found = find_classes([top, below], {}, ())
    (cell,) = cells_of(0, image, [top, below], found, iter([("one", (0, 2, 0, 2))]), (2, 2))
    np.testing.assert_array_equal(cell.label, [[0, 1], [2, -1]])


def test_blocks_are_dealt_whole_and_each_class_near_its_share() -> None:
    draw = np.random.Generator(np.random.Philox(key=3))
    blocks = [f"b{n // 3}" for n in range(300)]
    pixels = draw.integers(0, 50, (300, 3))
    split = deal(blocks, pixels, 0.2, 0.3, seed=1)
    of_block = defaultdict(set)
    for block, part in zip(blocks, split, strict=True):
        of_block[block].add(part)
    assert {len(parts) for parts in of_block.values()} == {1}
    for part, share in (("train", 0.5), ("validation", 0.2), ("test", 0.3)):
        own = pixels[[one == part for one in split]].sum(0) / pixels.sum(0)
        np.testing.assert_allclose(own, share, atol=0.03)
    assert split == deal(blocks, pixels, 0.2, 0.3, seed=1)
    assert split != deal(blocks, pixels, 0.2, 0.3, seed=2)
    assert set(deal(blocks, pixels, 0.2, 0.0, seed=1)) == {"train", "validation"}
    assert set(deal(blocks, pixels, 0.0, 0.0, seed=1)) == {"train"}


@pytest.mark.parametrize("holders", [3, 4, 5])
def test_a_class_in_few_blocks_is_in_all_three_parts(holders: int) -> None:
    """A hash alone would leave it out of one more often than not."""
    pixels = np.zeros((40, 2), dtype=int)
    pixels[:, 0] = 100
    pixels[:holders, 1] = 10
    for seed in range(5):
        split = deal([f"b{n}" for n in range(40)], pixels, 0.2, 0.2, seed=seed)
        assert set(split[:holders]) == {"train", "validation", "test"}
