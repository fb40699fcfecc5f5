"""Samples: crops from the content, purity in (seed, epoch, row), types, value space, the cache."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from core.contract import Input, Normalisation
from core.errors import BandError, ConfigError, DataError
from core.preprocess import foreground, prepare
from core.rng import key
from datasets.assign import assign
from datasets.index import build_manifest
from datasets.loader import whole_batches
from datasets.manifest import Manifest
from datasets.opening import Images
from datasets.readers import open_image
from datasets.tiles import Failure, Item, Sample, StreamSpec, TileDataset


@pytest.fixture
def dataset(manifest: Manifest, photograph_input: Input, volume_input: Input) -> TileDataset:
    streams = [
        StreamSpec(input=photograph_input, batch_size=4, scale=(0.1, 1.0), flips=(True, True)),
        StreamSpec(input=volume_input, batch_size=2, flips=(False, True, True)),
    ]
    return TileDataset(manifest, streams, seed=5)


def equal(one: Sample, other: Sample) -> bool:
    arrays = all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("image", "valid", "offset", "scale"))
    return arrays and one.key == other.key and one.image.dtype == other.image.dtype


def test_same_item_same_sample_in_any_dataset_and_order(dataset: TileDataset) -> None:
    items = [Item(stream=0, row=3, index=9, epoch=2), Item(stream=1, row=12, index=1, epoch=0)]
    fresh = pickle.loads(pickle.dumps(dataset))
    for item in items:
        assert equal(dataset[item], dataset[item])
    for item in reversed(items):
        assert equal(fresh[item], dataset[item])


def test_epoch_row_and_seed_change_the_crop(dataset: TileDataset) -> None:
    item = Item(stream=0, row=3, index=0)
    other_seed = TileDataset(dataset.manifest, dataset.streams, seed=6)
    crops = [dataset[item], dataset[replace(item, epoch=1)], dataset[replace(item, row=4)], other_seed[item]]
    assert len({crop.key for crop in crops}) == 4
    assert len({crop.image.tobytes() for crop in crops}) == 4
    assert crops[1].key == key(5, "sample", "photograph", 1, 3)
    assert dataset[replace(item, index=10)].key == crops[0].key  # the position in the order is no randomness


def test_crops_are_of_the_disc(dataset: TileDataset) -> None:
    for row in range(10):
        for epoch in range(6):
            sample = dataset[Item(stream=0, row=row, index=0, epoch=epoch)]
            assert sample.image.shape == sample.valid.shape == (3, 32, 32)
            assert sample.image.dtype == np.uint8
            assert sample.valid[0].mean() >= 0.5
            assert sample.image[sample.valid].min() > 60  # 90 in the disc: black never bleeds in
            assert (sample.image[~sample.valid] == 0).all()


def test_flips_happen_on_legal_axes_only(manifest: Manifest, photograph_input: Input) -> None:
    entry = replace(photograph_input, background="none")
    whole = {"batch_size": 1, "scale": (1.0, 1.0)}
    seen: dict[tuple[bool, bool], int] = {}
    for epoch in range(60):
        item = Item(stream=0, row=0, index=0, epoch=epoch)
        still = TileDataset(manifest, [StreamSpec(input=entry, **whole)], seed=1)[item].image
        for flips in ((True, True), (False, True)):
            image = TileDataset(manifest, [StreamSpec(input=entry, flips=flips, **whole)], seed=1)[item].image
            turned = [
                f
                for f in ((y, x) for y in (1, -1) for x in (1, -1))
                if np.array_equal(image, still[:, :: f[0], :: f[1]])
            ]
            assert len(turned) == 1
            if flips == (False, True):
                assert turned[0][0] == 1
            else:
                seen[turned[0]] = seen.get(turned[0], 0) + 1
    assert len(seen) == 4
    assert min(seen.values()) >= 6


def test_volume_crop_is_a_window_at_native_spacing(dataset: TileDataset) -> None:
    """Row 11 is .nii.gz (cached whole), row 12 is .nii (read by window): the same rule places both."""
    for row in (11, 12):
        voxels = open_image(dataset.manifest.path(row)).read()
        places = set()
        for epoch in range(12):
            sample = dataset[Item(stream=1, row=row, index=0, epoch=epoch)]
            assert sample.image.shape == (1, 8, 12, 16)
            assert sample.spacing == (2.0, 1.5, 1.0)
            assert sample.valid[0].all(axis=(0, 1)).tolist() == [False] + [True] * 14 + [False]  # X is 14 of 16
            inner = sample.image[..., 1:15]
            found = [
                (z, y, fy, fx)
                for z in range(voxels.shape[1] - 7)
                for y in range(7)
                for fy in (1, -1)
                for fx in (1, -1)
                if np.array_equal(inner[:, :, ::fy, ::fx], voxels[:, z : z + 8, y : y + 12])
            ]
            assert len(found) == 1
            places.add(found[0])
        assert len(places) > 6


def test_per_image_value_space_is_that_of_the_whole_volume(dataset: TileDataset) -> None:
    for row in (11, 12):
        voxels = open_image(dataset.manifest.path(row)).read()
        sample = dataset[Item(stream=1, row=row, index=0)]
        np.testing.assert_allclose(sample.offset, voxels.mean(), rtol=1e-6)
        np.testing.assert_allclose(sample.scale, 1 / voxels.std(), rtol=1e-5)


def test_nan_voxels_are_not_valid_and_leave_no_trace(dataset: TileDataset) -> None:
    sample = dataset[Item(stream=1, row=10, index=0)]
    assert np.isfinite(sample.image).all()
    assert 0.4 < sample.valid.mean() < 0.95
    assert (sample.image[~sample.valid] == 0).all()


def test_whole_equals_what_an_encoder_prepares(dataset: TileDataset) -> None:
    for stream, row in ((0, 3), (1, 10), (1, 11), (1, 12), (1, 13)):
        sample = dataset[Item(stream=stream, row=row, index=0, mode="whole")]
        image = open_image(dataset.manifest.path(row))
        ready = prepare(image.read(), image.bands, dataset.streams[stream].input)
        assert np.array_equal(sample.image, ready.image)
        assert np.array_equal(sample.valid, ready.valid)
        np.testing.assert_allclose(sample.offset, ready.offset, rtol=1e-6)
        np.testing.assert_allclose(sample.scale, ready.scale, rtol=1e-6)


def test_volume_crops_are_at_least_half_data(tmp_path: Path, volume_input: Input) -> None:
    data = np.full((60, 40, 40), np.nan, np.float32)
    data[:20, :20, :20] = 1  # an eighth of each axis pair is measured; it lies in one corner
    data[59, 39, 39] = 1  # and a stray voxel makes the content box everything
    for ending in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"a{ending}")
        manifest = build_manifest([tmp_path / f"a{ending}"])
        dataset = TileDataset(manifest, [StreamSpec(input=volume_input, batch_size=1)], seed=0)
        shares = [dataset[Item(stream=0, row=0, index=0, epoch=epoch)].valid.mean() for epoch in range(40)]
        assert np.mean(np.array(shares) > 0) > 0.6  # of single draws about a fifth touch the data
        assert np.mean(shares) > 0.25


def test_whole_does_not_depend_on_the_epoch(dataset: TileDataset) -> None:
    item = Item(stream=0, row=1, index=0, mode="whole")
    assert equal(dataset[item], dataset[replace(item, epoch=3)])


def test_little_content_takes_the_best_of_ten_draws(tmp_path: Path, photograph_input: Input) -> None:
    from PIL import Image

    picture = np.zeros((64, 64, 3), np.uint8)
    picture[np.eye(64, dtype=bool)] = 200
    for shift in range(1, 4):
        picture[np.eye(64, k=shift, dtype=bool)] = 200  # a thin diagonal: no crop is half content
    Image.fromarray(picture).save(tmp_path / "thin.png")
    manifest = build_manifest([tmp_path])
    share = foreground(picture.transpose(2, 0, 1)).mean()
    dataset = TileDataset(manifest, [StreamSpec(input=photograph_input, batch_size=1, scale=(0.02, 0.3))], seed=0)
    shares = [dataset[Item(stream=0, row=0, index=0, epoch=epoch)].valid.mean() for epoch in range(20)]
    assert np.mean(shares) > 2 * share


def test_whole_numbers_travel_as_they_are(tmp_path: Path, volume_input: Input) -> None:
    import tifffile

    for dtype, travels in (
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int64, np.float32),
        (np.float64, np.float32),
    ):
        nib.save(
            nib.Nifti1Image(np.arange(512).reshape(8, 8, 8).astype(dtype), np.eye(4), dtype=dtype), tmp_path / "a.nii"
        )
        dataset = TileDataset(
            build_manifest([tmp_path / "a.nii"]), [StreamSpec(input=volume_input, batch_size=1)], seed=0
        )
        assert dataset[Item(stream=0, row=0, index=0)].image.dtype == travels
    deep = Input(
        name="photograph",
        bands=("gray",),
        patch=(8, 8),
        size=(16, 16),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="fixed", mean=(0.5,), std=(0.25,)),
    )
    tifffile.imwrite(tmp_path / "deep.tif", np.full((20, 20), 40_000, np.uint16))
    sample = TileDataset(build_manifest([tmp_path / "deep.tif"]), [StreamSpec(input=deep, batch_size=1)], seed=0)[
        Item(stream=0, row=0, index=0)
    ]
    assert sample.image.dtype == np.uint16
    assert (sample.image == 40_000).all()
    assert sample.offset[0] == 32767.5


def test_bands_are_picked_by_name(manifest: Manifest, photograph_input: Input) -> None:
    item = Item(stream=0, row=2, index=0)
    turned = replace(photograph_input, bands=("blue", "red", "green"))
    one, other = (
        TileDataset(manifest, [StreamSpec(input=e, batch_size=1)], seed=0)[item] for e in (photograph_input, turned)
    )
    assert np.array_equal(one.image[[2, 0, 1]], other.image)
    assert other.bands == ("blue", "red", "green")
    infrared = replace(photograph_input, bands=("red", "green", "infrared"))
    with pytest.raises(BandError, match=r"p2\.png: expected bands"):
        TileDataset(manifest, [StreamSpec(input=infrared, batch_size=1)], seed=0)[item]


def test_changed_and_vanished_files_are_noticed(collection: Path, tmp_path: Path, photograph_input: Input) -> None:
    shutil.copytree(collection, tmp_path / "copy")
    manifest = build_manifest([tmp_path / "copy" / "p1.png", tmp_path / "copy" / "p2.png"])
    dataset = TileDataset(manifest, [StreamSpec(input=photograph_input, batch_size=1)], seed=0)
    shutil.copy(collection / "p5.png", tmp_path / "copy" / "p1.png")
    (tmp_path / "copy" / "p2.png").unlink()
    with pytest.raises(DataError, match=r"p1\.png: the file changed since the manifest was built"):
        dataset[Item(stream=0, row=0, index=0)]
    failures = dataset.__getitems__([Item(stream=0, row=1, index=0)])
    assert isinstance(failures[0], Failure)
    assert failures[0].kind == "MissingDataError"
    assert "p2.png" in failures[0].message


def test_cache_keeps_within_its_budget_and_travels_empty(dataset: TileDataset) -> None:
    item = Item(stream=0, row=0, index=0)
    expected = dataset[item]
    for budget in (0, 25_000, 70_000):
        small = TileDataset(dataset.manifest, dataset.streams, seed=5, cache_bytes=budget)
        for row in range(10):
            small[replace(item, row=row)]
            assert small._cache._bytes <= budget
            assert small._cache._bytes == sum(held.bytes for held in small._cache._held.values())
        assert equal(small[item], expected)
    assert len(small._cache._held) == 3
    assert pickle.loads(pickle.dumps(small))._cache._held == {}
    held = dataset._cache.get((0, 0))
    assert held is not None
    assert dataset._decoded(item) is held


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"scale": (0.0, 1.0)}, "0 < scale"),
        ({"scale": (0.5, 0.2)}, "0 < scale"),
        ({"flips": (True,)}, "one flip per axis"),
    ],
)
def test_stream_options_are_checked(options: dict[str, object], message: str, photograph_input: Input) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamSpec(**({"input": photograph_input, "batch_size": 1} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("stream", "row"), [(0, 3), (1, 11), (1, 12)])
def test_whole_images_may_be_larger_than_crops(dataset: TileDataset, stream: int, row: int) -> None:
    entry = dataset.streams[stream].input
    twice = tuple(2 * n for n in entry.size)
    larger = StreamSpec(input=replace(entry, whole_size=twice), batch_size=1)
    again = TileDataset(dataset.manifest, [larger], seed=1)
    for mode, size in (("crop", entry.size), ("whole", twice)):
        assert again[Item(stream=0, row=row, index=0, mode=mode)].image.shape[1:] == size


def test_a_crop_knows_where_it_lies_in_the_whole_image(tmp_path: Path, photograph_input: Input) -> None:
    """Red codes x and green y, so every pixel of a crop says where it came from; mirrored ones too."""
    y, x = np.mgrid[0:240, 0:240]
    pixels = np.stack([x + 10, y + 10, np.full_like(x, 128)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    manifest = build_manifest([tmp_path / "ramp.png"])
    entry = replace(photograph_input, background="none", whole_size=tuple(2 * n for n in photograph_input.size))
    spec = StreamSpec(input=entry, batch_size=1, scale=(0.1, 0.6), flips=(False, True))
    dataset = TileDataset(manifest, [spec], seed=0)
    share = entry.whole[1] / 240
    mirrored = 0
    for epoch in range(20):
        sample = dataset[Item(stream=0, row=0, index=0, epoch=epoch)]
        first, last = sample.image[:, 0, 0].astype(float), sample.image[:, -1, -1].astype(float)
        end = [o + s * n for o, s, n in zip(sample.origin, sample.spacing, entry.size, strict=True)]
        assert (first[1] - 10) * share == pytest.approx(sample.origin[0], abs=4)
        turned = first[0] > last[0]
        mirrored += turned
        left = entry.whole[1] - (first[0] - 10) * share if turned else (first[0] - 10) * share
        right = entry.whole[1] - (last[0] - 10) * share if turned else (last[0] - 10) * share
        assert left == pytest.approx(sample.origin[1], abs=4)
        assert right == pytest.approx(end[1], abs=4)
    assert 4 <= mirrored <= 16
    whole = dataset[Item(stream=0, row=0, index=0, mode="whole")]
    assert whole.origin == (0.0, 0.0)
    assert whole.spacing == entry.spacing


@pytest.mark.parametrize(("column", "value"), [("reader", ["nifty"]), ("options", [["nifti.affin=sform"]])])
def test_a_manifest_that_names_no_reader_of_ours_names_the_file(
    column: str, value: list[Any], manifest: Manifest
) -> None:
    one = manifest.take([0]).with_column(column, value)
    with pytest.raises(DataError, match=rf"{one.path(0).name}: .*(nifti|affine)"):
        Images(one).open(0)


HLS = Input(
    name="scene",
    bands=("blue", "green", "nir_narrow"),
    patch=(4, 4),
    size=(8, 8),
    spacing=(30.0, 30.0),
    unit="px",
    sensor="hls",
    normalisation=Normalisation(method="fixed", mean=(0.1, 0.2, 0.3), std=(0.1, 0.1, 0.1), full_scale=False),
)


def _scene(path: Path, names: tuple[str, ...], level: dict[str, float]) -> Path:
    """A band's pixels and its scale tell which it is: what is read of any order of names must be the same."""
    import rasterio

    facts = {"driver": "GTiff", "count": len(names), "height": 8, "width": 8, "dtype": "uint16", "crs": "EPSG:32615"}
    rise = np.arange(64, dtype=np.uint16).reshape(8, 8)
    with rasterio.open(path, "w", **facts, transform=rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)) as file:
        file.write(np.stack([rise + int(1000 * level[name]) for name in names]))
        file.descriptions = names
        file.scales = [level[name] * 1e-4 for name in names]
    return path


