"""Building a manifest: every kind of input, and every fault of a collection as one sentence that names it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import ConfigError, DataError, MissingDataError, UnsafeError
from datasets.index import build_manifest
from datasets.manifest import Manifest
from datasets.readers import configured
from datasets.readers._store import create, finish
from datasets.readers.nifti import Nifti


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 14, 3), 10 + number, np.uint8)).save(folder / name)
    return folder


def test_list_gives_facts_groups_and_typed_labels(collection: Path, manifest: Manifest) -> None:
    assert len(manifest) == 16
    assert manifest.label_names == ("grade", "patient", "weight", "site")
    assert manifest.labels("grade").dtype == np.int64
    assert manifest.column("patient")[2] == "001"  # leading zeros are a name, not a number
    assert manifest.column("group")[2] == "001"
    assert manifest.column("weight")[:2] == [0.0, 0.5]
    assert manifest.column("weight")[10] is None
    assert manifest.column("shape")[0] == [3, 60, 80]
    assert manifest.column("shape")[10] == [1, 10, 18, 14]
    assert manifest.column("spacing")[10] == [2.0, 1.5, 1.0]
    assert manifest.path(0) == collection / "p0.png"
    assert manifest.column("bytes")[0] == (collection / "p0.png").stat().st_size
    assert len(set(manifest.column("digest"))) == 16


def test_statistics_are_of_finite_voxels(collection: Path, manifest: Manifest) -> None:
    assert manifest.column("mean")[0] == pytest.approx(np.asarray(Image.open(manifest.path(0))).mean(axis=(0, 1)))
    for row in (10, 13):
        voxels = np.asarray(nib.load(manifest.path(row)).dataobj, dtype=np.float64)
        assert manifest.column("mean")[row][0] == pytest.approx(np.nanmean(voxels), abs=1e-9)
        assert manifest.column("std")[row][0] == pytest.approx(np.nanstd(voxels), abs=1e-9)


def test_folder_is_searched_for_images_only(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "2.png", "1.PNG", "deep/er/3.png", ".hidden/4.png", "__MACOSX/5.png", "._6.png")
    (root / "LICENSE").touch()
    (root / "notes.txt").touch()
    (root / "labels.csv").write_text("file\n2.png\n")
    manifest = build_manifest([root])
    assert manifest.column("file") == ["1.PNG", "2.png", "deep/er/3.png"]
    assert manifest.column("group") == ["1", "2", "deep/er/3"]
    assert manifest.label_names == ()


def test_class_folders_become_a_label(tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path / "a", "cat/1.png", "cat/2.png", "dog/1.png")], label="class")
    assert manifest.labels("class").tolist() == ["cat", "cat", "dog"]
    assert manifest.column("group") == ["cat/1", "cat/2", "dog/1"]


@pytest.mark.parametrize(
    "names", [("cat/1.png", "dog/x/2.png"), ("cat/1.png", "cat/2.png"), ("cat/1.png", "dog/2.png", "3.png")]
)
def test_folders_are_no_classes_where_images_lie_otherwise(names: tuple[str, ...], tmp_path: Path) -> None:
    assert build_manifest([pictures(tmp_path / "a", *names)]).label_names == ()


@pytest.mark.parametrize("labels", ["labels", "labelsTr", "masks", "instances"])
def test_images_and_their_labels_are_no_classes(labels: str, tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "images/1.png", f"{labels}/1.png")
    assert build_manifest([root]).label_names == ("class",), "in colour: pictures of masks, perhaps"
    Image.fromarray(np.ones((12, 14), np.uint8)).save(root / labels / "1.png")
    assert build_manifest([root]).label_names == ()


def test_folders_in_a_list_are_no_classes(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "cat/1.png", "dog/2.png")
    (root / "l.csv").write_text("file\ncat/1.png\ndog/2.png\n")
    assert build_manifest([root / "l.csv"]).label_names == ()


def test_roots_lists_images_and_manifests_mix(tmp_path: Path, collection: Path, manifest: Manifest) -> None:
    root = pictures(tmp_path / "a", "1.png", "2.png")
    single = pictures(tmp_path / "b", "1.png") / "1.png"
    manifest.write(tmp_path / "old.parquet")
    mixed = build_manifest([tmp_path / "old.parquet", root, single])
    assert len(mixed) == 19
    assert mixed.column("grade")[16:] == [None, None, None]
    assert mixed.column("group")[16:] == ["a/1.png", "2", "b/1.png"]


def test_images_of_one_name_in_folders_of_one_name_are_groups_of_their_own(tmp_path: Path) -> None:
    roots = [pictures(tmp_path / site / "images", "1.png", "2.png") for site in ("here", "there")]
    (roots[1] / "2.png").rename(roots[1] / "3.png")
    manifest = build_manifest(roots)
    assert manifest.column("group") == ["here/images/1.png", "2", "there/images/1.png", "3"]


def test_parquet_list_and_progress(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "1.png", "2.png")
    pq.write_table(
        pa.table({"file": ["2.png", "1.png"], "split": ["train", "test"], "y": [0.5, 2]}), root / "l.parquet"
    )
    seen: list[tuple[int, int]] = []
    manifest = build_manifest([root / "l.parquet"], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert manifest.column("split") == ["train", "test"]
    assert manifest.labels("y").tolist() == [0.5, 2.0]


def test_workers_change_nothing(collection: Path) -> None:
    one, four = (build_manifest([collection], workers=workers) for workers in (1, 4))
    assert one.table.equals(four.table)


def test_reader_options_are_passed_on(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match="orientation is unknown"):
        build_manifest([tmp_path])
    assert len(build_manifest([tmp_path], readers=(Nifti(affine="spacing"),))) == 1


def test_options_are_kept_so_that_images_are_opened_as_they_were_checked(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "a.nii")
    pictures(tmp_path, "b.png")
    manifest = build_manifest([tmp_path], options=["nifti.affine=spacing"])
    assert manifest.column("reader") == ["nifti", "raster_image"]
    assert manifest.column("options") == [["nifti.affine=spacing"], []]  # what is not a default of that reader
    again = build_manifest([tmp_path], readers=configured(manifest.column("options")[0]))
    assert again.digest == manifest.digest
    with pytest.raises(ConfigError, match="readers or options, got both"):
        build_manifest([tmp_path], readers=(Nifti(),), options=["nifti.affine=spacing"])


def prepared(folder: Path, seed: int = 0) -> Path:
    """A small prepared store."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    group = create(folder, (2, 12, 14), np.dtype(np.uint8))
    group["image"][:] = rng.integers(0, 255, (2, 12, 14), dtype=np.uint8)
    facts = {"bands": ["red", "nir"], "spacing": [1.0, 1.0], "unit": "px", "version": 1, "affine": None}
    finish(folder, facts | dict.fromkeys(("georeference", "nodata", "scaling", "units")))
    return folder


