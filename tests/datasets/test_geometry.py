"""Where voxels are, from file to array and back: 48 orientations, 20 reference systems, bands by name in any order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.errors import BandError, GeometryError
from core.geometry import Affine, Georeference
from datasets.image import LazyImage
from datasets.readers import open_image
from datasets.readers.geotiff import GeoTiff
from datasets.readers.nifti import Nifti
from datasets.writers import Facts, plan, write_image

SHAPE = (5, 6, 7)
SIZES = (0.5, 0.75, 2.25)


# Volumes ---------------------------------------------------------------------------------------------------------


def oblique(axes: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """The affine of a volume whose stored axes run nearly along these world axes: turned by 12 degrees, off centre."""
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    for stored, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[:3, stored] = turn[:, world] * sign * SIZES[world]
    affine[:3, 3] = (11.5, -20.25, 5.75)
    return affine


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_image_and_label_keep_their_place_in_every_orientation(
    axes: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.Generator(np.random.Philox(key=7))
    affine = oblique(axes, signs)
    stored = {
        "image.nii.gz": rng.normal(size=SHAPE).astype(np.float32),
        "label.nii": rng.integers(0, 9, SHAPE, np.uint8),
    }
    images = {}
    for name, voxels in stored.items():
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / name)
        images[name] = open_image(tmp_path / name)
        is_where_its_header_says(images[name], voxels, nib.load(tmp_path / name).affine)
    one, two = images.values()
    assert one.affine == two.affine and one.size == two.size
    for name, image in images.items():
        again = open_image(write_image(tmp_path / f"again_{name}", image, pieces(image)))
        assert again.dtype == image.dtype and np.array_equal(again.read(), image.read())
        assert again.affine is not None and image.affine is not None
        assert corners_apart(again.affine, image.affine, image.size) < 1e-3
        is_where_its_header_says(again, stored[name], nib.load(tmp_path / name).affine)


def is_where_its_header_says(image: LazyImage, stored: np.ndarray, affine: np.ndarray) -> None:
    """Follow each stored voxel to the world and back through the image's own affine: it must be there, exactly."""
    assert image.affine is not None
    there = np.indices(stored.shape).reshape(3, -1)
    world = affine[:3, :3] @ there + affine[:3, 3:]
    inverse = np.linalg.inv(image.affine.matrix)
    found = inverse[:3, :3] @ world + inverse[:3, 3:]
    index = np.rint(found).astype(int)
    assert np.abs(found - index).max() < 1e-3
    assert np.array_equal(image.read()[0][tuple(index)], stored.reshape(-1))
    diagonal = np.abs(image.affine.matrix[:3, [2, 1, 0]].diagonal())
    assert (image.affine.matrix[:3, [2, 1, 0]].diagonal() > 0).all(), "right, anterior and superior are up"
    assert (diagonal > 0.9 * np.array(image.spacing.values[::-1])).all()


def pieces(image: LazyImage) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    for window in plan("x.nii", Facts.of(image)):
        yield window, image.read(window)


def corners_apart(one: Affine, two: Affine, size: tuple[int, ...]) -> float:
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n) for n in size))])
    return float(np.linalg.norm((corners @ (one.matrix - two.matrix).T)[:, :3], axis=1).max())


def two_forms(path: Path, sform: np.ndarray, qform: np.ndarray) -> Path:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), sform)
    image.set_sform(sform, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::5])
