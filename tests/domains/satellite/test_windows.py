from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.contract import Input, Normalisation
from core.errors import DataError
from datasets import open_image
from domains.satellite.cells import blocks_of, cells_of
from domains.satellite.labels import find_classes, open_labels
from domains.satellite.scenes import scene_of
from domains.satellite.windows import LabelWindows, ahead
from tests.domains.satellite.labelled import write

ENTRY = Input(
    name="scene",
    bands=("b1", "b0"),
    patch=(4, 4),
    size=(16, 16),
    spacing=(10.0, 10.0),
    unit="m",
    normalisation=Normalisation(method="fixed", mean=(0.0, 0.0), std=(2.0, 4.0), full_scale=False),
)


def windows(
    folder: Path, size: tuple[int, int] = (40, 50), *, block: int = 12
) -> tuple[LabelWindows, np.ndarray, np.ndarray]:
    """Two scenes: each pixel of band b0 tells its row, b1 its column; the class is the parity of both."""
    y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    label = ((y + x) % 3 + 1).astype(np.uint8)
    label[:5] = 0
    raster = open_labels(write(folder / "cover.tif", label, nodata=0))
    found = find_classes([raster], {}, ())
    cells, scenes, sizes = [], {}, {}
    for number in range(2):
        values = np.stack([y, x]).astype(np.int16) + 1000 * number
        values[:, 30:32, 30:33] = -1
        image = open_image(write(folder / f"{number}.tif", values, nodata=-1))
        cells += cells_of(number, image, [raster], found, blocks_of(image, block, None, "a"), ENTRY.whole)
        scenes[number], sizes[number] = scene_of(image, ENTRY), image.size
    names = sorted({cell.block for cell in cells})
    split = tuple("train" if names.index(cell.block) % 2 else "test" for cell in cells)
    made = LabelWindows(cells=cells, split=split, scenes=scenes, sizes=sizes, entry=ENTRY, flips=(True, True), seed=4)
    return made, label.astype(int) - 1, np.stack([y, x])


def test_a_whole_pass_scores_each_labelled_pixel_once_with_the_image_that_belongs_to_it(tmp_path: Path) -> None:
    made, label, _ = windows(tmp_path)
    count = np.zeros((2, *label.shape), dtype=int)
    for given in made.whole(range(len(made.cells)), 5):
        image, valid = given.batch.image, given.batch.valid
        for n, row in enumerate(given.batch.row.tolist()):
            scene = made.cells[row].scene
            for y, x in torch.nonzero(given.label[n] >= 0).tolist():
                if valid[n, :, y, x].all():
                    at = int(image[n, 1, y, x]) - 1000 * scene, int(image[n, 0, y, x]) - 1000 * scene
                    assert label[at] == given.label[n, y, x]
                    count[scene][at] += 1
    expected = (label >= 0) & ~np.isin(np.arange(40), (30, 31))[:, None] | (label >= 0) & ~np.isin(
        np.arange(50), (30, 31, 32)
    )
    np.testing.assert_array_equal(count, np.stack([expected.astype(int)] * 2))


def test_the_value_space_and_the_place_of_windows_are_those_of_the_scene(tmp_path: Path) -> None:
    made, _, _ = windows(tmp_path)
    given = next(made.whole([0], 1))
    assert given.batch.bands == ("b1", "b0")
    assert given.batch.image.shape == (1, 2, 16, 16)
    assert given.batch.spacing.tolist() == [[10.0, 10.0]]
    torch.testing.assert_close(given.batch.normalised().image[0, 1], given.batch.image[0, 1] / 4.0)


