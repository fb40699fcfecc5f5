"""The sample sets of radiology, pathology and satellite: complete, repeatable, grouped, and honest about what they are."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError
from core.rng import numpy_rng
from datasets.index import build_manifest
from datasets.readers import open_image
from datasets.synthetic import ct_set, scene_set, slide_set
from datasets.synthetic.scene import LANDSAT, Sensor, scene, write_geotiff, write_landsat, write_zarr


def ct(root: Path, seed: int = 1) -> Path:
    return ct_set(root, patients=4, size=(24, 48, 48), seed=seed)


def slides(root: Path, seed: int = 1) -> Path:
    return slide_set(root, slides=2, tiles=3, size=(512, 768), seed=seed)


def scenes(root: Path, seed: int = 1) -> Path:
    return scene_set(root, scenes=3, size=(128, 128), seed=seed)


SETS = [(ct, "patient"), (slides, "slide"), (scenes, "scene")]


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("write", "group"), SETS)
def test_set_is_complete_grouped_and_says_what_it_is(write: Callable[..., Path], group: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    rows = listed(root / "labels.csv")
    assert len({row["file"] for row in rows}) == len(rows)
    for row in rows:
        assert (root / row["file"]).is_file()
        assert (root / row["label_file"]).is_file()
        assert Path(row["file"]).name.startswith(row[group])
    groups = {row[group] for row in rows}
    assert 1 < len(groups) < len(rows)
    text = (root / "README.txt").read_text()
    assert "SYNTHETIC" in text
    assert "CC0" in text
    assert [path.name for path in tmp_path.iterdir()] == ["set"]  # no draft is left behind


@pytest.mark.parametrize(("write", "group"), SETS)
def test_same_seed_same_bytes_and_another_set_is_refused(
    write: Callable[..., Path], group: str, tmp_path: Path
) -> None:
    first, again, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", seed=2)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    image = listed(first / "labels.csv")[0]["file"]
    assert not (other / image).exists() or (other / image).read_bytes() != (first / image).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert write(first) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    with pytest.raises(ConfigError, match="choose another folder"):
        write(first, seed=2)


def test_scans_of_a_patient_share_the_anatomy(tmp_path: Path) -> None:
    import nibabel as nib

    root = ct(tmp_path / "set")
    zooms: dict[str, set[tuple[float, ...]]] = {}
    for row in listed(root / "labels.csv"):
        image, label = (nib.as_closest_canonical(nib.load(root / row[column])) for column in ("file", "label_file"))
        assert image.shape == label.shape == (48, 48, 24)
        np.testing.assert_allclose(image.affine, label.affine)
        zooms.setdefault(row["patient"], set()).add(tuple(map(float, image.header.get_zooms())))
    assert all(len(values) == 1 for values in zooms.values())
    assert len({next(iter(values)) for values in zooms.values()}) > 1


def test_nuclei_of_a_tile_are_counted(tmp_path: Path) -> None:
    from PIL import Image

    root = slides(tmp_path / "set")
    rows = listed(root / "labels.csv")
    for row in rows:
        instances = np.asarray(Image.open(root / row["label_file"]))
        assert instances.shape == (256, 256)
        assert np.array_equal(np.unique(instances[instances > 0]), np.arange(1, int(row["nuclei"]) + 1))
    assert len(listed(root / "slides.csv")) == 2


def test_files_of_a_scene_lie_beside_each_other(tmp_path: Path) -> None:
    import rasterio

    root = scenes(tmp_path / "set")
    corners: dict[str, list[tuple[str, float, float]]] = {}
    for row in listed(root / "labels.csv"):
        with rasterio.open(root / row["file"]) as file, rasterio.open(root / row["label_file"]) as label:
            counts = np.bincount(label.read(1).ravel(), minlength=7)[1:]
            assert int(counts.argmax()) == ["water", "forest", "crop", "soil", "urban", "snow"].index(row["cover"])
            assert counts[1] / counts.sum() == pytest.approx(float(row["share_forest"]), abs=1e-4)
            corners.setdefault(row["scene"], []).append((file.crs.to_string(), file.transform.c, file.transform.f))
    for places in corners.values():
        assert len({crs for crs, _, _ in places}) == 1
        assert {east - places[0][1] for _, east, _ in places} <= {0.0, 640.0, -640.0}


@pytest.mark.parametrize(("write", "group"), SETS)
def test_set_makes_a_manifest(write: Callable[..., Path], group: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    manifest = build_manifest([root / "labels.csv"], group=group)
    rows = listed(root / "labels.csv")
    assert manifest.column("group") == [row[group] for row in rows]
    shape = {"patient": [1, 24, 48, 48], "slide": [3, 256, 256], "scene": [13, 64, 64]}[group]
    assert manifest.column("shape") == [shape] * len(rows)
    assert set(manifest.column("unit")) == {{"patient": "mm", "slide": "px", "scene": "m"}[group]}


def test_orientations_read_as_one_world(tmp_path: Path) -> None:
    """Whatever the file's orientation, the spine lies behind (small y) and the label volume fits the image."""
    root = ct(tmp_path / "set")
    rows = listed(root / "labels.csv")
    for row in rows:
        image, label = open_image(root / row["file"]), open_image(root / row["label_file"])
        assert image.affine is not None and label.affine is not None
        np.testing.assert_allclose(image.affine.matrix, label.affine.matrix, atol=1e-5)
        bone = label.read()[0] == 3
        middle = bone[:, :, 20:28].sum(axis=(0, 2))  # the spine is where most bone is, between left and right
        assert middle[: len(middle) // 2].sum() > 2 * middle[len(middle) // 2 :].sum()


def test_slides_read_at_every_level(tmp_path: Path) -> None:
    pytest.importorskip("openslide", reason="needs the extra `slide`")
    root = slide_set(tmp_path / "set", slides=1, tiles=1, size=(512, 768), seed=1)
    image = open_image(root / "slides/S0001.svs")
    assert (image.shape, image.spacing.unit) == ((3, 512, 768), "mm")
    assert image.spacing.values == (0.0005, 0.0005)
    row = listed(root / "labels.csv")[0]
    y, x = (int(part[1:]) for part in Path(row["file"]).stem.split("_")[1:])
    window = image.read((slice(y, y + 256), slice(x, x + 256)))
    assert np.array_equal(window, open_image(root / row["file"]).read())


@pytest.mark.parametrize("sensor", ["sentinel2", "modis"])
def test_scenes_read_with_their_facts(sensor: Sensor, tmp_path: Path) -> None:
    drawn = scene(numpy_rng(3), "crop", sensor, (128, 160))
    write_geotiff(tmp_path / "s.tif", drawn)
    image = open_image(tmp_path / "s.tif")
    assert image.bands == tuple(drawn.bands)
    assert image.spacing.values == (drawn.resolution, drawn.resolution)
    assert image.scaling is not None
    assert [scale for scale, _ in image.scaling] == pytest.approx(list(drawn.scales))
    assert image.units == drawn.units
    assert image.flags == ()
    pixels, valid = image.read_valid()
    assert np.array_equal(pixels, drawn.raw)
    assert np.array_equal(valid, np.broadcast_to(drawn.label > 0, valid.shape))


def test_a_scene_without_place_is_flagged_and_others_read_alike(tmp_path: Path) -> None:
    drawn = scene(numpy_rng(3), "crop", "sentinel2", (128, 160))
    write_geotiff(tmp_path / "s.tif", drawn, georeferenced=False)
    assert "no_crs" in [flag.code for flag in open_image(tmp_path / "s.tif").flags]
    write_zarr(tmp_path / "s.zarr", drawn)
    image = open_image(tmp_path / "s.zarr")
    assert np.array_equal(image.read(), drawn.raw)
    assert image.spacing.values == (10.0, 10.0)
    assert image.scaling == ((1e-4, 0.0),) * 13
    assert image.nodata == (drawn.nodata,) * 13


def test_a_landsat_folder_reads_as_one_image(tmp_path: Path) -> None:
    drawn = scene(numpy_rng(3), "crop", "sentinel2", (128, 160), bands=LANDSAT)
    folder = tmp_path / "LC09_L2SP_022049_20240101_20240102_02_T1"
    write_landsat(folder, drawn)
    image = open_image(folder)
    assert image.shape == drawn.raw.shape
    assert image.read()[0, 0, 0] == open_image(folder / f"{folder.name}_SR_B1.TIF").read()[0, 0, 0]


@pytest.mark.parametrize(
    "write",
    [
        lambda root: ct_set(root, patients=0),
        lambda root: ct_set(root, size=(8, 48, 48)),
        lambda root: slide_set(root, slides=0),
        lambda root: slide_set(root, size=(256, 512)),
        lambda root: scene_set(root, scenes=0),
    ],
)
def test_empty_or_tiny_sets_are_refused(write: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least"):
        write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
