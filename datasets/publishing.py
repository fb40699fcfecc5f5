"""Drafts and their publication: a result appears under its name complete and on disk, or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENDING = ".halfseen-draft"


def draft_of(path: Path) -> Path:
    """A name beside `path` that nobody uses; hidden, and recognised by `sweep`."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_ENDING}")


def spool_of(draft: Path) -> Path:
    """The folder for what must wait while a draft is written."""
    return draft.with_name(f"{draft.name.removesuffix(_ENDING)}.spool{_ENDING}")


def publish(draft: Path, path: Path) -> None:
    """Bring a draft, a file or a folder, to disk and give it its name; what had that name is replaced.

    A file is replaced in one step, and takes the place of no folder. A folder that is replaced is away for the moment
    between two renames.
    """
    for folder, _, files in os.walk(draft):
        for name in files:
            _to_disk(Path(folder, name))
        _to_disk(Path(folder))
    if draft.is_file():
        _to_disk(draft)
    if draft.is_dir() and path.is_dir():  # a file never takes the place of a folder
        old = draft_of(path)
        path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            old.rename(path)
            raise
        remove(old)
    else:
        draft.replace(path)
    _to_disk(path.parent)


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a name to write under; what is there when the block ends takes the place of `path`, all of it or nothing."""
    draft = draft_of(path)
    try:
        yield draft
        publish(draft, path)
    finally:
        remove(draft)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left under `folder`; only for who knows that no writer is at work there."""
    for place, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.endswith(_ENDING)]:
            remove(Path(place, name))
        folders[:] = [name for name in folders if not name.endswith((_ENDING, ".zarr"))]


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
