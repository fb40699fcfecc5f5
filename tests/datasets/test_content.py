"""The identity of images on disk: every byte and name counts, place and time do not, and links cannot lead out."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from core.errors import DamagedError, DataError, MissingDataError, UnsafeError, UnsupportedError
from datasets import content
from datasets.content import digest_of, mtime_of, size_of, stamp_of, unchanged


def store(folder: Path) -> Path:
    (folder / "c" / "0").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "c" / "0" / "0").write_bytes(b"abc")
    (folder / "c" / "0" / "1").write_bytes(b"defg")
    return folder


def test_a_file_is_its_blake2b(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"abc" * 1000)
    assert digest_of(tmp_path / "a.nii") == hashlib.blake2b(b"abc" * 1000, digest_size=32).hexdigest()
    assert size_of(tmp_path / "a.nii") == 3000
    assert mtime_of(tmp_path / "a.nii") == (tmp_path / "a.nii").stat().st_mtime_ns


def test_a_store_is_its_files_wherever_it_lies(tmp_path: Path) -> None:
    here = store(tmp_path / "a.zarr")
    there = tmp_path / "elsewhere" / "b.zarr"
    shutil.copytree(here, there)
    os.utime(there / "zarr.json", ns=(1, 1))
    assert digest_of(there) == digest_of(here)
    assert size_of(here) == 9
    os.utime(here / "c" / "0" / "1", ns=(4_000_000_000_000_000_000, 4_000_000_000_000_000_000))
    assert stamp_of(here) == (9, 4_000_000_000_000_000_000)


@pytest.mark.parametrize("change", ["content", "name", "added", "removed", "moved between files"])
def test_every_change_of_a_store_changes_its_digest(change: str, tmp_path: Path) -> None:
    folder = store(tmp_path / "a.zarr")
    before = digest_of(folder)
    chunk = folder / "c" / "0" / "0"
    if change == "content":
        chunk.write_bytes(b"abd")
    elif change == "name":
        chunk.rename(folder / "c" / "0" / "2")
    elif change == "added":
        (folder / "c" / "1").write_bytes(b"")
    elif change == "removed":
        chunk.unlink()
    else:
        chunk.write_bytes(b"ab")
        (folder / "c" / "0" / "1").write_bytes(b"cdefg")
    assert digest_of(folder) != before


def test_what_desktops_scatter_is_no_content(tmp_path: Path) -> None:
    folder = store(tmp_path / "a.zarr")
    before = digest_of(folder)
    for name in (".DS_Store", "Thumbs.db", "c/._0"):
        (folder / name).write_text("scattered")
    assert digest_of(folder) == before
    assert size_of(folder) == 9


def test_links_inside_are_followed_and_those_that_leave_refused(tmp_path: Path) -> None:
    folder = store(tmp_path / "a.zarr")
    (tmp_path / "secret").write_text("not yours")
    (folder / "alias").symlink_to(folder / "zarr.json")
    assert size_of(folder) == 11
    (folder / "alias").unlink()
    (folder / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match=r"a\.zarr/out: expected a file of this store, got a link to .*secret"):
        digest_of(folder)
    (folder / "out").unlink()
    (folder / "nowhere").symlink_to(folder / "gone")
    with pytest.raises(DamagedError, match="nowhere: .* got a link to nothing"):
        digest_of(folder)
    (folder / "nowhere").unlink()
    (folder / "folder").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UnsafeError, match="without linked folders"):
        size_of(folder)


def test_a_pipe_in_a_store_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = store(tmp_path / "a.zarr")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnsupportedError, match="pipe: .* got a device or a pipe"):
        digest_of(folder)


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    for ask in (digest_of, size_of, mtime_of):
        with pytest.raises((MissingDataError, FileNotFoundError), match=r"none\.nii"):
            ask(tmp_path / "none.nii")


def test_time_alone_is_decided_by_the_digest_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"abc")
    facts = {"size": 3, "mtime_ns": path.stat().st_mtime_ns, "digest": digest_of(path)}
    calls: list[Path] = []
    monkeypatch.setattr(content, "digest_of", lambda p: calls.append(p) or digest_of(p))
    assert unchanged(path, **facts)
    assert not calls
    os.utime(path, ns=(5, 5))
    assert unchanged(path, **facts)
    assert unchanged(path, **facts)
    assert len(calls) == 1
    path.write_bytes(b"abd")
    assert not unchanged(path, **facts)
    path.write_bytes(b"abcd")
    assert not unchanged(path, **facts)
    assert len(calls) == 2  # another size needs no digest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder = store(tmp_path / "a.zarr")
    (folder / "c").chmod(0)
    try:
        with pytest.raises(DataError, match="permissions"):
            digest_of(folder)
    finally:
        (folder / "c").chmod(0o755)