def test_stores_are_images_and_are_not_searched(tmp_path: Path) -> None:
    for number, name in enumerate(["a.zarr", "deep/b.zarr"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        prepared(tmp_path / name, number)
    pictures(tmp_path, "a.zarr/preview.png", "c.png")
    manifest = build_manifest([tmp_path])
    assert manifest.column("file") == ["a.zarr", "c.png", "deep/b.zarr"]
    assert manifest.column("reader") == ["zarr_array", "raster_image", "zarr_array"]
    assert manifest.column("group") == ["a", "c", "deep/b"]
    assert manifest.column("bytes")[0] == sum(p.stat().st_size for p in (tmp_path / "a.zarr").rglob("*") if p.is_file())
    alone = build_manifest([tmp_path / "a.zarr"])
    assert alone.column("file") == ["a.zarr"]
    assert alone.column("digest")[0] == manifest.column("digest")[0]


def test_a_folder_with_our_manifest_is_that_manifest(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set" / "images", "1.png", "2.png").parent
    manifest = build_manifest([root / "images"]).with_column("grade", [3, 4])
    manifest.write(root / "manifest.parquet", relative_to=root)
    root.rename(tmp_path / "moved")
    back = build_manifest([tmp_path / "moved"], label="grade")
    assert back.labels("grade").tolist() == [3, 4]
    assert back.paths == [tmp_path / "moved" / "images" / name for name in ("1.png", "2.png")]
    assert back.digest == manifest.digest
    pq.write_table(pa.table({"x": [1]}), tmp_path / "moved" / "manifest.parquet")  # somebody else's
    assert build_manifest([tmp_path / "moved"]).column("file") == ["images/1.png", "images/2.png"]


def test_nothing_outside_the_root_is_read_unless_allowed(tmp_path: Path) -> None:
    pictures(tmp_path / "other", "1.png")
    root = pictures(tmp_path / "a", "2.png")
    (root / "l.csv").write_text("file\n2.png\n../other/1.png\n")
    with pytest.raises(UnsafeError, match=r"l\.csv: .*1\.png: expected a file inside .*--allow-outside"):
        build_manifest([root / "l.csv"])
    (root / "m.csv").write_text(f"file\n{tmp_path / 'other' / '1.png'}\n")
    with pytest.raises(UnsafeError, match=r"m\.csv: .*1\.png: expected a file inside"):
        build_manifest([root / "m.csv"])
    allowed = build_manifest([root / "l.csv"], allow_outside=True)
    assert allowed.paths == [root / "2.png", tmp_path / "other" / "1.png"]
    assert allowed.column("root") == [str(root), str(tmp_path / "other")], "so that no row leads out of its root"
    (root / "link.png").symlink_to(tmp_path / "other" / "1.png")
    with pytest.raises(UnsafeError, match=r"a/link\.png: expected a file inside .*`--allow-outside`"):
        build_manifest([root])
    assert len(build_manifest([root / "link.png"])) == 1  # a person named it
    assert len(build_manifest([root], allow_outside=True)) == 2


def test_a_journal_lets_an_interrupted_build_go_on(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "1.png", "2.png", "3.png")

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_manifest([root], progress=interrupt, workers=1, journal=tmp_path / "j")
    noted = (tmp_path / "j").read_text().count("\n") - 1
    assert noted >= 2
    assert build_manifest([root], journal=tmp_path / "j").table.equals(build_manifest([root]).table)


def test_empty_folder_lists_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"expected images \(.*\.nii\.gz.*\.png.*\) in this folder, found none"):
        build_manifest([tmp_path])


def test_missing_path_names_the_nearest(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "1.png")
    with pytest.raises(MissingDataError, match=r"imges does not exist; did you mean 'images'"):
        build_manifest([tmp_path / "imges"])
    with pytest.raises(ConfigError, match="at least one path"):
        build_manifest([])


def test_every_unreadable_image_is_named(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a", "1.png", "2.jpg", "3.jpg", "4.jpg")
    for name in ("2.jpg", "4.jpg"):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"2 of 4 images cannot be read: .*2\.jpg: expected .* The others: .*4\.jpg"):
        build_manifest([root])
    (root / "4.jpg").unlink()
    with pytest.raises(DataError, match=r"^\S*2\.jpg: expected a (whole )?JPEG image"):
        build_manifest([root])


def test_of_many_unreadable_images_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(13)]
    root = pictures(tmp_path / "a", *names)
    for name in names[:11]:
        (root / name).write_bytes(b"none")
    with pytest.raises(DataError, match=r"^11 of 13 images cannot be read: \S*00\.png: ") as caught:
        build_manifest([root])
    said = str(caught.value)
    assert all(f"/{name}" in said for name in names[:10])
    assert "10.png" not in said
    assert said.endswith("09.png and 1 more, which `python -m datasets.check` lists.")


def test_volume_without_a_finite_voxel_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii: expected measured voxels"):
        build_manifest([tmp_path])


FAULTS = {
    "missing image": ("file,y\n1.png,0\n9.png,1\n", r"l\.csv: row 2 names '9\.png', which is not at .*9\.png"),
    "no file column": ("fle,y\n1.png,0\n", r"l\.csv: expected a column `file` .* did you mean 'fle'"),
    "duplicate row": ("file,y\n1.png,0\n./1.png,1\n", r"l\.csv: .*1\.png is listed twice"),
    "ragged row": ("file,y\n1.png,0,7\n", r"l\.csv: expected 2 values in each row, as in the header, row 1 has 3"),
    "twice a column": ("file,y,y\n1.png,0,7\n", r"l\.csv: .*'y' occurs twice"),
    "reserved": ("file,shape\n1.png,0\n", r"l\.csv: the column 'shape' has a meaning of its own"),
    "empty": ("", r"l\.csv: expected a CSV list with a header"),
    "no rows": ("file,y\n", r"l\.csv: expected at least one row"),
    "blank name": ("file,y\n,0\n", r"l\.csv: row 1 names no file; fill it in"),
    "group in two splits": (
        "file,group,split\n1.png,a,train\n2.png,a,held_out\n",
        r"group 'a' is in 'train' \(.*1\.png\) and in 'held_out' \(.*2\.png\)",
    ),
    "group missing": ("file,group\n1.png,a\n2.png,\n", r"l\.csv: 2\.png has no 'group'"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_inconsistent_list_is_one_sentence(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    (pictures(tmp_path / "a", "1.png", "2.png") / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        build_manifest([tmp_path / "a" / "l.csv"])


def test_unknown_columns_name_the_nearest(tmp_path: Path) -> None:
    (pictures(tmp_path / "a", "1.png") / "l.csv").write_text("file,grade,patient\n1.png,0,7\n")
    path = tmp_path / "a" / "l.csv"
    with pytest.raises(ConfigError, match=r"l\.csv: no label column is called 'grades': did you mean 'grade'"):
        build_manifest([path], label="grades")
    with pytest.raises(ConfigError, match=r"no column is called 'patiant' for the groups: did you mean 'patient'"):
        build_manifest([path], group="patiant")
    with pytest.raises(ConfigError, match=r"no label column is called 'grade': none are known"):
        build_manifest([tmp_path / "a"], label="grade")


def test_asked_label_must_be_complete(tmp_path: Path) -> None:
    (pictures(tmp_path / "a", "1.png", "2.png") / "l.csv").write_text("file,grade\n1.png,0\n2.png,\n")
    assert build_manifest([tmp_path / "a" / "l.csv"]).column("grade") == [0, None]
    with pytest.raises(DataError, match=r"expected a 'grade' for every image, but 1 of 2 have none.*2\.png"):
        build_manifest([tmp_path / "a" / "l.csv"], label="grade")


def test_folder_and_list_of_the_same_images_are_refused(tmp_path: Path) -> None:
    (pictures(tmp_path / "a", "1.png") / "l.csv").write_text("file\n1.png\n")
    with pytest.raises(DataError, match=r"1\.png is listed twice; name each image once"):
        build_manifest([tmp_path / "a", tmp_path / "a" / "l.csv"])


def test_byte_order_mark_and_blank_lines_of_spreadsheets(tmp_path: Path) -> None:
    (pictures(tmp_path / "a", "1.png") / "l.csv").write_bytes(b"\xef\xbb\xbffile,grade\r\n1.png,3\r\n\r\n")
    assert build_manifest([tmp_path / "a" / "l.csv"]).labels("grade").tolist() == [3]


@pytest.mark.slow
def test_real_photographs_are_indexed_within_ten_seconds(shared: Path, tmp_path: Path) -> None:
    start = time.process_time()  # of all threads: a busy machine is no fault
    manifest = build_manifest([shared / "data/retina/idrid_grading/labels.csv"], label="retinopathy_grade")
    assert time.process_time() - start < 10
    assert np.bincount(manifest.labels("retinopathy_grade")).tolist() == [132, 18, 124, 68, 43]
    shutil.copy(shared / "data/retina/idrid_grading/labels.csv", tmp_path)
    with pytest.raises(DataError, match=r"row 1 names 'IDRiD_001\.jpg'"):
        build_manifest([tmp_path / "labels.csv"])


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, "a.png", "locked/b.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"locked: cannot be listed \(Permission denied\)"):
        build_manifest([tmp_path])


def test_two_manifests_of_the_same_images_are_refused(collection: Path, manifest: Manifest, tmp_path: Path) -> None:
    for name in ("one.parquet", "two.parquet"):
        manifest.write(tmp_path / name)
    with pytest.raises(DataError, match="is listed twice, in two manifests"):
        build_manifest([tmp_path / "one.parquet", tmp_path / "two.parquet"])