def test_bands_under_other_names_of_their_sensor_are_the_same_samples(tmp_path: Path) -> None:
    """The names and their order in a file change nothing, for crops and for whole images, for both value spaces."""
    own = {"blue": 1.0, "green": 2.0, "nir_narrow": 3.0}
    other = {"B03": 2.0, "B02": 1.0, "B05": 9.0, "B8A": 3.0}  # B05 is no band of the sensor and is left alone
    called = [_scene(tmp_path / "own.tif", tuple(own), own)]
    for number, names in enumerate(permutations(other)):
        called.append(_scene(tmp_path / f"other{number:02d}.tif", names, other))
    manifest = build_manifest(called)
    for entry in (HLS, replace(HLS, normalisation=Normalisation(method="per_image"))):
        rows = assign(manifest, [entry])[0]
        assert rows.tolist() == list(range(25))
        dataset = TileDataset(manifest, [StreamSpec(input=entry, batch_size=1, crop="native")], seed=1)
        for mode in ("crop", "whole"):
            samples = [dataset[Item(stream=0, row=int(row), index=0, mode=mode)] for row in rows]
            assert all(equal(replace(samples[0], key=s.key), s) and s.bands == HLS.bands for s in samples)
            assert samples[0].image[:, 0, 0].tolist() == [1000, 2000, 3000]
    batches = list(whole_batches(manifest, HLS, 5))
    assert all(torch.equal(batch.image, batches[0].image[:1].expand_as(batch.image)) for batch in batches)


