"""Finding images: what is left out by name, which folders are not searched, and what looks like labels of others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError, DataError, UnsafeError
from datasets.checking.labels import look_like_labels
from datasets.collect import gather
from datasets.converting.prepare import convert
from datasets.index import build_manifest
from datasets.manifest import Manifest


def picture(path: Path, seed: int = 0, bands: int = 3, most: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (12, 16, 3) if bands == 3 else (12, 16)
    Image.fromarray(np.random.Generator(np.random.Philox(key=seed)).integers(0, most, shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ("a.png", "a_seg.png", "labels/a.png", "deep/x/b.png", "deep/y/b_seg.png")
    for number, name in enumerate(names):
        picture(tmp_path / "set" / name, number)
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (("*_seg.png",), ["a.png", "deep/x/b.png", "labels/a.png"]),
        (("labels", "*_seg.*"), ["a.png", "deep/x/b.png"]),
        (("deep/x/*",), ["a.png", "a_seg.png", "deep/y/b_seg.png", "labels/a.png"]),
        (("deep/*",), ["a.png", "a_seg.png", "labels/a.png"]),
        (("?.png",), ["a_seg.png", "deep/y/b_seg.png"]),
    ],
)
def test_names_of_files_folders_and_paths_are_left_out(patterns: tuple[str, ...], left: list[str], tree: Path) -> None:
    assert [entry.file for entry in gather([tree], exclude=patterns)[0]] == left
    assert build_manifest([tree], exclude=patterns).column("file") == left


def test_a_name_that_leaves_nothing_out_or_nothing_over_is_refused(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"--exclude '\*_sog\.png' leaves nothing out"):
        gather([tree], exclude=("*_seg.png", "*_sog.png"))
    with pytest.raises(ConfigError, match=r"--exclude \*\.png leaves no image"):
        gather([tree], exclude=("*.png",))
    with pytest.raises(ConfigError, match="Lists and manifests say themselves what belongs to them"):
        gather([tree / "a.png"], exclude=("a.png",))  # it was named


def test_conversion_leaves_out_too(tree: Path, tmp_path: Path) -> None:
    report = convert([tree], tmp_path / "out", exclude=("*_seg.png", "labels"))
    assert report.converted == 2
    assert build_manifest([report.out]).column("file") == ["images/a.zarr", "images/deep/x/b.zarr"]


def test_linked_folders_are_counted_and_not_searched(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "other" / "c.png", 9)
    (tree / "more").symlink_to(tmp_path / "other", target_is_directory=True)
    (tree / "again").symlink_to(tree, target_is_directory=True)
    told: list[Path] = []
    assert len(gather([tree], passed_over=told.append)[0]) == 5
    assert sorted(path.name for path in told) == ["again", "more"]
    build_manifest([tree], exclude=("labels", "*_seg.png"))
    said = capsys.readouterr().err
    assert said.startswith(f"2 linked folders are not searched, the first is {tree / 'again'}: name them beside")


def test_a_link_to_a_store_is_an_image_and_no_folder_that_was_passed_over(tree: Path, tmp_path: Path) -> None:
    convert([tree / "a.png"], tmp_path / "out")
    (tree / "stored.zarr").symlink_to(tmp_path / "out" / "images" / "a.zarr")
    passed: list[Path] = []
    entries, _ = gather([tree], passed_over=passed.append)
    assert "stored.zarr" in [entry.file for entry in entries]
    assert passed == []


def test_a_manifest_is_known_by_its_content_and_ending_in_any_case(tree: Path, tmp_path: Path) -> None:
    build_manifest([tree / "a.png"]).write(tmp_path / "M.PARQUET")
    entries, manifests = gather([tree, tmp_path / "M.PARQUET"], exclude=("*.png",))
    assert (entries, [len(manifest) for manifest in manifests]) == ([], [1])


def table(rows: dict[str, tuple[int, str, float, float]]) -> Manifest:
    """A manifest of 12 x 16 images: file -> (bands, type, lowest, highest)."""
    columns: dict[str, list[object]] = {
        "root": ["/somewhere"] * len(rows),
        "file": list(rows),
        "group": list(rows),
        "split": [None] * len(rows),
        "ndim": [2] * len(rows),
        "shape": [[bands, 12, 16] for bands, *_ in rows.values()],
        "dtype": [dtype for _, dtype, *_ in rows.values()],
        "spacing": [[1.0, 1.0]] * len(rows),
        "unit": ["px"] * len(rows),
        "bands": [[f"band_{n}" for n in range(bands)] for bands, *_ in rows.values()],
        "low": [[low] * bands for bands, _, low, _ in rows.values()],
        "high": [[high] * bands for bands, _, _, high in rows.values()],
        "bytes": [1] * len(rows),
        "digest": list(rows),
    }
    return Manifest.of(columns)


def test_labels_are_known_by_name_and_by_classes_beside_bands() -> None:
    manifest = table(
        {
            "a.nii.gz": (1, "int16", -1000, 3000),
            "a_seg.nii.gz": (1, "uint8", 0, 5),
            "b_seg-manual.nii.gz": (1, "float32", 0, 5),
            "labelsTr/a.nii.gz": (1, "uint8", 0, 5),
            "s/stack.tif": (8, "int16", 0, 9000),
            "s/classes.tif": (1, "uint8", 1, 7),
            "s/height.tif": (1, "int16", 12, 800),
            "s/blank.tif": (1, "uint8", 3, 3),
            "s/cloud.tif": (1, "float32", 0, 1),
            "s/rgb_mask.tif": (3, "uint8", 0, 255),
            "instances/a.png": (1, "uint16", 0, 412),
            "segments/a.nii.gz": (1, "uint8", 0, 5),
            "dataset_maskedlady.png": (1, "uint8", 0, 255),
        }
    )
    files = manifest.column("file")
    assert {files[row]: text for row, text in look_like_labels(manifest)} == {
        "a_seg.nii.gz": "its name has '_seg' (datasets.convert --exclude '*_seg*').",
        "b_seg-manual.nii.gz": "its name has '_seg' (datasets.convert --exclude '*_seg*').",
        "labelsTr/a.nii.gz": "it lies in a folder 'labelsTr' (datasets.convert --exclude labelsTr).",
        "instances/a.png": "it lies in a folder 'instances' (datasets.convert --exclude instances).",
        "s/classes.tif": "it holds whole numbers from 1 to 7 beside the bands of stack.tif "
        "(datasets.convert --exclude classes.tif).",
    }


def test_a_collection_of_nothing_else_is_no_label() -> None:
    assert look_like_labels(table({"masks/a.png": (1, "uint8", 0, 5), "masks/b.png": (1, "uint8", 0, 5)})) == []


def test_building_says_what_looks_like_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "a_mask.png", 2, bands=1, most=4)
    assert len(build_manifest([tmp_path])) == 2
    assert "1 of 2 images look like labels of the others, the first is" in (said := capsys.readouterr().err)
    assert "a_mask.png: its name has '_mask' (datasets.convert --exclude '*_mask*')." in said
    build_manifest([tmp_path], exclude=("*_mask*",))
    assert capsys.readouterr().err == ""


def test_a_name_that_is_no_text_is_refused_by_what_it_is(tree: Path) -> None:
    try:
        (tree / "deep/x/b.png").rename(tree / os.fsdecode(b"deep/x/b\xe4r.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(DataError, match=r"deep/x/b\\xe4r\.png': expected a name in UTF-8; rename it"):
        gather([tree])
    moved = (tree / "labels").rename(tree / os.fsdecode(b"\xe4"))
    with pytest.raises(DataError, match=r"set/\\xe4/a\.png': expected a name in UTF-8"):
        gather([moved])


def test_an_empty_text_is_not_the_folder_one_is_in(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert len(gather(["."])[0]) == 5
    with pytest.raises(UnsafeError, match=r"got text that is none \(''\)"):
        gather([""])
