"""What may be opened: paths that are plain local files inside their root, and archives that cannot climb out of theirs.

Every reader gets its path from here, absolute, so that no library can take it for a URL, a driver prefix or XML.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

from core.errors import BudgetError, DamagedError, UnsafeError, UnsupportedError

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: a URL scheme or a GDAL driver


def local(path: str | Path) -> Path:
    """Give the absolute form of a path that names something on this machine and nothing else.

    Raises:
        UnsafeError: it is a URL, a `/vsi` path, a driver prefix (`NETCDF:...`), XML or holds a null byte.
    """
    text = str(path)
    if text.lstrip().startswith("<") or "\0" in text:
        raise UnsafeError(f"expected the path of a file, got text that is none ({text[:40]!r}).")
    if re.match(r"/+vsi", text):
        raise UnsafeError(
            f"{text}: expected a plain local path, got one of GDAL's virtual file systems; copy the file here."
        )
    if _PREFIX.match(text) and not Path(text).exists():
        raise UnsafeError(
            f"{text}: expected a plain local path, got a URL or a driver prefix; nothing is fetched or opened by "
            "another name, copy the file here and give its path."
        )
    return Path(path).absolute()


def inside(root: Path, path: Path) -> Path:
    """Give `path`, which must not leave `root`, links followed.

    Raises:
        UnsafeError: it does.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise UnsafeError(
            f"{path}: expected a file inside {root}, but it leads to {path.resolve()}; copy it into the root, or allow "
            "paths that leave it."
        )
    return path


def extract(archive: Path, target: Path, *, max_bytes: int = 1 << 40) -> None:
    """Unpack a .zip or .tar(.gz, .bz2, .xz) archive into the folder `target`, which is made.

    Raises:
        UnsafeError: a member would be written outside `target`, or is a device or a link that leads out; nothing of the
            archive is kept in use before all its names are checked.
        BudgetError: its members declare more than `max_bytes` in all.
        DamagedError: it cannot be read.
        UnsupportedError: it is another kind of archive.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, target, max_bytes)
        elif tarfile.is_tarfile(archive):
            _untar(archive, target, max_bytes)
        else:
            raise UnsupportedError(f"{archive}: expected a .zip or .tar archive, its content is another.")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DamagedError(
            f"{archive}: expected a whole archive, but it cannot be read ({error}); copy it again."
        ) from None


def _unzip(archive: Path, target: Path, max_bytes: int) -> None:
    with zipfile.ZipFile(archive) as file:
        _within(archive, sum(entry.file_size for entry in file.infolist()), max_bytes)
        for entry in file.infolist():
            if (
                entry.filename.startswith(("/", "\\"))
                or ".." in Path(entry.filename).parts
                or ":" in entry.filename[:3]
            ):
                raise UnsafeError(f"{archive}: its member '{entry.filename}' would be written outside {target}.")
        file.extractall(target)


def _untar(archive: Path, target: Path, max_bytes: int) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        _within(archive, sum(member.size for member in members), max_bytes)
        target.mkdir(parents=True, exist_ok=True)
        try:
            for member in members:
                tarfile.data_filter(member, str(target))
            file.extractall(target, filter="data")
        except tarfile.FilterError as error:
            raise UnsafeError(f"{archive}: a member would be written outside {target} ({error}).") from None


def _within(archive: Path, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise BudgetError(
            f"{archive}: expected at most {max_bytes / 1e9:g} GB of content, its members declare {total / 1e9:.1f} GB."
        )
