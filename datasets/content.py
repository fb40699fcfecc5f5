"""The identity of an image on disk: its size, its time and a digest of its bytes; of a file, or of a folder store.

A folder is all regular files below it, by sorted relative name. Links inside it are followed when they stay inside, and
refused when they leave it: a digest must say what is read. What desktops scatter (`.DS_Store`, `Thumbs.db`, `._*`) is no
content.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from core.errors import DamagedError, DataError, MissingDataError, UnsafeError, UnsupportedError

_BYTES = 32  # of a digest
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

_known: dict[tuple[str, int, int], str] = {}
_lock = threading.Lock()


def size_of(path: Path) -> int:
    """Give the bytes of a file, or of all files of a folder.

    Raises:
        MissingDataError: it is not there.
        DataError: a folder holds a link that leaves it, or something that is no file.
    """
    return stamp_of(path)[0]


def mtime_of(path: Path) -> int:
    """Give the time of the last change in nanoseconds: of a file, or the latest of a folder's files.

    Raises:
        MissingDataError: it is not there.
        DataError: a folder holds a link that leaves it, or something that is no file.
    """
    return stamp_of(path)[1]


def stamp_of(path: Path) -> tuple[int, int]:
    """Give `size_of` and `mtime_of` in one walk."""
    found = [entry for _, entry in _files(path)]
    latest = max((entry.st_mtime_ns for entry in found), default=0) if found else path.stat().st_mtime_ns
    return sum(entry.st_size for entry in found), latest


def digest_of(path: Path) -> str:
    """Give the BLAKE2b-256 digest, in hex, of a file's bytes, or of the sorted names and digests of a folder's files.

    Where it lies and when it was written change nothing. Reads in blocks; memory stays small.

    Raises:
        MissingDataError: it is not there.
        DataError: it cannot be read, or a folder holds a link that leaves it.
    """
    if not path.is_dir():
        return _file_digest(path).hex()
    state = hashlib.blake2b(digest_size=_BYTES)
    for file, _ in _files(path):
        name = file.relative_to(path).as_posix().encode()
        state.update(len(name).to_bytes(8, "little") + name + _file_digest(file))
    return state.hexdigest()


def unchanged(path: Path, *, size: int, mtime_ns: int | None, digest: str) -> bool:
    """Say whether an image is still the one that was written down.

    Another size: no. The same size and time: yes, without reading. The same size and another time, such as after a
    copy: the digest decides, once per process and state of the file.
    """
    now = stamp_of(path)
    if now[0] != size:
        return False
    if now[1] == mtime_ns:
        return True
    name = (str(path), *now)
    found = _known.get(name)
    if found is None:
        found = digest_of(path)
        with _lock:
            _known[name] = found
    return found == digest


def _files(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Give the files of an image with their facts, in the order of their relative names as text."""
    try:
        if not path.is_dir():
            yield path, path.stat()
            return
        found = list(_below(path))
    except FileNotFoundError:
        raise MissingDataError(f"expected an image, but {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror}); check its permissions.") from None
    yield from sorted(found, key=lambda entry: entry[0].relative_to(path).as_posix())


def _below(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(root, onerror=refuse):
        for name in folders:
            if Path(place, name).is_symlink():
                raise UnsafeError(f"{Path(place, name)}: expected a store without linked folders; copy it there.")
        for name in names:
            if name in _JUNK or name.startswith("._"):
                continue
            file = Path(place, name)
            if file.is_symlink():
                _stays(file, root)
            facts = file.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise UnsupportedError(f"{file}: expected a file in this store, got a device or a pipe; remove it.")
            yield file, facts


def _stays(link: Path, root: Path) -> None:
    if not link.exists():
        raise DamagedError(f"{link}: expected a file in this store, got a link to nothing; copy the store again.")
    if not link.resolve().is_relative_to(root.resolve()):
        raise UnsafeError(f"{link}: expected a file of this store, got a link to {link.resolve()}; copy it there.")


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_BYTES)).digest()
    except FileNotFoundError:
        raise MissingDataError(f"expected an image, but {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); copy it again or check its permissions.") from None
