"""Native crops and tile plans: on the grid or anywhere, each once per epoch, the same for any workers, ranks and layout."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from core.batch import Batch
from core.contract import Input, Normalisation, Tiles
from core.errors import ConfigError
from core.geometry import Georeference, Spacing
from core.preprocess import prepare
from datasets.index import build_manifest
from datasets.loader import TileLoader
from datasets.manifest import Manifest
from datasets.readers import open_image
from datasets.sample import Failure, Item, StreamSpec
from datasets.tiles import TileDataset
from datasets.workers import WorkerKind
from datasets.writers import Facts, write_image
from tests.datasets.faults import damage

BANDS = ("red", "green", "nir")
SCENE = Input(
    name="scene",
    bands=("nir", "red"),
    patch=(16, 16),
    size=(64, 64),
    spacing=(10.0, 10.0),
    unit="m",
    normalisation=Normalisation(method="fixed", mean=(0.3, 0.1), std=(0.2, 0.1)),
)
NODATA = 65_535


def _scene(seed: int, height: int, width: int) -> np.ndarray:
    """Each band codes where a pixel lies, so that a crop tells its place: y, x, and both."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, 1000 * seed + 2 * y + x]).astype(np.uint16)
    image[2, : height // 8] = NODATA  # nir is missing along the upper edge
    image[:, :, : width // 6] = NODATA  # and nothing was seen at the left
    return image


def _facts(image: np.ndarray) -> Facts:
    return Facts(
        shape=image.shape,
        dtype=image.dtype,
        bands=BANDS,
        spacing=Spacing((20.0, 10.0), "m"),
        georeference=Georeference("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0)),
        nodata=(NODATA,) * 3,
        scaling=((0.0001, -0.1),) * 3,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """Two scenes, as tiled GeoTIFF and as prepared stores."""
    root = tmp_path_factory.mktemp("scenes")
    for seed, (height, width) in enumerate(((320, 448), (256, 300))):
        image = _scene(seed, height, width)
        everything = [(tuple(slice(0, n) for n in image.shape[1:]), image)]
        for ending in ("tif", "zarr"):
            (root / ending).mkdir(exist_ok=True)
            write_image(root / ending / f"s{seed}.{ending}", _facts(image), everything)
    return {ending: build_manifest([root / ending]) for ending in ("tif", "zarr")}


def _stream(tiles: Tiles = Tiles(), **changes: object) -> StreamSpec:  # noqa: B008 - frozen
    return replace(StreamSpec(input=SCENE, batch_size=4, tiles=tiles), **changes)  # type: ignore[arg-type]


def _same(one: Batch, other: Batch) -> bool:
    names = ("image", "valid", "spacing", "offset", "scale", "key", "index", "row", "origin")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def _all_same(some: Iterable[Batch], others: Iterable[Batch]) -> bool:
    return all(_same(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("ending", ["tif", "zarr"])
def test_aligned_windows_start_on_the_grid_and_come_once(scenes: dict[str, Manifest], ending: str) -> None:
    manifest = scenes[ending]
    chunks = manifest.column("chunks")[0]
    stream = _stream(Tiles(per_image=None, plan="aligned", per_visit=2, window=2))
    loader = TileLoader(manifest, [stream], seed=2)
    count = loader.num_tiles("scene")
    assert loader.num_rows("scene") == 2
    items = [item for step in range(math.ceil(count / 4)) for item in loader._items(step)][:count]
    assert len({(item.row, item.tile) for item in items}) == count
    starts = {(item.row, *loader._dataset._start(item, manifest.column("shape")[item.row][1:], 0)) for item in items}
    assert len(starts) == count
    reached = [np.zeros(shape[1:], bool) for shape in manifest.column("shape")]
    for row, y, x in starts:
        height, width = reached[row].shape
        for start, chunk, n in ((y, chunks[0], height), (x, chunks[1], width)):
            assert start == n - 64 or start % min(chunk, 64) == 0
            assert start == n - 64 or start // chunk == (start + 63) // chunk or chunk <= 64
        reached[row][y : y + 64, x : x + 64] = True
    for row, hit in enumerate(reached):
        top, bottom, left, right = manifest.column("content")[row]
        assert hit[top:bottom, left:right].all()


def test_free_windows_cover_in_number(scenes: dict[str, Manifest]) -> None:
    manifest = scenes["tif"]
    loader = TileLoader(manifest, [_stream(Tiles(per_image=None))], seed=2)
    boxes = manifest.column("content")
    assert loader.num_tiles("scene") == sum(
        math.ceil((b[1] - b[0]) / 64) * math.ceil((b[3] - b[2]) / 64) for b in boxes
    )


def test_a_crop_is_the_window_that_its_origin_says(scenes: dict[str, Manifest]) -> None:
    """Pixels code their place: bands by name, per-band validity, origin in metres, mirrored crops too."""
    manifest = scenes["tif"]
    dataset = TileDataset(manifest, [_stream(flips=(True, True))], seed=0)
    whole = {row: open_image(manifest.path(row)).read() for row in (0, 1)}
    missing = turned = 0
    for row in (0, 1):
        for tile in range(12):
            sample = dataset[Item(stream=0, row=row, index=0, tile=tile)]
            assert sample.image.dtype == np.uint16
            assert sample.bands == ("nir", "red")
            assert sample.spacing == (20.0, 10.0)
            y, x = (round(o / s) for o, s in zip(sample.origin, sample.spacing, strict=True))
            flipped = [
                f
                for f in ((i, j) for i in (1, -1) for j in (1, -1))
                if _fits(sample.image, sample.valid, whole[row], y, x, f)
            ]
            assert len(flipped) == 1
            turned += flipped[0] != (1, 1)
            missing += int((sample.valid[0] != sample.valid[1]).any())
            assert (sample.image[~sample.valid] == 0).all()
            assert sample.valid.mean() >= 0.5
    assert turned > 6
    assert missing >= 2  # bands differ in what is missing


def _fits(image: np.ndarray, valid: np.ndarray, whole: np.ndarray, y: int, x: int, flip: tuple[int, int]) -> bool:
    seen = whole[[2, 0], :: flip[0], :: flip[1]][:, y : y + 64, x : x + 64]
    return np.array_equal(valid, seen != NODATA) and np.array_equal(image[valid], seen[valid])


def test_scaling_is_folded_into_the_value_space(scenes: dict[str, Manifest]) -> None:
    sample = TileDataset(scenes["tif"], [_stream()], seed=0)[Item(stream=0, row=0, index=0)]
    physical = sample.image.astype(np.float64) * 0.0001 - 0.1
    mean, std = (np.array(values)[:, None, None] for values in (SCENE.normalisation.mean, SCENE.normalisation.std))
    seen = (sample.image.astype(np.float64) - sample.offset[:, None, None]) * sample.scale[:, None, None]
    np.testing.assert_allclose(seen, (physical - mean) / std, rtol=1e-5, atol=1e-5)


def test_per_image_statistics_are_of_valid_pixels_only(scenes: dict[str, Manifest]) -> None:
    entry = replace(SCENE, normalisation=Normalisation(method="per_image"))
    sample = TileDataset(scenes["zarr"], [_stream(input=entry)], seed=0)[Item(stream=0, row=1, index=0)]
    image = open_image(scenes["zarr"].path(1)).read()[[2, 0]]
    for band in (0, 1):
        measured = image[band][image[band] != NODATA].astype(np.float64)
        assert sample.offset[band] == pytest.approx(measured.mean(), rel=1e-6)
        assert sample.scale[band] == pytest.approx(1 / measured.std(), rel=1e-6)


def test_file_format_does_not_change_a_batch(scenes: dict[str, Manifest]) -> None:
    stream = _stream(Tiles(per_image=6, per_visit=3, window=2), flips=(True, True))
    one, other = (TileLoader(scenes[ending], [stream], seed=4).batches(0, 6) for ending in ("tif", "zarr"))
    assert _all_same(one, other)


def test_a_window_that_cannot_be_read_is_named(scenes: dict[str, Manifest], tmp_path: Path) -> None:
    shutil.copytree(scenes["zarr"].path(0), tmp_path / "s0.zarr")
    manifest = build_manifest([tmp_path / "s0.zarr"])
    damage(max((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))
    dataset = TileDataset(manifest, [_stream(Tiles(per_image=None, plan="aligned"))], seed=0)
    made = [dataset.__getitems__([Item(stream=0, row=0, index=0, tile=tile)])[0] for tile in range(20)]
    failures = [one for one in made if isinstance(one, Failure)]
    assert failures
    for failure in failures:
        assert "s0.zarr" in failure.message
        assert re.fullmatch(r"\d+:\d+, \d+:\d+", failure.window)


def test_whole_scenes_are_what_an_encoder_prepares(scenes: dict[str, Manifest]) -> None:
    for row in (0, 1):
        sample = TileDataset(scenes["tif"], [_stream()], seed=0)[Item(stream=0, row=row, index=0, mode="whole")]
        lazy = open_image(scenes["tif"].path(row))
        image, valid = lazy.read_valid()
        ready = prepare(image, lazy.bands, SCENE, valid=valid, scaling=lazy.scaling)
        assert np.array_equal(sample.image, ready.image)
        assert np.array_equal(sample.valid, ready.valid)
        np.testing.assert_allclose(sample.offset, ready.offset, rtol=1e-6)
        np.testing.assert_allclose(sample.scale, ready.scale, rtol=1e-6)


CASES = [
    (0, "thread"),
    (2, "thread"),
    pytest.param(2, "process", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize(("workers", "kind"), CASES)
def test_batches_are_pure(scenes: dict[str, Manifest], workers: int, kind: WorkerKind, world_size: int) -> None:
    stream = _stream(Tiles(per_image=None, plan="aligned", per_visit=2, window=2), flips=(True, True))
    reference = list(TileLoader(scenes["tif"], [stream], seed=4).batches(0, 8))

    def share(rank: int, ranks: int, start: int, stop: int) -> Iterator[Batch]:
        loader = TileLoader(
            scenes["tif"], [stream], seed=4, workers=workers, worker_kind=kind, rank=rank, world_size=ranks
        )
        return loader.batches(start, stop)

    before = [list(share(rank, world_size, 0, 3)) for rank in range(world_size)]
    after = [list(share(rank, 2, 3, 8)) for rank in range(2)]  # the number of ranks changes in the middle
    for step, whole in enumerate(reference):
        parts = [batches[step] for batches in before] if step < 3 else [batches[step - 3] for batches in after]
        for rank, part in enumerate(parts):
            assert _same(part, whole.take(slice(rank, None, len(parts))))


def test_windows_and_whole_reads_give_the_same_samples(tmp_path: Path, volume_input: Input) -> None:
    """A plain .nii is read by window, a .nii.gz whole; a box of NaN around the content must not tell them apart."""
    rng = np.random.Generator(np.random.Philox(key=3))
    data = rng.normal(50, 9, (40, 44, 30)).astype(np.float32)
    data[:6], data[:, 37:], data[:, :, :5] = np.nan, np.nan, np.nan
    for ending in ("nii", "nii.gz"):
        (tmp_path / ending).mkdir()
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.5, 2.0, 1.0])), tmp_path / ending / f"v.{ending}")
    plain, packed = (build_manifest([tmp_path / ending]) for ending in ("nii", "nii.gz"))
    assert open_image(plain.path(0)).windowed
    assert not open_image(packed.path(0)).windowed
    for tiles in (Tiles(per_image=5), Tiles(per_image=None, per_visit=3, window=2)):
        stream = StreamSpec(input=volume_input, batch_size=3, tiles=tiles, flips=(False, True, True))
        datasets = [TileDataset(manifest, [stream], seed=1) for manifest in (plain, packed)]
        for item in (
            *(Item(stream=0, row=0, index=0, tile=tile) for tile in range(5)),
            Item(stream=0, row=0, index=0, mode="whole"),
        ):
            one, other = (dataset[item] for dataset in datasets)
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.valid, other.valid)
            assert np.array_equal(one.offset, other.offset)
            assert np.array_equal(one.scale, other.scale)
            assert one.key == other.key


def test_crops_of_one_visit_decode_an_image_once(
    tmp_path: Path, volume_input: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets.readers import nifti

    rng = np.random.Generator(np.random.Philox(key=3))
    for number in range(8):
        data = rng.integers(0, 100, (30, 30, 30)).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"v{number}.nii.gz")
    manifest = build_manifest([tmp_path])
    reads = []
    read = nifti.NiftiSource.read
    monkeypatch.setattr(nifti.NiftiSource, "read", lambda self, *window: reads.append(self.path) or read(self, *window))
    for per_visit, fewest, most in ((1, 20, 32), (4, 8, 8)):
        reads.clear()
        tiles = Tiles(per_image=4, per_visit=per_visit, window=2 if per_visit > 1 else 1)
        stream = StreamSpec(input=volume_input, batch_size=4, tiles=tiles)
        loader = TileLoader(manifest, [stream], seed=0, cache_bytes=2 * 54_000)  # two images: those of a window
        rows = torch.cat([batch.row for batch in loader.batches(0, 8)])
        assert torch.bincount(rows).tolist() == [4] * 8
        assert fewest <= len(reads) <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": "resized"}, "expected native crops, got crop 'resized' for a 2D input in m"),
        ({"input": replace(SCENE, background="dark")}, "only for resized crops"),
        ({"input": replace(SCENE, unit="px"), "tiles": Tiles(per_image=None)}, "tiles.per_image to be a number"),
        ({"input": replace(SCENE, unit="px"), "tiles": Tiles(plan="aligned")}, "tiles.plan 'free'"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _stream(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"per_image": 0}, {"per_visit": 0}, {"window": 0}, {"per_image": 2, "per_visit": 3}]
)
def test_tile_numbers_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Tiles(**options)