def test_jitter_of_rounding_passes_and_a_flip_never(
    axes: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.Generator(np.random.Philox(key=8))
    affine = oblique(axes, signs)
    for jitter, agrees in ((1e-8, True), (2e-4, True), (3e-3, False)):
        moved = affine.copy()
        moved[:3, 3] += jitter * np.sign(rng.normal(size=3))
        path = two_forms(tmp_path / "a.nii", affine, moved)
        if agrees:
            assert open_image(path).size == open_image(path, Nifti(affine="qform")).size
        else:
            with pytest.raises(GeometryError, match=r"a\.nii: its sform and qform disagree by up to 0\.00"):
                open_image(path)
    for flipped in range(3):
        mirrored = affine.copy()
        mirrored[:3, 3] += mirrored[:3, flipped] * (SHAPE[flipped] - 1)  # the same box in space, run through backwards
        mirrored[:3, flipped] *= -1
        with pytest.raises(GeometryError, match=r"left and right may be exchanged"):
            open_image(two_forms(tmp_path / "a.nii", affine, mirrored))


def test_window_of_a_window_is_where_both_starts_lead() -> None:
    rng = np.random.Generator(np.random.Philox(key=9))
    for axes, signs in ORIENTATIONS:
        affine = Affine.of(oblique(axes, signs), source="test")
        one, two = (tuple(int(n) for n in rng.integers(-50, 50, 3)) for _ in range(2))
        both = tuple(a + b for a, b in zip(one, two, strict=True))
        chained, direct = affine.shifted(one).shifted(two), affine.shifted(both)  # type: ignore[arg-type]
        np.testing.assert_allclose(chained.matrix, direct.matrix, atol=1e-10)
        place = affine.matrix @ [*both, 1]
        np.testing.assert_allclose(direct.matrix @ [0, 0, 0, 1], place, atol=1e-10)
        assert affine.shifted((0, 0, 0)) == affine


# Scenes ----------------------------------------------------------------------------------------------------------


def place(georeference: Georeference, y: float, x: float) -> tuple[float, float]:
    a, b, c, d, e, f = georeference.transform
    return a * x + b * y + c, d * x + e * y + f


def test_shifting_and_scaling_compose_and_keep_every_place() -> None:
    rng = np.random.Generator(np.random.Philox(key=10))
    for _ in range(200):
        start = Georeference("EPSG:32615", tuple(float(v) for v in rng.normal(0, 100, 6)))  # type: ignore[arg-type]
        by, to = ((int(y), int(x)) for y, x in rng.integers(-500, 500, (2, 2)))
        factors = (float(rng.uniform(0.1, 8)), float(rng.uniform(0.1, 8)))
        y, x = rng.uniform(-500, 500, 2)
        moved = start.shifted(by)
        assert place(moved, y, x) == pytest.approx(place(start, y + by[0], x + by[1]), rel=1e-9, abs=1e-6)
        assert place(moved.shifted(to), y, x) == pytest.approx(
            place(start.shifted((by[0] + to[0], by[1] + to[1])), y, x), rel=1e-9, abs=1e-6
        )
        larger = start.scaled(factors)
        assert place(larger, y, x) == pytest.approx(place(start, y * factors[0], x * factors[1]), rel=1e-9, abs=1e-6)
        assert larger.steps == pytest.approx((start.steps[0] * factors[0], start.steps[1] * factors[1]))
        assert place(larger.scaled((1 / factors[0], 1 / factors[1])), y, x) == pytest.approx(
            place(start, y, x), rel=1e-9
        )
        doubled = start.shifted((by[0] * 2, by[1] * 3)).scaled((2.0, 3.0))
        assert place(doubled, y, x) == pytest.approx(
            place(start.scaled((2.0, 3.0)).shifted(by), y, x), rel=1e-9, abs=1e-6
        )
        assert start.crs == larger.crs == moved.crs


SYSTEMS: dict[int, tuple[float, float, float, float, float, float]] = {
    32615: (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_100_000.0),
    32715: (10.0, 0.0, 499_980.0, 0.0, -10.0, 8_000_020.0),
    32601: (0.3, 0.0, 300_000.1, 0.0, -0.3, 5_000_000.7),
    32660: (30.0, 0.0, 700_000.0, 0.0, -30.0, 1_000.0),
    4326: (0.00025, 0.0, 11.5, 0.0, -0.00025, 48.25),
    4258: (0.001, 0.0, 5.0, 0.0, -0.001, 60.0),
    4269: (0.0001, 0.0, -90.0, 0.0, -0.0001, 40.0),
    3857: (19.109257, 0.0, 1_280_000.0, 0.0, -19.109257, 6_140_000.0),
    3035: (100.0, 0.0, 4_321_000.0, 0.0, -100.0, 3_210_000.0),
    2154: (0.2, 0.0, 650_000.0, 0.0, -0.2, 6_860_000.0),
    27700: (1.0, 0.0, 530_000.0, 0.0, -1.0, 180_000.0),
    28992: (0.25, 0.0, 155_000.0, 0.0, -0.25, 463_000.0),
    25832: (0.1, 0.0, 691_000.0, 0.0, -0.1, 5_335_000.0),
    31370: (1.0, 0.0, 150_000.0, 0.0, -1.0, 170_000.0),
    5070: (30.0, 0.0, -96_000.0, 0.0, -30.0, 1_800_000.0),
    2263: (2.0, 0.0, 980_000.0, 0.0, -2.0, 200_000.0),
    3031: (500.0, 0.0, -1_000_000.0, 0.0, -500.0, 1_000_000.0),
    3413: (500.0, 0.0, -500_000.0, 0.0, -500.0, -500_000.0),
    6933: (1000.9, 0.0, 900_000.0, 0.0, -1000.9, 4_000_000.0),
    2056: (0.5, 0.1, 2_600_000.0, 0.1, -0.5, 1_200_000.0),  # a rotated grid
}


@pytest.mark.parametrize("code", sorted(SYSTEMS))
def test_reference_system_and_corners_come_back_exactly(code: int, tmp_path: Path) -> None:
    import rasterio
    from rasterio.crs import CRS
    from rasterio.transform import Affine as Transform

    transform, (height, width) = SYSTEMS[code], (20, 30)
    voxels = np.random.Generator(np.random.Philox(key=code)).integers(1, 999, (2, height, width)).astype(np.uint16)
    facts = {"driver": "GTiff", "count": 2, "height": height, "width": width, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "a.tif", "w", **facts, crs=CRS.from_epsg(code), transform=Transform(*transform)
    ) as file:
        file.write(voxels)
    image = open_image(tmp_path / "a.tif")
    again = open_image(write_image(tmp_path / "b.tif", image, [(tuple(map(slice, image.size)), image.read())]))
    for read in (image, again):
        assert read.georeference is not None
        assert CRS.from_string(read.georeference.crs) == CRS.from_epsg(code)
        for y, x in itertools.product((0, height), (0, width)):
            assert place(read.georeference, y, x) == place(Georeference("", transform), y, x)
        assert np.array_equal(read.read(), voxels)
    assert again.georeference == image.georeference
    assert again.spacing == image.spacing


# Bands -----------------------------------------------------------------------------------------------------------

BANDS = tuple("coastal blue green red edge1 edge2 edge3 nir nir2 vapour cirrus swir1 swir2 elevation".split())


def scene(path: Path, voxels: np.ndarray, names: tuple[str, ...] | list[str]) -> Path:
    import rasterio
    from rasterio.transform import Affine as Transform

    facts = {"driver": "GTiff", "count": len(voxels), "height": voxels.shape[1], "width": voxels.shape[2]}
    with rasterio.open(
        path, "w", **facts, dtype="uint16", crs="EPSG:32615", transform=Transform(*SYSTEMS[32615])
    ) as file:
        file.write(voxels)
        file.descriptions = tuple(names)
    return path


@pytest.fixture
def fourteen() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=14)).integers(0, 9999, (14, 8, 9)).astype(np.uint16)


