"""Images derived from images: cropped, resampled, recast."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.errors import DataError, GeometryError
from core.geometry import Georeference, Spacing
from datasets.converting.derived import cropped, recast, resampled
from datasets.image import LazyImage
from datasets.readers import open_image
from datasets.writers import Facts, write_image


def scene(
    folder: Path, voxels: np.ndarray, *, nodata: float | None = None, valid: np.ndarray | None = None
) -> LazyImage:
    facts = Facts(
        shape=voxels.shape,
        dtype=voxels.dtype,
        bands=tuple(f"b{n}" for n in range(len(voxels))),
        spacing=Spacing((10.0, 10.0), "m"),
        georeference=Georeference("EPSG:32615", (10.0, 0.0, 5e5, 0.0, -10.0, 1e6)),
        nodata=None if nodata is None else (nodata,) * len(voxels),
        valid=0 if valid is None else len(valid),
    )
    whole = tuple(slice(0, n) for n in facts.size)
    part = (whole, voxels) if valid is None else (whole, voxels, valid)
    return open_image(write_image(folder / f"s{len(list(folder.iterdir()))}.zarr", facts, [part]))


def volume(folder: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (3.0, 1.0, 1.5)) -> LazyImage:
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = (-20, 5, 7)
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), affine), folder / "v.nii")
    return open_image(folder / "v.nii")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).normal(0, 100, shape)


@pytest.mark.parametrize("spacing", [(20.0, 40.0), (5.0, 10.0), (25.0, 4.0)])
def test_resampling_is_what_torch_does_in_2d(tmp_path: Path, spacing: tuple[float, float]) -> None:
    voxels = noise(2, 40, 60).astype(np.float32)
    small = resampled(scene(tmp_path, voxels), spacing)
    size = (round(400 / spacing[0]), round(600 / spacing[1]))
    expected = F.interpolate(
        torch.from_numpy(voxels)[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(small.read(), expected[0].numpy(), atol=1e-3)
    assert small.georeference is not None
    assert small.georeference.transform == (spacing[1], 0.0, 5e5, 0.0, -spacing[0], 1e6)


def test_a_window_of_a_resampled_volume_equals_that_slice(tmp_path: Path) -> None:
    image = resampled(volume(tmp_path, noise(20, 33, 27).astype(np.float32)), (2.2, 2.0, 1.0))
    whole = image.read()
    assert whole.shape == (1, 27, 16, 40)
    for window in ((slice(3, 9), slice(0, 16), slice(11, 40)), (slice(26, 27), slice(5, 6), slice(0, 1))):
        assert np.array_equal(image.read(window), whole[(slice(None), *window)])


def test_a_plane_stays_a_plane_at_its_place_in_the_world(tmp_path: Path) -> None:
    z, y, x = np.mgrid[:20, :30, :24].astype(np.float64)
    image = volume(tmp_path, (2 * z + 3 * y - x).astype(np.float64))
    small = resampled(image, (1.5, 2.0, 3.0))
    assert small.affine is not None
    assert image.affine is not None
    assert small.spacing == Spacing((1.5, 2.0, 3.0), "mm")
    np.testing.assert_allclose(small.affine.spacing.values, (1.5, 2.0, 3.0))
    there = small.affine.matrix @ [5, 4, 3, 1]
    here = np.linalg.solve(image.affine.matrix, there)
    value = small.read()[0, 5, 4, 3]
    np.testing.assert_allclose(value, [2, 3, -1] @ here[:3], atol=1e-9)


def test_whole_numbers_are_rounded_and_nearest_keeps_labels(tmp_path: Path) -> None:
    labels = np.random.Generator(np.random.Philox(key=1)).choice(np.array([0, 3, 200], np.uint8), (20, 30, 24))
    image = volume(tmp_path, labels)
    near = resampled(image, (2.0, 2.0, 2.0), "nearest")
    assert set(np.unique(near.read())) == {0, 3, 200}
    assert resampled(image, (2.0, 2.0, 2.0)).read().dtype == np.uint8
    window = (slice(2, 20), slice(3, 9), slice(0, 18))
    assert np.array_equal(near.read(window), near.read()[(slice(None), *window)])
    assert near.read()[0, 3, 3, 3] == labels[2, 7, 4]  # the centre, 3.5 new voxels in, is 2.3, 7.0 and 4.7 old ones in


@pytest.mark.parametrize("nodata", [-9999.0, None])
def test_what_is_not_measured_does_not_bleed(tmp_path: Path, nodata: float | None) -> None:
    voxels = np.full((1, 8, 8), 100, dtype=np.int16)
    voxels[:, :, 5:] = -9999
    mask = None if nodata is not None else (voxels != -9999)
    small = resampled(scene(tmp_path, voxels, nodata=nodata, valid=mask), (20.0, 20.0))
    read, valid = small.read_valid()
    assert np.unique(read[valid]).tolist() == [100]
    assert valid.sum(axis=(0, 1)).tolist() == [4, 4, 4, 0]  # the third column gathers more measured voxels than others
    assert small.georeference is not None


def test_nan_is_not_measured_and_stays_nan(tmp_path: Path) -> None:
    voxels = np.full((1, 8, 8), 7, dtype=np.float32)
    voxels[:, :3] = np.nan
    read = resampled(scene(tmp_path, voxels), (40.0, 40.0)).read()
    assert read.shape == (1, 2, 2)
    np.testing.assert_allclose(read[0, 1], 7, rtol=1e-6)
    assert np.isnan(read[0, 0]).all()


def test_an_image_without_spacing_is_not_resampled(collection: Path) -> None:
    with pytest.raises(GeometryError, match="knows its spacing"):
        resampled(open_image(collection / "p0.png"), (2.0, 2.0))
    with pytest.raises(GeometryError, match="3 positive spacings"):
        resampled(open_image(collection / "v1.nii.gz"), (2.0, 2.0))


def test_cropping_moves_the_world_with_the_voxels(tmp_path: Path) -> None:
    image = volume(tmp_path, noise(10, 12, 14))
    part = cropped(image, (slice(2, 9), slice(3, 12), slice(1, 5)))
    assert np.array_equal(part.read(), image.read()[:, 2:9, 3:12, 1:5])
    assert part.affine is not None
    assert image.affine is not None
    np.testing.assert_allclose(part.affine.matrix @ [0, 0, 0, 1], image.affine.matrix @ [2, 3, 1, 1])
    flat = cropped(scene(tmp_path, noise(1, 20, 30)), (slice(4, 10), slice(6, 30)))
    assert flat.georeference is not None
    assert flat.georeference.transform == (10.0, 0.0, 5e5 + 60, 0.0, -10.0, 1e6 - 40)
    assert flat.read((slice(0, 2), slice(1, 3))).shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("values", "kept", "dtype", "words"),
    [
        ([0.0, 300.0], np.float32, "uint8", "from 0 to 300"),
        ([0.5, 3.0], np.float32, "int16", "not whole"),
        ([-1, 3], np.int16, "uint16", "from -1 to 3"),
        ([0, 70_000], np.int32, "int16", "from 0 to 70000"),
        ([0, 2**63], np.uint64, "int64", "int64 does not hold"),
        ([1e39, 0.0], np.float64, "float32", "float32 does not hold"),
        ([1e5, 0.0], np.float32, "float16", "float16 does not hold"),
    ],
)
def test_a_loss_is_refused_with_the_range_and_clipped_on_demand(
    tmp_path: Path, values: list[float], kept: type, dtype: str, words: str
) -> None:
    voxels = np.array(values, dtype=kept).reshape(1, 1, 2)
    image = scene(tmp_path, voxels)
    with pytest.raises(DataError, match=words) as refused:
        recast(image, np.dtype(dtype)).read()
    assert "--clip" in str(refused.value)
    clipped = recast(image, np.dtype(dtype), "clip").read()
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    expected = [
        min(max(v, limits.min.item() if hasattr(limits.min, "item") else limits.min), float(limits.max)) for v in values
    ]
    assert clipped.dtype == dtype
    np.testing.assert_allclose(
        clipped[0, 0].astype(np.float64), np.round(np.array(expected, dtype=np.float64)), rtol=1e-6
    )


def test_lossless_casts_keep_every_value(tmp_path: Path) -> None:
    voxels = np.arange(-128, 128).reshape(1, 16, 16)
    for before, after in (("int64", "int8"), ("float64", "int16"), ("float32", "float64"), ("int16", "float32")):
        turned = recast(scene(tmp_path, voxels.astype(before)), np.dtype(after))
        assert turned.read().dtype == after
        assert np.array_equal(turned.read(), voxels)


def test_nan_becomes_a_mask_and_nodata_stays_nodata(tmp_path: Path) -> None:
    voxels = np.array([[[1.0, np.nan, 3.0, np.inf]]], dtype=np.float32)
    read, valid = recast(scene(tmp_path, voxels), np.dtype("int16")).read_valid()
    assert read.tolist() == [[[1, 0, 3, 0]]]
    assert valid.tolist() == [[[True, False, True, False]]]
    marked = np.array([[[-99, 5, 6]]], dtype=np.float32)
    turned = recast(scene(tmp_path, marked, nodata=-99), np.dtype("int16"))
    assert turned.read().tolist() == [[[-99, 5, 6]]]
    assert turned.read_valid()[1].tolist() == [[[False, True, True]]]
    with pytest.raises(DataError, match="nodata value -99 has no place in uint8"):
        recast(scene(tmp_path, marked, nodata=-99), np.dtype("uint8"))
