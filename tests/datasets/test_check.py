"""`python -m datasets.check`: what it finds, what it says, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from datasets.check import main, verify
from datasets.checking.findings import KINDS, SEVERITIES, _fill, access_factor
from datasets.checking.report import size_text
from datasets.index import build_manifest
from datasets.manifest import Manifest
from datasets.readers import open_image
from datasets.statistics import Statistics


def check(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return int(left.value.code or 0), shown.out, shown.err


def findings(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[dict[str, Any]]]:
    code, out, _ = check(capsys, *words, "--json", "-")
    return code, json.loads(out)["findings"]


def picture(path: Path, seed: int = 0, *, size: tuple[int, int] = (30, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.Philox(key=seed))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


def volume(path: Path, voxels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([*spacing, 1.0]))
    nib.save(image, path)
    return path


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return (rng.random(shape) * 100).astype(dtype)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for number in range(4):
        picture(tmp_path / "set" / f"{number}.png", number)
    lines = [f"{number}.png,{number % 2},{'train' if number < 2 else 'test'},P{number}" for number in range(4)]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(["file,grade,split,patient", *lines]) + "\n")
    return tmp_path / "set"


def test_a_clean_collection_ends_with_0(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check(capsys, clean / "labels.csv", "--label", "grade", "--group", "patient")
    assert code == 0
    assert "4 images, every one decoded to its last voxel: no error, nothing unusual." in out
    for text in ("30 x 40 voxels", "3: red, green, blue", "train (2), test (2)", "0 (2), 1 (2)", "4, one image each"):
        assert text in out, text
    assert "P0" not in out  # a text column of names is counted, not listed


def test_what_is_written_is_named_last(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [tmp_path / name for name in ("m.parquet", "c.json", "r.html")]
    code, out, _ = check(capsys, clean / "labels.csv", "--out", names[0], "--json", names[1], "--report", names[2])
    assert code == 0
    assert out.splitlines()[-3:] == [str(name) for name in names]
    manifest = Manifest.read(names[0])
    assert manifest.labels("grade").tolist() == [0, 1, 0, 1]
    assert manifest.digest == build_manifest([clean / "labels.csv"]).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "m.parquet", "r.html", "set"]  # no leftovers


def test_json_has_stable_keys(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    code, out, err = check(capsys, clean, "--json", "-")
    found = json.loads(out)
    assert code == 1
    assert list(found) == ("halfseen task paths made seconds images read bytes verdict counts summary findings".split())
    assert (found["halfseen"], found["task"], found["images"], found["read"]) == ("check 1", "check", 4, 3)
    assert found["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert list(found["findings"][0]) == ["code", "severity", "file", "text"]
    assert found["findings"][0]["file"] == "0.png"
    assert found["findings"][0]["text"].startswith("DamagedError: ")
    assert str(clean) not in found["findings"][0]["text"]  # the file is named once, without the machine's folders
    assert "1 error to mend before use" in err  # the table goes where it does not disturb


def test_an_unreadable_image_stops_no_other(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "1.png").write_bytes((clean / "1.png").read_bytes()[:500])
    (clean / "2.png").write_bytes(b"")
    code, out, _ = check(capsys, clean, "--out", tmp_path / "m.parquet")
    assert code == 1
    assert "4 images: 2 errors to mend before use" in out
    assert Manifest.read(tmp_path / "m.parquet").column("file") == ["0.png", "3.png"]


def test_nothing_readable_writes_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    code, out, err = check(capsys, tmp_path, "--out", tmp_path / "m.parquet")
    assert code == 2
    assert "no image could be read, so no manifest is written" in err
    assert not (tmp_path / "m.parquet").exists()
    assert check(capsys, tmp_path)[0] == 1
    assert "1 error" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected at least one PATH"),
        (["{set}/nothing"], "nothing does not exist"),
        (["{set}", "--options", "nifti.afine=sform"], "affine"),
        (["{set}", "--options", "nifty.affine=sform"], "did you mean 'nifti'"),
        (
            ["{set}", "--label", "class"],
            "no column is called 'class' (--label): folders are classes where there are several",
        ),
        (["{set}/labels.csv", "--label", "class"], "no column is called 'class' (--label): folders are classes"),
        (["{set}/labels.csv", "--label", "file"], "no column is called 'file' (--label): "),
        (["{set}/labels.csv", "--label", "grades"], "did you mean 'grade'"),
        (["{set}/labels.csv", "--group", "patiant"], "did you mean 'patient'"),
        (["{set}", "{set}/labels.csv"], "listed twice"),
        (["{set}", "--resume"], "--resume needs to know which check"),
        (["{set}", "--out", "{set}/no/m.parquet"], "expected a folder for --out"),
        (["{set}", "--out", "{set}/m.csv"], "m.csv: expected a name that ends in .parquet"),
        (["{set}", "--out", "{set}"], "expected a file for --out, got the folder"),
        (["{set}", "--report", "{set}"], "expected a file for --report, got the folder"),
        (["{set}", "--verify", "{set}/m.parquet"], "m.parquet does not exist"),
        (["--verify", "{set}/m.parquet", "--out", "{set}/n.parquet"], "--out has no effect with --verify"),
        (["--verify", "{set}/m.parquet", "--require-crs"], "--require-crs has no effect with --verify"),
        (["{set}", "--trust"], "--trust has no effect without a manifest"),
        (["{set}", "--workers", "0"], "whole number of at least 1"),
        (["{set}", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_2(
    words: list[str], message: str, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = check(capsys, *(word.format(set=clean) for word in words))
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]


def test_copies_are_found_and_those_across_splits_and_groups_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        picture(tmp_path / f"{number}.png", number)
    shutil.copy(tmp_path / "0.png", tmp_path / "same.png")
    Image.open(tmp_path / "1.png").save(tmp_path / "again.png", compress_level=1)  # other bytes, the same pixels
    shutil.copy(tmp_path / "2.png", tmp_path / "copy.png")
    rows = ["0.png,a,train", "same.png,b,test", "1.png,c,train", "again.png,d,train", "2.png,e,train"]
    rows += ["copy.png,e,train", "3.png,f,test", "4.png,g,"]
    (tmp_path / "l.csv").write_text("\n".join(["file,group,split", *rows]) + "\n")
    code, found = findings(capsys, tmp_path / "l.csv")
    assert code == 1
    assert {entry["code"]: (entry["file"], entry["severity"]) for entry in found} == {
        "duplicate_across_splits": ("0.png", "error"),
        "duplicate_across_groups": ("1.png", "error"),
        "duplicate": ("2.png", "warning"),
    }
    texts = {entry["code"]: entry["text"] for entry in found}
    assert texts["duplicate_across_splits"] == "the same file as same.png (split: train, test)."
    assert texts["duplicate_across_groups"] == "the same voxels in another file as again.png."
    code, found = findings(capsys, tmp_path)  # nobody named groups: copies are not across them
    assert (code, [entry["code"] for entry in found]) == (0, ["duplicate"] * 3)


def test_a_divided_group_and_a_missing_label_are_errors(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "labels.csv").write_text("file,grade,split,patient\n0.png,1,train,a\n1.png,,test,a\n2.png,1,train,b\n")
    code, found = findings(capsys, clean / "labels.csv", "--group", "patient", "--label", "grade")
    assert code == 1
    assert [(entry["code"], entry["file"]) for entry in found] == [
        ("divided_group", "0.png"),
        ("missing_label", "1.png"),
    ]
    assert "group 'a' is in 'train'" in found[0]["text"]


IMAGES: dict[str, tuple[np.ndarray, set[str]]] = {
    "fine": (noise((20, 20, 20), "float32"), set()),
    "nan": (np.where(noise((20, 20, 20), "float32") < 10, np.nan, 5 + noise((20, 20, 20), "float32", 1)), {"nonfinite"}),
    "infinity": (np.where(noise((20, 20, 20), "float32") < 1, np.inf, noise((20, 20, 20), "float32", 2)), {"nonfinite"}),
    "all nan": (np.full((20, 20, 20), np.nan, "float32"), {"no_data", "nonfinite"}),
    "mostly nan": (np.where(noise((20, 20, 20), "float32") < 80, np.nan, noise((20, 20, 20), "float32", 3)),
                   {"nonfinite", "sparse"}),
    "constant": (np.full((20, 20, 20), 7, "int16"), {"constant"}),
    "blank": (np.eye(20)[None].repeat(20, 0).astype("int16") * (noise((20, 20, 20), "int16") < 20), {"mostly_constant"}),
    "huge": (noise((20, 20, 20), "float32") * 1e9, {"huge_values"}),
    "fill": (np.where(noise((20, 20, 20), "int16") < 5, -9999, noise((20, 20, 20), "int16", 4)).astype("int16"),
             {"suspected_nodata"}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_voxels_are_judged(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels, expected = IMAGES[name]
    volume(tmp_path / "a.nii", voxels)
    code, found = findings(capsys, tmp_path)
    assert {entry["code"] for entry in found} == expected
    assert code == int(any(KINDS[word].severity == "error" for word in expected))


def test_shares_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels = noise((20, 20, 20), "float32")
    voxels[:2] = np.nan
    volume(tmp_path / "a.nii", voxels)
    assert findings(capsys, tmp_path)[1][0]["text"] == "800 voxels (10 %) are NaN or infinite."


def test_fill_values_are_told_from_bright_tails() -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    reflectance = rng.gamma(4, 300, 100_000).clip(0, 9000).astype(np.int16)
    assert _fill(Statistics.of(reflectance)) is None
    filled = np.where(rng.random(100_000) < 0.02, 16_000, reflectance.clip(0, 5000)).astype(np.int16)
    found = _fill(Statistics.of(filled))
    assert found is not None
    assert found[0] == 16_000
    assert found[1] == pytest.approx(0.02, rel=0.1)
    tomography = np.concatenate([np.full(40_000, -1024), rng.normal(40, 300, 60_000).clip(-1024, 3000)]).astype(
        np.int16
    )
    assert _fill(Statistics.of(tomography)) is None  # air is a value
    assert _fill(Statistics.of(np.array([0, 30_000] * 100, np.int16))) is None  # a mask
    for top, share, fill in ((3200, 0.02, None), (3800, 0.02, 3800.0), (3800, 0.004, None)):  # of values up to 3,000
        spread = np.tile(np.arange(3001), 34)[:100_000]
        ended = _fill(Statistics.of(np.where(rng.random(100_000) < share, top, spread).astype(np.int16)))
        assert (ended[0] if ended else None) == fill, (top, share)


def test_differences_within_a_collection_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        volume(tmp_path / f"{number}.nii", noise((20, 20, 20), "int16", number))
    volume(tmp_path / "3.nii", 1000 * noise((20, 20, 20), "float32", 9), (1, 1, 4))
    for number in range(2):
        picture(tmp_path / f"{number}.png", number)
    Image.fromarray(noise((30, 30), "uint8")).save(tmp_path / "gray.png")
    code, found = findings(capsys, tmp_path)
    told = {entry["code"]: (entry["file"], entry["severity"]) for entry in found}
    assert code == 0
    assert told == {
        "mixed_dtype": ("3.nii", "warning"),
        "mixed_spacing": ("3.nii", "warning"),
        "mixed_values": ("3.nii", "note"),
        "mixed_bands": ("gray.png", "warning"),
    }
    text = next(entry["text"] for entry in found if entry["code"] == "mixed_spacing")
    assert text == "the 4 3D images have 1-4 x 1 x 1 mm."


def test_slow_access_is_estimated_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import rasterio

    large = np.resize(np.arange(251, dtype=np.uint8), (300, 300, 100))
    volume(tmp_path / "a.nii.gz", large)
    volume(tmp_path / "a.nii", large + np.uint8(1))
    facts = {"driver": "GTiff", "count": 1, "height": 600, "width": 6000, "dtype": "uint8", "crs": "EPSG:32615"}
    facts |= {"transform": rasterio.Affine(30, 0, 5e5, 0, -30, 2e6)}
    for name, layout in {"strips.tif": {"blockysize": 8}, "tiles.tif": {"tiled": True}}.items():
        with rasterio.open(tmp_path / name, "w", **facts, **layout) as file:
            file.write(noise((600, 6000), "uint8", len(name)), 1)
            file.set_band_description(1, "red")
    assert access_factor(open_image(tmp_path / "a.nii.gz")) == pytest.approx(9e6 / 96**3)
    assert access_factor(open_image(tmp_path / "tiles.tif")) == pytest.approx(600 * 767 / 512**2)
    _, found = findings(capsys, tmp_path)
    slow = {entry["file"]: entry["text"] for entry in found if entry["code"] == "slow_access"}
    assert set(slow) == {"a.nii.gz", "strips.tif"}
    assert slow["strips.tif"] == "strips: convert first: about 12 voxels are decoded for each of a 512 x 512 window."
    assert slow["a.nii.gz"] == "gz: convert first: about 10 voxels are decoded for each of a 96 x 96 x 96 window."


def test_crs_can_be_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    assert findings(capsys, tmp_path) == (0, [])
    code, found = findings(capsys, tmp_path, "--require-crs")
    assert (code, [entry["code"] for entry in found]) == (1, ["no_crs"])


def test_a_manifest_may_end_in_capitals_and_a_line_is_never_a_folder(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").mkdir()
    code, out, _ = check(capsys, clean, "--out", "M.PARQUET", "--json", "-")
    assert (code, json.loads(out)["images"], len(Manifest.read("M.PARQUET"))) == (0, 4, 4)


def test_a_journal_that_was_named_is_kept_and_one_that_was_not_is_not(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.parquet"
    assert check(capsys, clean, "--out", out, "--journal", tmp_path / "j.jsonl")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["j.jsonl", "m.parquet"]
    (tmp_path / "j.jsonl").unlink()
    assert check(capsys, clean, "--out", out)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["m.parquet"]


def test_links_that_leave_are_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "out.png")
    picture(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "out.png")
    code, found = findings(capsys, tmp_path / "in")
    assert (code, found[0]["code"], found[0]["file"]) == (1, "outside", "b.png")
    assert "`--allow-outside`" in found[0]["text"]
    assert check(capsys, tmp_path / "in", "--allow-outside")[0] == 0


def test_links_to_folders_and_labels_are_findings_and_can_be_left_out(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "other" / "c.png", 7)
    (clean / "more").symlink_to(tmp_path / "other", target_is_directory=True)
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(clean / "0_seg.png")
    code, found = findings(capsys, clean)
    assert code == 0
    said = {entry["code"]: entry["file"] for entry in found if entry["code"] in ("linked_folder", "label_like")}
    assert said == {"linked_folder": "more", "label_like": "0_seg.png"}
    code, found = findings(capsys, clean, "--exclude", "*_seg.png")
    assert not [entry for entry in found if entry["code"] == "label_like"]


def test_a_list_that_names_what_is_not_there_is_a_finding(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "labels.csv").write_text("file,grade\n0.png,1\n9.png,2\n")
    code, found = findings(capsys, clean / "labels.csv")
    assert (code, found[0]["file"], found[0]["code"]) == (1, "9.png", "missing")
    assert found[0]["text"] == f"expected it at {clean / '9.png'}."


def test_the_page_needs_nothing_else_and_names_no_machine(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clean / "0.png", clean / "<b>.png")
    check(capsys, clean, "--report", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "http" not in text
    assert "src=" not in text
    assert "<script" not in text
    assert "&lt;b&gt;.png" in text
    assert "<b>.png" not in text
    assert "is a copy of another image" in text
    assert "@page { size: A4" in text


def test_verify_finds_every_change_and_loss(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(capsys, clean, "--out", tmp_path / "m.parquet")
    code, out, _ = check(capsys, "--verify", tmp_path / "m.parquet")
    assert code == 0
    assert "every file is, byte for byte, what the manifest says" in out
    shutil.copytree(clean, tmp_path / "copy")
    data = bytearray((clean / "1.png").read_bytes())
    data[-1] ^= 1
    stat = (clean / "1.png").stat()
    (clean / "1.png").write_bytes(data)
    os.utime(clean / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and time say nothing
    (clean / "2.png").write_bytes(b"short")
    (clean / "3.png").unlink()
    code, found = findings(capsys, "--verify", tmp_path / "m.parquet")
    assert code == 1
    assert [(entry["file"], entry["code"]) for entry in found] == [
        ("1.png", "changed"), ("2.png", "changed"), ("3.png", "missing")
    ]  # fmt: skip
    assert check(capsys, "--verify", tmp_path / "m.parquet", tmp_path / "copy")[0] == 0


def test_a_manifest_is_checked_again_and_keeps_what_it_says(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(capsys, clean / "labels.csv", "--group", "patient", "--out", tmp_path / "m.parquet")
    picture(clean / "2.png", 99)
    code, found = findings(capsys, tmp_path / "m.parquet", "--out", tmp_path / "n.parquet")
    assert (code, [(entry["file"], entry["code"]) for entry in found]) == (1, [("2.png", "changed")])
    before, after = Manifest.read(tmp_path / "m.parquet"), Manifest.read(tmp_path / "n.parquet")
    for name in ("file", "group", "split", "grade"):
        assert after.column(name) == before.column(name), name
    assert sum(a != b for a, b in zip(before.column("digest"), after.column("digest"), strict=True)) == 1


def test_trust_decodes_only_what_changed(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import examine as module

    check(capsys, clean, "--out", tmp_path / "m.parquet")
    picture(clean / "2.png", 99)
    decoded: list[str] = []
    real = module.examine
    monkeypatch.setattr(module, "examine", lambda entry, *rest: decoded.append(entry.file) or real(entry, *rest))
    assert check(capsys, tmp_path / "m.parquet", "--trust", "--out", tmp_path / "n.parquet")[0] == 1
    assert decoded == ["2.png"]
    assert Manifest.read(tmp_path / "n.parquet").digest == build_manifest([clean]).digest


def test_help_says_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check(capsys, "--help")
    assert code == 0
    for text in (
        "python -m datasets.check PATH",
        "--verify",
        "--resume",
        "Exit codes:",
        "nifti.affine=sform",
        "--report",
    ):
        assert text in out, text


def test_every_kind_says_what_to_do() -> None:
    for code, kind in KINDS.items():
        assert code.islower(), code
        assert kind.severity in SEVERITIES
        assert kind.cure.endswith("."), code


def test_sizes_for_people() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 12_345, 999_400, 999_600, 5.5e6, 7e9, 3.2e13)] == [
        "0 B", "999 B", "1 kB", "12.3 kB", "999 kB", "1 MB", "5.5 MB", "7 GB", "32 TB"
    ]  # fmt: skip


def test_verify_is_a_function_too(clean: Path) -> None:
    manifest = build_manifest([clean])
    seen: list[tuple[int, int]] = []
    assert verify(manifest, progress=lambda *at: seen.append(at)) == []
    assert seen[-1] == (4, 4)
    (clean / "0.png").unlink()
    assert Counter(entry.code for entry in verify(manifest)) == {"missing": 1}


@pytest.mark.slow
def test_a_killed_check_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(60):
        picture(folder / f"{number:02d}.png", number, size=(700, 700))
    (folder / "31.png").write_bytes((folder / "31.png").read_bytes()[:9000])
    words = [sys.executable, "-m", "datasets.check", str(folder), "--workers", "1", "--quiet"]
    journal = tmp_path / ".m.parquet.journal"
    kills = 0
    for _ in range(3):
        resumed = ["--resume"] if kills else []
        process = subprocess.Popen([*words, "--out", str(tmp_path / "m.parquet"), *resumed], stdout=subprocess.DEVNULL)
        noted = journal.read_text().count("\n") if journal.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_text().count("\n") > noted + 8:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait(timeout=60)
    assert kills == 3
    before = journal.read_text().count("\n")
    assert before >= 24
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "m.parquet"), "--resume", "--json", str(tmp_path / "resumed.json")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    whole = subprocess.run(
        [*words, "--out", str(tmp_path / "w.parquet"), "--json", str(tmp_path / "whole.json")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, whole.returncode) == (1, 1), done.stderr + whole.stderr
    assert not journal.exists()
    assert Manifest.read(tmp_path / "m.parquet").table.equals(Manifest.read(tmp_path / "w.parquet").table)
    resumed, once = (json.loads((tmp_path / name).read_text()) for name in ("resumed.json", "whole.json"))
    assert resumed["findings"] == once["findings"]
    assert [entry["file"] for entry in once["findings"]] == ["31.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "images", "codes"),
    [
        ("retina/idrid_grading/labels.csv", 385, set()),
        ("radiography/nih_cxr/labels.csv", 70, set()),
        ("volume3d/msd_spleen_crop", 2, {"header_text", "mixed_dtype", "anisotropic"}),
        (
            "satellite/landsat7_mexico",
            3,
            {"constant", "suspected_nodata", "mixed_bands", "mixed_dtype", "unnamed_bands"},
        ),
    ],
)
def test_real_collections_are_what_they_are(
    folder: str, images: int, codes: set[str], shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = check(capsys, shared / "data" / folder, "--json", "-")
    found = json.loads(out)
    assert (code, found["images"], found["read"]) == (0, images, images)
    assert codes <= {entry["code"] for entry in found["findings"]}
    if not codes:
        assert found["findings"] == []


def test_the_report_is_written_where_no_manifest_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report, out = tmp_path / "report.json", tmp_path / "m.parquet"
    code, _, said = check(capsys, tmp_path / "in", "--out", out, "--json", report)
    assert code == 2
    assert "no image could be read, so no manifest is written" in said
    assert [entry["code"] for entry in json.loads(report.read_text())["findings"]] == ["unreadable"]


def test_a_manifest_never_takes_the_place_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(tmp_path / "a.png")
    (tmp_path / "m.parquet").mkdir()
    (tmp_path / "m.parquet" / "mine.txt").write_text("x")
    code, _, said = check(capsys, tmp_path / "a.png", "--out", tmp_path / "m.parquet")
    assert (code, "m.parquet" in said) == (2, True)
    assert (tmp_path / "m.parquet" / "mine.txt").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.parquet"]


def test_an_image_that_the_folders_manifest_does_not_name_is_reported(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys, clean, "--out", clean / "manifest.parquet")[0] == 0
    assert findings(capsys, clean) == (0, [])
    picture(clean / "later.png", 9)
    code, found = findings(capsys, clean)
    assert code == 0
    assert [(entry["code"], entry["severity"]) for entry in found] == [("unlisted", "warning")]
    assert "later.png" in json.dumps(found)
