"""Checkpoints: all or nothing, digested, the last two, and an encoder that can be read back."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core import checkpoint
from core.contract import Contract, Input, Normalisation
from core.encoders.load import load_encoder
from core.encoders.vit import ViTSpec
from core.errors import CheckpointError, RunFolderError
from core.weights import file_digest

TENSORS = {"model": {"a.weight": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"a.weight/step": torch.tensor(3.0)}}


def save(run: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(run, step, TENSORS, {"counters": {"step": step}})


def test_checkpoint_holds_tensors_state_and_digests(tmp_path: Path) -> None:
    save(tmp_path, 120)
    folder = tmp_path / "step_000120"
    assert sorted(p.name for p in folder.iterdir()) == [
        "digests.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert (tmp_path / "last").read_text() == "step_000120\n"
    assert checkpoint.verify(folder) is None
    assert checkpoint.read_state(folder) == {"format": 1, "step": 120, "counters": {"step": 120}}


def test_last_two_are_kept_by_number(tmp_path: Path) -> None:
    save(tmp_path, 999_998, 999_999, 1_000_000)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["step_1000000", "step_999999"]


def test_nothing_is_left_beside_what_was_published(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_000001", "step_000002"]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("model.safetensors", _flip, "the bytes of model.safetensors are not those that were written"),
        ("optimizer.safetensors", _truncate, "the bytes of optimizer.safetensors"),
        ("optimizer.safetensors", Path.unlink, "optimizer.safetensors is missing"),
        ("state.json", _flip, "the bytes of state.json"),
        ("digests.json", Path.unlink, "digests.json is missing"),
        ("digests.json", _truncate, "it cannot be read"),
        ("digests.json", lambda path: path.write_text("{}"), "its files are not those that digests.json lists"),
        ("digests.json", lambda path: path.write_text("[]"), "it cannot be read"),
    ],
)
def test_damaged_newest_is_refused_with_its_reason_and_the_one_before_is_used(
    name: str, damage: Any, reason: str, tmp_path: Path
) -> None:
    save(tmp_path, 2, 4)
    damage(tmp_path / "step_000004" / name)
    folder, refused = checkpoint.newest(tmp_path)
    assert folder == tmp_path / "step_000002"
    assert len(refused) == 1
    assert refused[0].startswith("step_000004 refused: " + reason)


def test_when_none_verifies_all_reasons_are_given(tmp_path: Path) -> None:
    save(tmp_path, 2, 4)
    _flip(tmp_path / "step_000002/model.safetensors")
    (tmp_path / "step_000004/state.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"step_000004 refused: state\.json is missing; step_000002 refused: the bytes"
    ):
        checkpoint.newest(tmp_path)


def test_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) == (None, [])


@pytest.mark.parametrize("target", ["mkdir", "rename", "write_text"])
def test_failed_save_leaves_the_last_good_checkpoint_and_no_remains(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, target, full)
    with pytest.raises(RunFolderError, match=r"step_000004 could not be written: No space left on device.*--resume"):
        save(tmp_path, 4)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert checkpoint.newest(tmp_path) == (tmp_path / "step_000002", [])


def test_saving_a_step_again_replaces_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 2, 4)
    _flip(tmp_path / "step_000004/model.safetensors")
    save(tmp_path, 4)
    assert checkpoint.newest(tmp_path) == (tmp_path / "step_000004", [])


def test_too_little_space_is_refused_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 41, 59))
    checkpoint.require_space(tmp_path, 26)
    with pytest.raises(RunFolderError, match=r"got 0 MB: free some space"):
        checkpoint.require_space(tmp_path, 27)
    with pytest.raises(RunFolderError):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_text_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last"
    checkpoint.publish_text(target, "one")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunFolderError, match="last could not be written: Input/output error"):
        checkpoint.publish_text(target, "two")
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


def test_exported_encoder_gives_the_same_features(tmp_path: Path) -> None:
    grey = Input(
        name="photograph",
        bands=("grey",),
        patch=(4, 4),
        size=(8, 8),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    encoder = ViTSpec(contract=Contract(inputs=(grey,)), width=8, depth=1, heads=2).build().eval()
    checkpoint.export_encoder(encoder, tmp_path / "encoder", about={"step": 7})
    facts = json.loads((tmp_path / "encoder/config.json").read_text())
    assert facts["about"] == {"step": 7}
    assert facts["digests"] == {"model.safetensors": file_digest(tmp_path / "encoder/model.safetensors")}

    loaded = load_encoder(tmp_path)
    images = torch.rand(2, 1, 8, 8)
    assert loaded.contract == encoder.contract
    with torch.no_grad():
        batch, _ = encoder.prepare(loaded._batch(images))
        assert torch.equal(loaded(images), encoder.features(batch, "mean"))


def test_a_folder_within_a_folder_is_published_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    for name in ("_sync_file", "_sync_folder"):
        monkeypatch.setattr(checkpoint, name, lambda path: flushed.append(path.name))

    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner/weights").write_text("1")

    checkpoint.publish_folder(tmp_path / "run", write)
    assert (tmp_path / "run/inner/weights").read_text() == "1"
    assert {"inner", "weights"} <= set(flushed)


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse_the_new_one(path: Path, target: Path) -> Path:
        if ".tmp-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    publish = lambda text: checkpoint.publish_folder(  # noqa: E731
        tmp_path / "encoder", lambda folder: (folder / "weights").write_text(text)
    )
    publish("one")
    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(RunFolderError, match="encoder could not be written: Input/output error"):
        publish("two")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    assert (tmp_path / "encoder/weights").read_text() == "one"