def test_bands_by_their_own_names_go_before_bands_by_other_names(tmp_path: Path) -> None:
    plain = replace(HLS, name="plain", sensor="", bands=("B02", "B03", "B8A"))
    manifest = build_manifest([_scene(tmp_path / "a.tif", plain.bands, {"B02": 1.0, "B03": 2.0, "B8A": 3.0})])
    assert [len(rows) for rows in assign(manifest, [HLS, plain])] == [0, 1]
    assert [len(rows) for rows in assign(manifest, [HLS])] == [1]


def test_two_names_of_one_band_are_refused_and_the_file_is_named(tmp_path: Path) -> None:
    level = {"B02": 1.0, "BLUE": 1.5, "B03": 2.0, "B8A": 3.0}
    manifest = build_manifest([_scene(tmp_path / "twice.tif", tuple(level), level)])
    ask = [StreamSpec(input=HLS, batch_size=1)]
    for refused in (
        lambda: assign(manifest, [HLS]),
        lambda: TileDataset(manifest, ask, seed=0)[Item(stream=0, row=0, index=0)],
    ):
        with pytest.raises(
            BandError, match=r"twice\.tif: input 'scene': expected one band for \['blue'\], but several of"
        ):
            refused()
    with pytest.raises(BandError, match=r"twice\.tif: expected bands \('red',\), the image has"):
        assign(manifest, [replace(HLS, bands=("red",), normalisation=Normalisation(method="per_image"))])
