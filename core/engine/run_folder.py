"""The run folder: who may write it, what is refused, and the records every run keeps. Weights are `core.checkpoint`.

One writer at a time: the file `lock` is held with flock, which the system gives back however the process ends. Existing
folders are refused unless a run is to be continued (the same half of the config that decides results) or overwritten.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from core.checkpoint import publish_text
from core.config import differences, dump, load, to_dict
from core.engine.config import what
from core.engine.distributed import World
from core.engine.environment import environment
from core.errors import ConfigError, RunFolderError

_LOCK = "lock"
_MARKS = {"config.yaml", "env.json", _LOCK}  # a folder with these three was made here


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process may write, through rank 0.

    Attributes:
        path: the folder.
        resuming: a run is being continued.
        drift: `env.json` entries that are no longer true, as `name: before -> now`; empty for a new run.
    """

    path: Path
    resuming: bool
    drift: tuple[str, ...] = ()


def check(
    path: Path, config: object | None, *, resume: bool = False, overwrite: bool = False, resumable: bool = True
) -> None:
    """Refuse before any work what `open_run` would refuse after it; leaves nothing behind.

    Without a config (it is not fitted to its data yet) a continued run is not compared with what it began as. What is not
    `resumable` is not told to be continued.

    Raises:
        RunFolderError: exists, does not exist, is no run folder, or cannot be written.
        ConfigError: `resume` with another config than the run's; lists the options that differ.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite deletes it: give one of them.")
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"expected a folder for the run, but {path} is a file: choose another --out.")
    names = {entry.name for entry in _entries(path)} if path.is_dir() else set()
    if resume:
        if "config.yaml" not in names:
            raise RunFolderError(f"expected a run to continue in {path}, found none: leave --resume out to start one.")
        if config is not None:
            _check_same(path, config)
    elif overwrite and names and not (names >= _MARKS or names <= _MARKS):
        raise RunFolderError(
            f"{path} does not look like a run folder (no {', '.join(sorted(_MARKS - names))}) and is not deleted: "
            "choose another --out."
        )
    elif not overwrite and names - {_LOCK}:
        go_on = "continue that run with --resume, " if resumable else ""
        raise RunFolderError(f"{path} exists: {go_on}delete it with --overwrite, or choose another --out.")
    check_writable(path)


@contextmanager
def open_run(
    path: Path, config: object, *, world: World, resume: bool = False, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Make, or take up, a run folder and hold its lock; all ranks enter together and rank 0 acts.

    Raises:
        RunFolderError: as `check`; also when another process is writing it.
        ConfigError: as `check`.
    """
    lock: list[IO[str]] = []

    def enter() -> tuple[str, ...]:
        check(path, config, resume=resume, overwrite=overwrite)
        path.mkdir(parents=True, exist_ok=True)
        lock.append(_take_lock(path))
        try:
            check(path, config, resume=resume, overwrite=overwrite)  # another process may have been faster
            if overwrite:
                _clear(path)
            _remove_leftovers(path)
            return _record(path, config, resume)
        except BaseException:
            lock.pop().close()
            raise

    try:
        drift = world.on_main(enter)
        yield RunFolder(path, resume, drift)
    finally:
        for file in lock:
            file.close()


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError as error:
        raise RunFolderError(f"expected a folder that can be read, but {path}: {error.strerror}.") from None


def _check_same(path: Path, config: object) -> None:
    stored = load(path / "config.yaml")
    stored.pop("how", None)
    changed = differences(stored, what(config))
    if changed:
        raise ConfigError(
            f"expected the options of the run in {path}, but these differ (run -> now): {'; '.join(changed)}: "
            "leave them as they were (only how.* may change), or start a new run with another --out."
        )


def check_writable(path: Path) -> None:
    """Refuse a file or folder that cannot be made; by trying, as permission bits do not tell about read-only mounts and root.

    Raises:
        RunFolderError: so it is.
    """
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".halfseen-", dir=parent)).rmdir()
    except OSError as error:
        raise RunFolderError(
            f"expected to write {path}, but {parent} refuses: {error.strerror}: choose another --out."
        ) from None


def _take_lock(path: Path) -> IO[str]:
    file = (path / _LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise RunFolderError(
            f"{path} is being written by {holder}: wait for it, end it, or choose another --out."
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _clear(path: Path) -> None:
    """Delete all but the lock, the marks last, so that an interrupted deletion can be taken up again."""
    for entry in sorted(_entries(path), key=lambda e: e.name in _MARKS):
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_leftovers(path: Path) -> None:
    """Delete what a killed writer had not published yet."""
    for entry in _entries(path):
        if entry.name.startswith(".") and (".tmp-" in entry.name or ".old-" in entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _record(path: Path, config: object, resume: bool) -> tuple[str, ...]:
    now = environment()
    publish_text(path / "config.yaml", dump(to_dict(config)))
    if resume and (path / "env.json").exists():
        before: dict[str, Any] = json.loads((path / "env.json").read_text(encoding="utf-8"))
        before.pop("started", None)
        return tuple(differences(before, now))
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    publish_text(path / "env.json", json.dumps({"started": started, **now}, indent=2) + "\n")
    return ()