def test_drawn_windows_hold_labels_of_their_own_split_alone(tmp_path: Path) -> None:
    made, label, _ = windows(tmp_path)
    train = [row for row, part in enumerate(made.split) if part == "train"]
    owner = {}
    for row, cell in enumerate(made.cells):
        for y in range(cell.box[0], cell.box[1]):
            for x in range(cell.box[2], cell.box[3]):
                owner[cell.scene, y, x] = made.split[row]
    turned, seen = set(), set()
    for given in made.drawn(train, 6)(0, 12):
        for n, row in enumerate(given.batch.row.tolist()):
            scene = made.cells[row].scene
            assert int((given.label[n] >= 0).sum()) > 0
            rows, columns = given.batch.image[n, 1] - 1000 * scene, given.batch.image[n, 0] - 1000 * scene
            valid = given.batch.valid[n].all(0)
            for y, x in torch.nonzero(valid & (given.label[n] >= 0)).tolist():
                at = int(rows[y, x]), int(columns[y, x])
                assert owner[scene, at[0], at[1]] == "train"
                assert label[at] == given.label[n, y, x]
                seen.add((scene, *at))
            known = torch.nonzero(valid[:, 0] & valid[:, -1])[0, 0]
            turned.add((float(columns[known, 0]) > float(columns[known, -1]), n % 2))
    assert {mirrored for mirrored, _ in turned} == {True, False}
    assert len(seen) > 0.8 * sum(part == "train" for (_, y, x), part in owner.items() if label[y, x] >= 0)


def test_a_step_draws_the_same_windows_whatever_came_before(tmp_path: Path) -> None:
    made, _, _ = windows(tmp_path)
    rows = [row for row, part in enumerate(made.split) if part == "train"]
    whole = list(made.drawn(rows, 3)(0, 5))
    late = list(made.drawn(rows, 3)(4, 5))
    assert torch.equal(whole[4].batch.image, late[0].batch.image)
    assert torch.equal(whole[4].label, late[0].label)
    assert not torch.equal(whole[3].batch.image, whole[4].batch.image)


def test_a_scene_that_is_smaller_than_a_window_is_in_its_middle_and_padded_with_what_is_not_measured(
    tmp_path: Path,
) -> None:
    made, label, _ = windows(tmp_path, (9, 40))
    inside = slice(3, 12)  # 9 of 16 rows, the odd one behind
    (given,) = list(made.whole([0], 1))
    (drawn,) = list(made.drawn([0], 1)(0, 1))
    for example in (given, drawn):
        known = example.batch.valid[0].all(0)
        rows = known.any(1).nonzero()[:, 0]
        assert len(rows) == 9 and 3 <= rows[0] <= 4, "a mirrored one has the odd row before it"
        assert (example.label[0][~known] == -1).all() and (example.batch.image[0][:, ~known] == 0).all()
    assert given.batch.valid[0, :, inside].all()
    top, bottom, left, right = made.cells[0].box
    assert given.batch.image[0, 1, inside, 0].tolist() == list(range(9))
    start = int(given.batch.image[0, 0, 3, 0])
    expected = np.full((9, 16), -1)
    expected[top:bottom, left - start : right - start] = label[top:bottom, left:right]
    np.testing.assert_array_equal(given.label[0, inside], expected)


def test_workers_read_the_same_windows_in_the_same_order(tmp_path: Path) -> None:
    alone, _, _ = windows(tmp_path)
    helped = replace(alone, workers=3)
    rows = [row for row, part in enumerate(alone.split) if part == "train"]
    for one, many in (
        (alone.whole(rows, 2), helped.whole(rows, 2)),
        (alone.drawn(rows, 3)(4, 12), helped.drawn(rows, 3)(4, 12)),
    ):
        for first, second in zip(one, many, strict=True):
            assert torch.equal(first.batch.row, second.batch.row)
            assert torch.equal(first.batch.image, second.batch.image)
            assert torch.equal(first.label, second.label)


def test_workers_read_a_few_ahead_give_errors_on_and_leave() -> None:
    begun: list[int] = []

    def made(number: int) -> Any:
        begun.append(number)
        if number == 5:
            raise DataError("torn")
        return number

    given = ahead(made, range(100), 2)
    assert next(given) == 0
    given.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("halfseen-windows")]
    assert max(begun) <= 5, "no more than four are asked for ahead"
    given = ahead(made, range(100), 2)
    with pytest.raises(DataError, match="torn"):
        list(given)
