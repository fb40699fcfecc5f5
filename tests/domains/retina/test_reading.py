"""What a run does with images as they are read: options of readers, and samples that rot while it trains."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets import Manifest, build_manifest, split_groups

pytestmark = pytest.mark.slow

FEW = ["--optim.warmup_steps=1", "--how.save_every=2", "--how.validate_every=100"]


def _rot(path: Path) -> None:
    """Zero the second half of a file and leave its size and time alone."""
    found = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_photograph_that_rots_is_quarantined_and_the_run_can_be_continued(verb, samples, tmp_path):
    (tmp_path / "data").mkdir()
    for path in sorted((samples / "photographs").iterdir())[:12]:
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    manifest = split_groups(build_manifest([tmp_path / "data"]), 0.2, seed=0)
    manifest.write(tmp_path / "data.parquet")
    bad = manifest.path(int(manifest.rows(split="train")[0]))
    _rot(bad)
    out = tmp_path / "run"
    words = ["tiny", "--data", tmp_path / "data.parquet", "--out", out, *FEW, "--data.streams.0.batch_size=8"]
    refused = verb("pretrain", *words[:-1], "--data.streams.0.batch_size=8", "--steps=4")
    assert refused.code == 2
    assert bad.name in refused.sentence
    words += ["--steps=4", "--data.bad_samples=quarantine"]
    outcome = verb("pretrain", *words, "--overwrite")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert lines
    assert {line["file"] for line in lines} == {str(bad)}
    assert {line["stream"] for line in lines} == {"photograph"}
    assert outcome.err.count("quarantined: ") == 1
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["event"] == "step" for line in steps) == 4
    again = verb("pretrain", *words, "--resume")
    assert again.code == 0, again.err
    assert Manifest.read(out / "data.parquet").digest == manifest.digest


def test_options_of_readers_reach_the_check_the_training_and_the_evaluation(verb, tmp_path):
    """Two affines that disagree: refused, or read by the one that is named, and remembered in the manifest."""
    (tmp_path / "data").mkdir()
    rng = np.random.Generator(np.random.Philox(key=2))
    for number in range(6):
        image = nib.Nifti1Image(rng.normal(100, 20, (40, 40, 40)).astype(np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
        image.set_sform(np.diag([1.0, 1.0, 2.0, 1.0]), code=1)
        image.set_qform(np.diag([1.0, 1.0, 3.0, 1.0]), code=1)
        nib.save(image, tmp_path / "data" / f"v{number}.nii.gz")
    words = ["pretrain", "tiny", "--data", tmp_path / "data", *FEW, "--steps=2", "--data.streams.1.batch_size=2"]
    assert "disagree" in verb(*words, "--out", tmp_path / "no").sentence
    outcome = verb(*words, "--out", tmp_path / "run", "--options", "nifti.affine=qform")
    assert outcome.code == 0, outcome.err
    manifest = Manifest.read(tmp_path / "run" / "data.parquet")
    assert manifest.column("options") == [["nifti.affine=qform"]] * 6
    assert manifest.column("spacing")[0] == [3.0, 1.0, 1.0]
    words = ["embed", "--encoder", tmp_path / "run", "--data", tmp_path / "data", "--out", tmp_path / "v.parquet"]
    assert "disagree" in verb(*words).sentence
    assert verb(*words, "--options=[nifti.affine=qform]").code == 0
