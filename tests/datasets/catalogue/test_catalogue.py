"""Every entry passes the exam; the command line; and the shared copies of real data are found as they are."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, DataError, MissingDataError, RunFolderError
from datasets.catalogue import get, names
from datasets.catalogue.__main__ import main
from datasets.catalogue._jpeg import has_comment
from datasets.catalogue.base import Entry, Listing, Row
from datasets.index import build_manifest
from datasets.testing.catalogue_contract import CatalogueContract

DOMAINS = {"retina": 7, "radiology": 11, "pathology": 6, "satellite": 10}


class TestEveryEntry(CatalogueContract):
    @pytest.fixture(params=names())
    def entry(self, request: pytest.FixtureRequest) -> Entry:
        return get(request.param)


def test_the_folder_is_the_registry() -> None:
    entries = [get(name) for name in names()]
    assert [entry.name for entry in entries] == list(names())
    counts = {domain: sum(entry.domain == domain for entry in entries) for domain in DOMAINS}
    assert counts == DOMAINS
    with pytest.raises(ConfigError, match="did you mean 'eurosat_ms'"):
        get("eurosat_mss")


# What is in the shared copies: images, groups, and note codes.
COPIES = [
    ("idrid_grading", "retina/idrid_grading", 385, 385, []),
    ("idrid_lesions", "retina/idrid_lesions", 17, 17, []),
    ("msd_hippocampus", "volume3d/msd_hippocampus", 160, 160, []),
    ("msd_spleen", "volume3d/msd_spleen_crop", 1, 1, []),
    ("sunnybrook_lv", "volume3d/sunnybrook_lv", 260, 15, []),
    ("totalseg_examples", "volume3d/totalseg_examples", 2, 2, []),
    ("nih_cxr", "radiography/nih_cxr", 70, 70, []),
    ("dsb2018_stained", "pathology/dsb2018_stained", 66, 66, []),
    ("openslide_cmu1_small", "pathology/openslide_cmu1_small", 1, 1, []),
    ("eurosat_rgb", "satellite/eurosat_rgb", 2000, 2000, []),
    ("landsat7_mexico", "satellite/landsat7_mexico", 2, 1, ["unset_nodata"]),
    ("misc_geotiff", "satellite/misc_geotiff", 4, 4, []),
    ("modis_mod09ga", "satellite/modis_mod09ga", 1, 1, []),
]


@pytest.mark.parametrize(("name", "folder", "images", "groups", "codes"), COPIES, ids=[copy[0] for copy in COPIES])
def test_shared_copy_is_found(shared: Path, name: str, folder: str, images: int, groups: int, codes: list[str]) -> None:
    listing = get(name).locate(shared / "data" / folder)
    assert (len(listing.rows), len({row.group for row in listing.rows})) == (images, groups)
    assert [note.code for note in listing.notes] == codes
    labelled = [row.labels.get("label_file") for row in listing.rows if row.labels.get("label_file")]
    assert all((shared / "data" / folder / str(file)).is_file() for file in labelled)


def test_shared_copies_have_their_known_labels(shared: Path) -> None:
    grades = [
        row.labels["retinopathy_grade"]
        for row in get("idrid_grading").locate(shared / "data/retina/idrid_grading").rows
    ]
    assert [grades.count(str(grade)) for grade in range(5)] == [132, 18, 124, 68, 43]
    chests = get("nih_cxr").locate(shared / "data/radiography/nih_cxr").rows
    assert sum(int(row.labels["pneumonia"] or 0) for row in chests) == 35
    hearts = get("sunnybrook_lv").locate(shared / "data/volume3d/sunnybrook_lv").rows
    assert {row.labels["diagnosis"] for row in hearts} == {"HF-I", "HF-NI", "HYP", "N"}
    eyes = get("idrid_lesions").locate(shared / "data/retina/idrid_lesions").rows
    assert 0 < sum(row.labels["label_SE"] is None for row in eyes) < 17


def test_shared_packed_sets_unpack_into_images(shared: Path, tmp_path: Path) -> None:
    place = shared / "data/satellite/eolearn_s2_slovenia"
    entry = get("eolearn_s2_slovenia")
    with pytest.raises(DataError, match="unpack eolearn_s2_slovenia"):
        entry.locate(place)
    entry.unpacked(place, tmp_path / "dates")
    manifest = build_manifest([entry.locate(tmp_path / "dates").write(tmp_path / "dates/list.csv")])
    assert set(manifest.column("group")) == {"slovenia"}
    assert manifest.column("shape") == [[13, 101, 100]] * 5
    np.testing.assert_allclose(manifest.column("spacing")[0], (1009.742 / 101, 999.479 / 100), rtol=1e-4)
    with pytest.raises(RunFolderError, match="new, writable folder"):
        entry.unpacked(place, tmp_path / "dates")


@pytest.mark.slow
def test_shared_pneumoniamnist_unpacks_into_its_images(shared: Path, tmp_path: Path) -> None:
    place, entry = shared / "data/radiography/pneumoniamnist", get("pneumoniamnist")
    with pytest.raises(DataError, match="unpack pneumoniamnist"):
        entry.locate(place)
    entry.unpacked(place, tmp_path / "pictures")
    rows = entry.locate(tmp_path / "pictures").rows
    assert [sum(row.split == split for row in rows) for split in ("train", "val", "test")] == [3882, 524, 0]


def test_patch_camelyon_unpacks_its_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra `hdf`")
    rng = np.random.Generator(np.random.Philox(key=1))
    for split, count in (("train", 3), ("valid", 1), ("test", 1)):
        stem = f"{tmp_path}/camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{stem}_x.h5", "w") as images, h5py.File(f"{stem}_y.h5", "w") as labels:
            images["x"] = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
            labels["y"] = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1) % 2
        lines = "".join(f"{n},{n // 2}_{split}\n" for n in range(count))
        Path(f"{stem}_meta.csv").write_text("n,wsi\n" + lines)
    entry = get("patch_camelyon")
    with pytest.raises(DataError, match="unpack patch_camelyon"):
        entry.locate(tmp_path)
    entry.unpacked(tmp_path, tmp_path / "tiles")
    rows = entry.locate(tmp_path / "tiles").rows
    assert [row.group for row in rows] == [
        "train/0_train",
        "train/0_train",
        "train/1_train",
        "valid/0_valid",
        "test/0_test",
    ]
    assert [row.labels["tumour"] for row in rows] == ["0", "1", "0", "0", "0"]


def test_comments_in_jpeg_headers_are_seen_and_flagged(tmp_path: Path) -> None:
    entry = get("idrid_grading")
    rows = list(entry.example(tmp_path))
    assert [has_comment(tmp_path / row.file) for row in rows] == [True, False]
    notes = entry.locate(tmp_path).notes
    assert [note.code for note in notes] == ["header_text"]
    assert "1 photographs" in notes[0].text
    assert "record 1" not in notes[0].text  # the text itself is not repeated


def test_identical_photographs_share_a_group(tmp_path: Path) -> None:
    entry = get("aptos2019")
    list(entry.example(tmp_path))
    listing = entry.locate(tmp_path)
    assert [row.group for row in listing.rows] == ["000c1434d8d7", "001639a390f0", "000c1434d8d7"]
    assert [note.code for note in listing.notes] == ["unlabelled", "duplicate"]


def test_a_chain_of_identical_photographs_is_one_group(tmp_path: Path) -> None:
    """A and B share a file, B and C share another: all three are one group."""
    entry = get("octdl")
    (tmp_path / "AMD").mkdir()
    lines = ["file_name,disease,patient_id"]
    for name, patient, content in (("a", 1, b"x"), ("b", 2, b"x"), ("c", 2, b"yy"), ("d", 3, b"yy"), ("e", 4, b"z")):
        (tmp_path / f"AMD/{name}.jpg").write_bytes(content)
        lines.append(f"{name},AMD,{patient}")
    (tmp_path / "OCTDL_labels.csv").write_text("\n".join(lines) + "\n")
    groups = [row.group for row in entry.locate(tmp_path).rows]
    assert groups[:4] == [groups[0]] * 4
    assert groups[4] == "patient 4"


def test_eurosat_bands_are_named_in_the_order_of_the_files(tmp_path: Path) -> None:
    entry = get("eurosat_ms")
    list(entry.example(tmp_path))
    manifest = build_manifest([entry.locate(tmp_path).write(tmp_path / "list.csv")], options=entry.options)
    bands = manifest.column("bands")[0]
    assert bands[-1] == "B8A"
    assert bands[7:9] == ["B08", "B09"]


def test_brain_tumour_sequences_are_named(tmp_path: Path) -> None:
    entry = get("msd_brain_tumour")
    list(entry.example(tmp_path))
    manifest = build_manifest([entry.locate(tmp_path).write(tmp_path / "list.csv")], options=entry.options)
    assert manifest.column("bands")[0] == ["flair", "t1", "t1gd", "t2"]


def test_a_parent_folder_may_be_given(tmp_path: Path) -> None:
    entry = get("msd_spleen")
    list(entry.example(tmp_path))
    above, inside = entry.locate(tmp_path), entry.locate(tmp_path / "Task09_Spleen")
    assert [row.file for row in above.rows] == [f"Task09_Spleen/{row.file}" for row in inside.rows]


def test_a_table_without_its_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train.csv").write_text("id_code,diagnoses\na,1\n")
    with pytest.raises(DataError, match="expected a column 'diagnosis'; did you mean 'diagnoses'"):
        get("aptos2019").locate(tmp_path)
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na\n")
    with pytest.raises(DataError, match="row 2 has not as many cells"):
        get("aptos2019").locate(tmp_path)
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,1\nb,2\n")
    with pytest.raises(MissingDataError, match=r"train_images/a.png \(2 of 2 images that train.csv names\)"):
        get("aptos2019").locate(tmp_path)


def test_a_list_elsewhere_leads_back_to_the_images(tmp_path: Path) -> None:
    root = tmp_path / "set"
    rows = list(get("octdl").example(root))
    path = get("octdl").locate(root).write(tmp_path / "lists.csv")
    with path.open(newline="") as file:
        assert [line["file"] for line in csv.DictReader(file)] == [f"set/{row.file}" for row in rows]
    with pytest.raises(RunFolderError, match="choose another place"):
        get("octdl").locate(root).write(tmp_path / "no/such/folder.csv")


def test_columns_that_some_rows_lack_are_empty_there(tmp_path: Path) -> None:
    listing = Listing(get("octdl"), tmp_path, [Row("a", "1", None, {"x": 1}), Row("b", "2", "train", {"y": "t"})], [])
    assert listing.columns() == {
        "file": ["a", "b"],
        "group": ["1", "2"],
        "split": [None, "train"],
        "x": [1, None],
        "y": [None, "t"],
    }


def test_command_line_lists_shows_locates_and_fails_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(names())
    assert main(["show", "eurosat_ms"]) == 0
    shown = capsys.readouterr().out
    assert all(
        word in shown for word in ("MIT (commercial use allowed)", "10.1109/JSTARS.2019.2918242", "B8A", "layout")
    )
    list(get("chexpert").example(tmp_path))
    assert main(["locate", "chexpert", str(tmp_path), "--out", str(tmp_path / "list.csv")]) == 0
    assert "3 images in 2 groups" in capsys.readouterr().out
    assert (tmp_path / "list.csv").is_file()
    assert main(["locate", "chexpert", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nothing'}: expected CheXpert")
    assert main(["show", "chexper"]) == 2
    assert "did you mean 'chexpert'" in capsys.readouterr().err


@pytest.mark.slow
def test_command_line_runs_as_a_module() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "datasets.catalogue"], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == len(names())


def test_paths_of_labels_move_with_a_list_that_lies_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "set"
    get("camelyon16").example(root)
    listing = get("camelyon16").locate(root)
    inside = [path for path in listing.columns()["annotation_file"] if path]
    outside = [path for path in listing.columns(tmp_path)["annotation_file"] if path]
    assert inside
    assert outside == [f"set/{path}" for path in inside]
    assert all((tmp_path / str(path)).is_file() for path in outside)
