"""The sample set: complete, repeatable, written once, and graded by lesions instead of colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, RunFolderError
from core.preprocess import content_box, foreground
from core.rng import numpy_rng
from datasets.index import build_manifest
from datasets.readers import open_image
from datasets.synthetic import sample_set
from datasets.synthetic.fundus import HEIGHT, WIDTH, photograph
from datasets.synthetic.oct import SIZE, SPACING_MM, volume


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_set(tmp_path_factory.mktemp("cache") / "set", photographs=9, volumes=4, seed=2)


def test_set_is_labelled_grouped_and_says_what_it_is(small: Path) -> None:
    manifest = build_manifest([small / "labels.csv"], label="grade", group="patient")
    assert manifest.column("kind") == ["photograph"] * 9 + ["volume"] * 4
    assert manifest.column("group")[:4] == ["P0001", "P0001", "P0002", "P0002"]
    assert set(manifest.labels("grade")) <= {0, 1, 2, 3, 4}
    assert manifest.column("shape")[0] == [3, HEIGHT, WIDTH]
    assert manifest.column("shape")[9] == [1, *SIZE]
    assert manifest.column("spacing")[9] == list(SPACING_MM)
    assert {path.suffix for path in manifest.paths} == {".jpg", ".png", ".gz"}
    text = (small / "README.txt").read_text()
    assert "SYNTHETIC" in text
    assert "CC0" in text
    assert sorted(path.name for path in small.parent.iterdir()) == ["set"]  # no draft is left behind


def test_same_seed_same_bytes(small: Path, tmp_path: Path) -> None:
    again = sample_set(tmp_path / "again", photographs=9, volumes=4, seed=2)
    files = sorted(path.relative_to(small) for path in small.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((small / file).read_bytes() == (again / file).read_bytes() for file in files)
    other = sample_set(tmp_path / "other", photographs=1, volumes=0, seed=3)
    assert (other / "photographs/P0001_R.jpg").read_bytes() != (small / "photographs/P0001_R.jpg").read_bytes()


def test_second_call_writes_nothing_and_another_set_is_refused(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert sample_set(small, photographs=9, volumes=4, seed=2) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    with pytest.raises(ConfigError, match="choose another folder"):
        sample_set(small, photographs=9, volumes=4, seed=3)
    with pytest.raises(ConfigError, match="at least one"):
        sample_set(small, photographs=0, volumes=0)


def test_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=r"set: the sample set cannot be written"):
        sample_set(tmp_path / "file" / "set", photographs=1, volumes=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_photographs_are_discs_on_black() -> None:
    for grade in range(5):
        image = photograph(numpy_rng(1, grade), grade, right_eye=True).transpose(2, 0, 1)
        found = foreground(image)
        assert 0.55 < found.mean() < 0.85
        assert image[:, ~found].mean() < 8
        rows, columns = content_box(found)
        assert (rows.stop - rows.start) / (columns.stop - columns.start) == pytest.approx(1, abs=0.1)


def local_contrast(image: np.ndarray) -> float:
    """Share of the content's pixels that differ strongly from their surroundings in green."""
    from PIL import Image, ImageFilter

    green = Image.fromarray(image[..., 1])
    smooth = np.asarray(green.filter(ImageFilter.GaussianBlur(12)), dtype=float)
    inside = foreground(image.transpose(2, 0, 1))
    y, x = np.nonzero(inside)
    middle = np.hypot(y - y.mean(), x - x.mean()) < 0.4 * HEIGHT
    return float((np.abs(np.asarray(green, dtype=float) - smooth)[y[middle], x[middle]] > 0.35 * smooth.mean()).mean())


def test_grade_is_in_the_lesions_and_not_in_the_colour() -> None:
    contrast: dict[int, list[float]] = {}
    colour: dict[int, list[np.ndarray]] = {}
    for grade in (0, 4):
        images = [photograph(numpy_rng(7, number), grade, right_eye=number % 2 == 0) for number in range(6)]
        contrast[grade] = [local_contrast(image) for image in images]
        colour[grade] = [np.median(image[image.max(axis=-1) > 40], axis=0) for image in images]
    assert np.mean(contrast[4]) > 2 * np.mean(contrast[0])
    between = np.abs(np.mean(colour[4], axis=0) - np.mean(colour[0], axis=0))
    within = np.std(colour[0], axis=0)
    assert (between < within).all()


def test_volumes_have_layers_and_fluid_by_grade() -> None:
    dark: dict[int, float] = {}
    for grade in (0, 4):
        shares = []
        for number in range(4):
            image = volume(numpy_rng(3, number), grade).astype(float)
            depth = image.mean(axis=(0, 2))
            assert image.shape == SIZE
            assert depth[:15].mean() < 0.4 * depth.max()  # the vitreous is dark
            top, bottom = (image > 0.35 * image.max()).argmax(axis=1), SIZE[1] - 20
            smooth = (image[:, :-2] + image[:, 1:-1] + image[:, 2:]) / 3
            levels = np.arange(SIZE[1] - 2)[None, :, None]
            retina = (levels > top[:, None] + 2) & (levels < top[:, None] + 28) & (levels < bottom)
            shares.append(float((smooth[retina] < 0.12 * image.max()).mean()))
        dark[grade] = float(np.mean(shares))
    assert dark[4] > 1.5 * dark[0]


def test_both_orientations_of_a_volume_read_alike(small: Path) -> None:
    for name in ("V0001_R", "V0002_R"):
        image = open_image(small / f"volumes/{name}.nii.gz").read()[0].astype(float)
        assert image[:, :12].mean() < 0.5 * image.mean()  # the vitreous comes first, however the file is stored
