"""What a user can get wrong ends in one sentence that names the file and the cure, with exit code 2 and nothing written."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image


def _photograph(path: Path, size: int = 96) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(40, 255, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def _volume(path: Path, shape: tuple[int, ...] = (12, 12, 12)) -> Path:
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.int16), np.eye(4)), path)
    return path


def _list(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def _empty(folder: Path) -> tuple[Path, list[str]]:
    (folder / "notes.txt").write_text("no image here")
    return folder, ["data", ".jpg", ".nii.gz"]


def _unreadable(folder: Path) -> tuple[Path, list[str]]:
    _photograph(folder / "a.png")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no photograph")
    return folder, ["bad.jpg"]


def _truncated(folder: Path) -> tuple[Path, list[str]]:
    whole = _volume(folder / "scan.nii.gz", (40, 40, 40)).read_bytes()
    (folder / "scan.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder, ["scan.nii.gz", "truncated"]


def _nan_affine(folder: Path) -> tuple[Path, list[str]]:
    whole = bytearray(_volume(folder / "scan.nii").read_bytes())
    whole[280:328] = struct.pack("<12f", *[float("nan")] * 12)  # srow_x, srow_y, srow_z of the NIfTI-1 header
    (folder / "scan.nii").write_bytes(whole)
    return folder, ["scan.nii", "affine", "finite"]


def _four_d(folder: Path) -> tuple[Path, list[str]]:
    _volume(folder / "series.nii.gz", (8, 8, 8, 5))
    return folder, ["series.nii.gz", "3D"]


def _missing_image(folder: Path) -> tuple[Path, list[str]]:
    _photograph(folder / "here.png")
    return _list(folder, "file,grade\nhere.png,0\ngone.png,1\n"), ["gone.png", "labels.csv"]


def _group_in_two_splits(folder: Path) -> tuple[Path, list[str]]:
    for name in ("a", "b"):
        _photograph(folder / f"{name}.png")
    return _list(folder, "file,group,split\na.png,p1,train\nb.png,p1,held_out\n"), ["p1", "train", "held_out"]


def _smaller_than_a_patch(folder: Path) -> tuple[Path, list[str]]:
    _photograph(folder / "a.png")
    _photograph(folder / "speck.png", 9)
    return folder, ["speck.png", "patch"]


def _bomb(folder: Path) -> tuple[Path, list[str]]:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    (folder / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return folder, ["bomb.png", "pixels"]


FILES = {
    "empty folder": _empty,
    "unreadable JPEG": _unreadable,
    "truncated .nii.gz": _truncated,
    "NaN affine": _nan_affine,
    "4D given for 3D": _four_d,
    "label file naming a missing image": _missing_image,
    "group in two splits": _group_in_two_splits,
    "image smaller than a patch": _smaller_than_a_patch,
    "pixel bomb": _bomb,
}


def _refused(outcome, words: list[str], written: Path) -> None:
    assert outcome.code == 2
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in errors[0], f"{word!r} is not in: {errors[0]}"
    assert not written.exists()


@pytest.mark.parametrize("fault", FILES)
def test_a_bad_file_is_named_before_anything_is_written(verb, tmp_path, fault):
    data = tmp_path / "data"
    data.mkdir()
    given, words = FILES[fault](data)
    out = tmp_path / "run"
    _refused(verb("pretrain", "tiny", "--steps=2", "--optim.warmup_steps=1", "--data", given, "--out", out), words, out)


def test_an_unknown_label_column_names_the_nearest(verb, trained, samples, tmp_path):
    out = tmp_path / "scores.json"
    words = ["grad", "did you mean 'grade'"]
    outcome = verb("evaluate", "--encoder", trained, "--data", samples / "labels.csv", "--label", "grad", "--out", out)
    _refused(outcome, words, out)


def test_an_unknown_preset_names_the_nearest(verb, tmp_path):
    _refused(verb("pretrain", "tiney", "--out", tmp_path / "run"), ["tiney", "did you mean 'tiny'"], tmp_path / "run")


def test_a_misspelt_option_names_the_nearest(verb, tmp_path):
    outcome = verb(
        "pretrain", "tiny", "--steps=2", "--optim.warmup_steps=1", "--optim.lrr=1e-3", "--out", tmp_path / "run"
    )
    _refused(outcome, ["optim.lrr", "did you mean 'optim.lr'"], tmp_path / "run")


def test_an_existing_run_is_left_alone(verb, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = verb("pretrain", "tiny", "--steps=2", "--optim.warmup_steps=1", "--out", run)
    assert outcome.code == 2
    assert str(run) in outcome.sentence
    assert "--resume" in outcome.sentence
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_an_output_that_cannot_be_written(verb, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    outcome = verb("pretrain", "tiny", "--steps=2", "--optim.warmup_steps=1", "--out", blocker / "run")
    assert outcome.code == 2
    assert str(blocker) in outcome.sentence
    assert blocker.read_text() == "not a folder"


def test_an_unwritable_file_system(verb, tmp_path):
    outcome = verb("pretrain", "tiny", "--steps=2", "--optim.warmup_steps=1", "--out", "/proc/run")
    assert outcome.code == 2
    assert "/proc" in outcome.sentence
    assert "--out" in outcome.sentence


def test_no_run_at_the_encoder_path(verb, tmp_path):
    outcome = verb("evaluate", "--encoder", tmp_path / "nothing")
    assert outcome.code == 2
    assert "nothing" in outcome.sentence


def test_the_sample_set_has_its_own_groups_and_labels(verb, trained, tmp_path):
    outcome = verb("pretrain", "tiny", "--group", "site", "--out", tmp_path / "run")
    _refused(outcome, ["'patient'", "site", "--data"], tmp_path / "run")
    outcome = verb("evaluate", "--encoder", trained, "--label", "stage", "--out", tmp_path / "scores.json")
    _refused(outcome, ["'grade'", "stage", "--data"], tmp_path / "scores.json")