def test_any_order_of_fourteen_bands_in_the_file_is_the_same_tensor(fourteen: np.ndarray, tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=15))
    for number in range(200):
        order = rng.permutation(14)
        image = open_image(scene(tmp_path / f"{number}.tif", fourteen[order], [BANDS[i] for i in order]))
        assert image.bands == tuple(BANDS[i] for i in order)
        assert np.array_equal(image.read(bands=BANDS), fourteen)
        some = [BANDS[i] for i in rng.permutation(14)[:5]]
        assert np.array_equal(image.read(bands=some), fourteen[[BANDS.index(name) for name in some]])


def test_order_by_position_is_refused_where_the_file_names_its_bands(fourteen: np.ndarray, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", fourteen, BANDS)
    with pytest.raises(BandError, match=r"a\.tif: .*'band_1'"):
        open_image(path).read(bands=[f"band_{n + 1}" for n in range(14)])
    exchanged = (BANDS[1], BANDS[0], *BANDS[2:])
    with pytest.raises(BandError, match=r"a\.tif: its own band names are .*in another order.*choose bands by name"):
        open_image(path, GeoTiff(bands=exchanged))
    assert open_image(path, GeoTiff(bands=BANDS)).bands == BANDS


def test_name_that_stands_twice_never_picks_a_band(fourteen: np.ndarray, tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", fourteen[:3], ("red", "red", "nir"))
    image = open_image(path)
    assert "unnamed_bands" in [flag.code for flag in image.flags]
    for names in (["red"], ["nir"]):
        with pytest.raises(BandError, match=r"a\.tif: .*are not among the image's bands"):
            image.read(bands=names)
    with pytest.raises(BandError, match=r"a\.tif: expected 3 different band names"):
        open_image(path, GeoTiff(bands=("red", "red", "nir")))
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(BandError, match=r"b\.nii: expected 2 different band names"):
        open_image(tmp_path / "b.nii", Nifti(fourth_axis="bands", bands=("t1", "t1")))
