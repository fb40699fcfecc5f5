"""Windows over an image larger than memory: exact blending, nodata, shapes, errors and memory."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.batch import Batch
from core.errors import DataError, NumericsError, ShapeError
from core.geometry import Spacing
from core.inference import Scene, Windows, memory_bytes, network_bytes, predict_windows, sample_windows, taper
from core.preprocess import Window, fit, window_of

BANDS = ("B04", "B08")


def scene_of(image: np.ndarray, valid: np.ndarray | None = None, unit: str = "m") -> Scene:
    valid = np.ones(image.shape, bool) if valid is None else valid

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        return image[(slice(None), *window)], valid[(slice(None), *window)]

    return Scene(
        read=read,
        dtype=image.dtype,
        bands=BANDS[: len(image)],
        spacing=Spacing((10.0,) * (image.ndim - 1), unit),  # type: ignore[arg-type]
        offset=np.zeros(len(image)),
        scale=np.ones(len(image)),
    )


def plane(*size: int) -> np.ndarray:
    """Two bands that are linear in the place; no two voxels are alike, and no value is a round number."""
    steps = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    first = sum(step * (0.37 + axis) * 10.0 ** (2 * axis) for axis, step in enumerate(steps)) + 0.123
    return np.stack([first, 1000 - first]).astype(np.float32)


def covered(size: tuple[int, ...], window: int, overlap: int, cell: int = 1) -> Windows:
    nd = len(size)
    return Windows(size=size, window=(window,) * nd, overlap=(overlap,) * nd, cell=(cell,) * nd)


def run(
    function: Callable[[Batch], Tensor], scene: Scene, windows: Windows, values: int = 2, **options: object
) -> tuple[np.ndarray, np.ndarray]:
    """Predict into arrays, and make sure that each value came once."""
    found = np.full((values, *windows.result), np.nan, np.float32)
    valid = np.zeros(windows.result, bool)
    count = np.zeros(windows.result, int)

    def write(window: Window, part: np.ndarray, measured: np.ndarray) -> None:
        found[(slice(None), *window)], valid[window] = part, measured
        count[window] += 1

    predict_windows(function, scene, windows, write, values=values, **({"batch_size": 3} | options))  # type: ignore[arg-type]
    assert (count == 1).all(), "every value is handed on once"
    return found, valid


def same(batch: Batch) -> Tensor:
    return batch.normalised().image


@pytest.mark.parametrize("overlap", [0, 1, 7, 8, 12])
@pytest.mark.parametrize("size", [(16, 16), (37, 53), (5, 40), (40, 5), (9, 3)])
def test_what_windows_agree_on_is_reproduced_to_the_bit(size: tuple[int, int], overlap: int) -> None:
    image = plane(*size)
    found, valid = run(same, scene_of(image), covered(size, 16, overlap))
    assert np.array_equal(found, image)
    assert valid.all()


def test_a_volume_is_blended_alike() -> None:
    image = plane(13, 20, 9)
    found, _ = run(same, scene_of(image), covered((13, 20, 9), 8, 3))
    assert np.array_equal(found, image)


@pytest.mark.parametrize("step", [1, 7, 16, 23])
def test_parts_of_the_rows_are_those_of_the_whole(step: int) -> None:
    def rim_matters(batch: Batch) -> Tensor:
        return torch.nn.functional.avg_pool2d(batch.normalised().image, 5, 1, 2)

    scene, windows = scene_of(plane(50, 41)), covered((50, 41), 16, 6)
    expected, _ = run(rim_matters, scene, windows)
    found = np.full_like(expected, np.nan)
    count = np.zeros(windows.result, int)

    def write(window: Window, part: np.ndarray, measured: np.ndarray) -> None:
        found[(slice(None), *window)] = part
        count[window] += 1

    for first in range(0, 50, step):
        part = replace(windows, rows=(first, min(50, first + step)))
        predict_windows(rim_matters, scene, part, write, values=2, batch_size=3)
    assert (count == 1).all()
    assert np.array_equal(found, expected)
    with pytest.raises(ShapeError, match="rows inside the 50"):
        replace(windows, rows=(40, 51))


def test_a_constant_is_reproduced_to_the_bit() -> None:
    found, _ = run(
        lambda batch: torch.full((len(batch), 1, 16, 16), 0.1), scene_of(plane(37, 53)), covered((37, 53), 16, 9), 1
    )
    assert (found == np.float32(0.1)).all()


def test_where_windows_disagree_the_result_is_their_weighted_mean() -> None:
    windows = covered((16, 24), 16, 8)  # two windows, at columns 0 and 8

    def by_place(batch: Batch) -> Tensor:
        assert batch.origin is not None
        return batch.origin[:, 1].reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16)  # metres: 0 and 80

    found, _ = run(by_place, replace(scene_of(plane(16, 24)), placed=True), windows, 1)
    row = taper(windows)[8]
    left, right = row[8:], row[:8]
    assert np.allclose(found[0, 8, 8:16], 80 * right / (left + right), rtol=1e-6)
    assert found[0, 8, 7] == 0 and found[0, 8, 16] == 80
    assert (np.diff(found[0, 8, 7:17]) > 0).all(), "no seam"
    rim = np.sin(np.pi / 2 * np.arange(1, 9) / 9) ** 2
    axis = np.concatenate([rim, rim[::-1]])
    assert np.allclose(taper(windows), axis[:, None] * axis, rtol=1e-6)


@pytest.mark.parametrize(("batch_size", "readers"), [(1, 1), (2, 3), (100, 2)])
def test_batches_and_threads_change_nothing(batch_size: int, readers: int) -> None:
    def rim_matters(batch: Batch) -> Tensor:
        image = batch.normalised().image
        return torch.nn.functional.avg_pool2d(image, 5, 1, 2)

    scene, windows = scene_of(plane(50, 61)), covered((50, 61), 16, 6)
    expected, _ = run(rim_matters, scene, windows)
    found, _ = run(rim_matters, scene, windows, batch_size=batch_size, readers=readers)
    assert np.array_equal(found, expected)


def test_what_is_not_measured_is_not_valid_and_never_reaches_the_network() -> None:
    image, valid = plane(40, 40), np.ones((2, 40, 40), bool)
    valid[0, 10:20, 5:9] = False  # one band
    valid[:, 30:, 30:] = False  # both
    image[~valid] = np.nan
    seen = []

    def look(batch: Batch) -> Tensor:
        seen.append(bool(torch.isfinite(batch.image).all()) and bool((batch.image[~batch.valid] == 0).all()))
        return same(batch)

    for measured, expected in (("all", valid.all(0)), ("any", valid.any(0))):
        found, mask = run(look, scene_of(image, valid), covered((40, 40), 16, 8), measured=measured)
        assert np.array_equal(mask, expected)
        assert np.array_equal(found[0][valid.all(0)], image[0][valid.all(0)])
        assert (found[:, ~expected] == 0).all()
    assert all(seen)


def test_windows_without_data_are_not_predicted() -> None:
    image, valid = plane(32, 64), np.zeros((2, 32, 64), bool)
    valid[:, :, :16] = True
    calls: list[int] = []

    def count(batch: Batch) -> Tensor:
        calls.append(len(batch))
        return same(batch)

    found, mask = run(count, scene_of(image, valid), covered((32, 64), 16, 0))
    assert sum(calls) == 2
    assert mask.sum() == 32 * 16
    assert np.array_equal(found[:, :, :16], image[:, :, :16])


def test_one_value_per_cell_lies_on_the_grid_of_the_image() -> None:
    """37 rows and 53 columns in cells of 4: the last ones are a quarter full, less than half, and so not valid."""
    image = plane(37, 53)
    found, valid = run(
        lambda batch: same(batch)[:, :, ::4, ::4], scene_of(image), covered((37, 53), 16, 8, cell=4), batch_size=4
    )
    assert found.shape == (2, 10, 14)
    assert np.array_equal(found[:, :9, :13], image[:, :36:4, :52:4])
    assert valid[:9, :13].all() and not valid[9].any() and not valid[:, 13].any()


def seen(scene: Scene, windows: Windows) -> tuple[list[Batch], np.ndarray, np.ndarray]:
    """Predict each cell by its first voxel, and keep what the network saw."""
    batches: list[Batch] = []
    steps = tuple(slice(None, None, c) for c in windows.cell)

    def look(batch: Batch) -> Tensor:
        batches.append(batch)
        return same(batch)[(slice(None), slice(None), *steps)]

    return batches, *run(look, scene, windows)


def test_an_image_smaller_than_the_window_lies_in_its_middle_as_whole_images_do() -> None:
    image = plane(11, 8)
    (batch,), found, _ = seen(replace(scene_of(image), placed=True), covered((11, 8), 16, 4))
    fitted, valid = window_of(image, np.ones((1, 11, 8), bool), (slice(0, 11), slice(0, 8)), (16, 16))
    assert np.array_equal(batch.image[0], fitted) and np.array_equal(batch.valid[0], valid)
    assert np.array_equal(found, image)
    assert batch.origin is not None and batch.origin.tolist() == [[-20.0, -40.0]], "where the window begins, in metres"
    volume = plane(5, 9, 8)
    (batch,), found, _ = seen(scene_of(volume), covered((5, 9, 8), 8, 0))
    fitted, _ = fit(volume[:, :, :8], np.ones((5, 8, 8), bool), (8, 8, 8))
    assert np.array_equal(batch.image[0], fitted) and np.array_equal(found, volume)


def test_cells_stay_on_the_grid_of_a_small_image() -> None:
    image = plane(11, 7)
    (batch,), found, valid = seen(scene_of(image), covered((11, 7), 32, 8, cell=4))
    assert np.array_equal(batch.image[0, :, 8:19, 12:19], image), "10 and 12 before it, in whole cells"
    assert np.array_equal(found, image[:, ::4, ::4]) and valid.all()


def test_one_value_for_all_of_a_small_image_sees_its_content_in_the_middle() -> None:
    image, known = plane(10, 14), np.zeros((2, 10, 14), bool)
    known[:, 2:, 5:] = True  # 72 voxels, all of the content
    content = (slice(2, 10), slice(5, 14))
    whole = replace(covered((10, 14), 16, 0, cell=16), content=content)
    (batch,), found, valid = seen(scene_of(image, known), whole)
    fitted, inside = window_of(image, known, content, (16, 16))
    assert np.array_equal(batch.image[0], fitted) and np.array_equal(batch.valid[0], inside)
    assert found.shape == (2, 1, 1) and valid.all()
    known[:, 2:6] = False
    batches, _, valid = seen(scene_of(image, known), whole)
    assert batches and valid.all(), "36 of 72, and of the 140 that the image has"
    known[:, 6, 5] = False
    batches, _, valid = seen(scene_of(image, known), whole)
    assert not batches and not valid.any(), "35 of 72"
    with pytest.raises(ShapeError, match="only what is one window and one value"):
        replace(covered((10, 14), 16, 0, cell=8), content=content)


def test_windows_that_are_resized_are_seen_as_whole_images_of_their_own() -> None:
    image, known = plane(47, 40), np.ones((2, 47, 40), bool)
    known[0, 20:24, :7] = False
    image[0, 20:24, :7] = np.nan
    windows = replace(covered((47, 40), 20, 0, cell=20), seen=(8, 12))
    for measured in ("all", "any"):
        batches: list[Batch] = []

        def look(batch: Batch, batches: list[Batch] = batches) -> Tensor:
            batches.append(batch)
            return batch.image.mean((2, 3))[:, :, None, None]

        found, valid = run(look, scene_of(image, known, "px"), windows, measured=measured)
        assert found.shape == (2, 3, 2) and not valid[2].any() and valid[:2].all(), "7 of 20 rows are less than half"
        pixels, data = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("image", "valid"))
        for number, (y, x) in enumerate([(0, 0), (0, 20), (20, 0), (20, 20)]):
            part = (slice(y, y + 20), slice(x, x + 20))
            bands = [known.all(0)] * 2 if measured == "all" else list(known)
            for band, inside in enumerate(bands):
                whole = (slice(0, 20), slice(0, 20))
                expected, there = fit(image[band][part][None], inside[part], (8, 12), whole)
                np.testing.assert_allclose(pixels[number, band], expected[0], rtol=1e-6)
                assert np.array_equal(data[number, band], there[0])


def test_rows_of_resized_windows_are_those_of_the_whole() -> None:
    scene, windows = scene_of(plane(47, 15), unit="px"), replace(covered((47, 15), 16, 0, cell=16), seen=(8, 8))
    expected, _ = run(lambda batch: batch.image.mean((2, 3))[:, :, None, None], scene, windows)
    found = np.full_like(expected, np.nan)

    def write(window: Window, part: np.ndarray, measured: np.ndarray) -> None:
        found[(slice(None), *window)] = part

    for row in range(3):
        part = replace(windows, rows=(row, row + 1))
        predict_windows(
            lambda batch: batch.image.mean((2, 3))[:, :, None, None], scene, part, write, values=2, batch_size=3
        )
    assert np.array_equal(found, expected) and len(np.unique(expected[0])) == 3


def test_a_window_at_the_rim_is_resized_as_the_others_are() -> None:
    image = plane(32, 20)
    windows = replace(covered((32, 20), 20, 0, cell=20), seen=(10, 10))
    batches, _, _ = seen(scene_of(image, unit="px"), windows)
    padded = np.zeros((2, 20, 20), np.float32)
    padded[:, :12] = image[:, 20:]
    inside = np.zeros((20, 20), bool)
    inside[:12] = True
    expected, there = fit(padded, inside, (10, 10), (slice(0, 20), slice(0, 20)))
    assert torch.equal(batches[0].image[1], torch.from_numpy(expected)), "rows 20 to 32 fill 6 of 10"
    assert np.array_equal(batches[0].valid[1], there) and there[0].sum() == 60


def test_an_image_of_one_window_fills_what_is_seen_with_its_content() -> None:
    image, known = plane(15, 12), np.zeros((2, 15, 12), bool)
    known[:, 3:, 5:] = True
    known[0, 3] = False
    content = (slice(4, 15), slice(5, 12))
    windows = replace(covered((15, 12), 20, 0, cell=20), seen=(24, 24), content=content)
    batches: list[Batch] = []

    def look(batch: Batch) -> Tensor:
        batches.append(batch)
        return torch.zeros(1, 2, 1, 1)

    _, valid = run(look, scene_of(image, known, "px"), windows)
    (batch,) = batches
    expected, there = fit(image, known.all(0), (24, 24))
    assert valid.all() and torch.equal(batch.image[0], torch.from_numpy(expected))
    assert np.array_equal(batch.valid[0], there)


def test_what_may_not_be_resized_is_refused() -> None:
    windows = replace(covered((32, 20), 20, 0, cell=20), seen=(10, 10))
    for wrong in ({"cell": (10, 10)}, {"seen": (10,)}, {"seen": (0, 10)}):
        with pytest.raises(ShapeError, match="only what is seen as a whole may be resized"):
            replace(windows, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="only what is seen as a whole may be resized"):
        replace(covered((9, 9, 9), 8, 0, cell=8), seen=(4, 4, 4))
    for scene in (scene_of(plane(32, 20)), replace(scene_of(plane(32, 20), unit="px"), placed=True)):
        with pytest.raises(ShapeError, match="sizes and places would no longer be true"):
            run(same, scene, windows)


def test_a_window_knows_its_place_only_if_it_is_told() -> None:
    origins = []
    run(lambda batch: (origins.append(batch.origin), same(batch))[1], scene_of(plane(20, 20)), covered((20, 20), 16, 4))
    assert origins == [None, None]


def test_a_sample_holds_what_windows_all_over_the_image_say() -> None:
    image, valid = plane(64, 64), np.ones((2, 64, 64), bool)
    valid[:, :16] = False
    windows = covered((64, 64), 16, 0)
    found = sample_windows(same, scene_of(image, valid), windows, values=2, count=16, batch_size=3)
    assert sorted(map(tuple, found)) == sorted(map(tuple, image[:, 16:].reshape(2, -1).T))
    few = sample_windows(same, scene_of(image), windows, values=2, count=2, batch_size=3)
    assert few.shape == (512, 2) and few[0, 0] == image[0, 0, 0] and few[-1, 0] == image[0, -1, -1]


def test_types_that_torch_does_not_know_reach_it_as_float32() -> None:
    image = plane(20, 20).astype(np.float64)
    found, _ = run(same, scene_of(image), covered((20, 20), 16, 4))
    assert np.array_equal(found, image.astype(np.float32))
    whole = (plane(20, 20) * 7).astype(np.uint16)
    kinds = []
    run(lambda batch: (kinds.append(batch.image.dtype), same(batch))[1], scene_of(whole), covered((20, 20), 16, 4))
    assert set(kinds) == {torch.uint16}


def test_numbers_that_are_not_finite_are_refused_where_there_is_data() -> None:
    def broken(batch: Batch) -> Tensor:
        values = same(batch).clone()
        values[:, :, 3, 3] = float("nan")
        return values

    with pytest.raises(NumericsError, match=r"window at \(0, 0\)"):
        run(broken, scene_of(plane(20, 20)), covered((20, 20), 16, 4))
    image, valid = plane(16, 16), np.ones((2, 16, 16), bool)
    valid[:, 3, 3] = False
    found, mask = run(broken, scene_of(image, valid), covered((16, 16), 16, 0))
    assert np.isfinite(found).all() and not mask[3, 3]


def test_a_model_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected predictions of shape \(3, 2, 16, 16\).*got \(3, 2, 8, 8\)"):
        run(lambda batch: same(batch)[..., ::2, ::2], scene_of(plane(40, 40)), covered((40, 40), 16, 4))


@pytest.mark.parametrize("where", ["read", "write", "model"])
def test_errors_arrive_and_no_thread_is_left(where: str) -> None:
    image = plane(64, 64)

    def fail(at: str) -> None:
        if at == where:
            raise DataError("scene.tif: damaged.")

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        if window[0].start > 20:
            fail("read")
        return image[(slice(None), *window)], np.ones((2, 16, 16), bool)

    scene = replace(scene_of(image), read=read)
    before = threading.active_count()
    with pytest.raises(DataError, match="damaged"):
        predict_windows(
            lambda batch: (fail("model"), same(batch))[1],
            scene,
            covered((64, 64), 16, 0),
            lambda *_: fail("write"),
            values=2,
            batch_size=2,
        )
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "shape",
    [
        {"window": (16,)},
        {"overlap": (16, 0)},
        {"window": (18, 16), "cell": (4, 4)},
        {"overlap": (2, 2), "cell": (4, 4)},
        {"size": (0, 4)},
    ],
)
def test_windows_that_do_not_fit_are_refused(shape: dict[str, tuple[int, ...]]) -> None:
    fine: dict[str, tuple[int, ...]] = {"size": (40, 40), "window": (16, 16), "overlap": (8, 8), "cell": (1, 1)}
    with pytest.raises(ShapeError, match="expected"):
        Windows(**(fine | shape))


def test_windows_cover_the_image_with_at_least_the_overlap() -> None:
    windows = covered((37, 100), 16, 6)
    assert windows.starts == ((0, 10, 20, 21), (0, 10, 20, 30, 40, 50, 60, 70, 80, 84))
    assert len(windows) == 40 == len(list(windows))


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize(("side", "values"), [(512, 3), (1024, 3), (1024, 20)])
def test_the_memory_said_beforehand_is_what_it_takes(side: int, values: int, readers: int) -> None:
    """Measured by tracemalloc, which sees numpy's memory; torch's, the network's, is left out on both sides."""
    windows = covered((side, side), 64, 16)
    line = np.arange(side, dtype=np.uint16)

    def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
        image = np.broadcast_to(line[window[1]], (2, 64, 64)).copy()
        return image, np.ones(image.shape, bool)

    given = np.zeros((4, values, 64, 64), np.float32)
    scene = replace(scene_of(plane(4, 4)), read=read, dtype=np.dtype(np.uint16))
    said = memory_bytes(windows, bands=2, itemsize=2, values=values, batch_size=4, readers=readers)

    def model(batch: Batch) -> Tensor:
        return torch.from_numpy(given[: len(batch)].copy())

    predict_windows(model, scene, windows, lambda *_: None, values=values, batch_size=4, readers=readers)
    tracemalloc.start()
    predict_windows(model, scene, windows, lambda *_: None, values=values, batch_size=4, readers=readers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * sum(said.values()) < peak < 1.05 * sum(said.values()) + 100_000


@pytest.mark.parametrize("readers", [1, 3])
def test_the_memory_of_windows_that_are_resized_is_said_too(readers: int) -> None:
    windows = replace(covered((2048, 2048), 512, 0, cell=512), seen=(32, 32))
    scene = replace(scene_of(plane(4, 4), unit="px"), dtype=np.dtype(np.uint16))
    scene = replace(scene, read=lambda _: (np.ones((2, 512, 512), np.uint16), np.ones((2, 512, 512), bool)))
    said = memory_bytes(windows, bands=2, itemsize=2, values=3, batch_size=4, readers=readers)
    given = torch.zeros(4, 3, 1, 1)

    def go() -> None:
        predict_windows(lambda _: given, scene, windows, lambda *_: None, values=3, batch_size=4, readers=readers)

    go()
    tracemalloc.start()
    go()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.2 * sum(said.values()) < peak < 1.05 * sum(said.values()) + 100_000
    facts = {"bands": BANDS, "spacing": Spacing((1.0, 1.0), "px"), "batch_size": 3}
    assert network_bytes(lambda batch: batch.image * 2, windows, **facts) == 3 * 2 * 32 * 32 * 4  # type: ignore[arg-type]


def test_what_a_network_holds_is_counted_tensor_by_tensor() -> None:
    weight = torch.ones(2)[:, None, None]
    pixels = 3 * 2 * 16 * 16 * 4  # bytes of the batch

    def network(batch: Batch) -> Tensor:
        first = batch.image + weight  # 1
        twice = torch.cat([first, first], 1)  # 1 + 2
        part = twice[:, :2].reshape(3, -1)[:, :5].T  # no more: views
        del first
        return (twice * 2).mul_(3) + part.sum() * 0  # 2 + 2 + 2

    facts = {"bands": BANDS, "spacing": Spacing((10.0, 10.0), "m"), "batch_size": 3}
    found = network_bytes(network, covered((64, 64), 16, 0), **facts)  # type: ignore[arg-type]
    assert found == pytest.approx(6 * pixels, rel=0.01)
    assert network_bytes(lambda batch: batch.image[:, :1], covered((64, 64), 16, 0), **facts) == 0  # type: ignore[arg-type]
