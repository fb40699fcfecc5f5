"""What may be opened: paths that are plain local files inside their root, and archives that cannot climb out of theirs.

Every reader gets its path from here, absolute, so that no library can take it for a URL, a driver prefix or XML.
Archives are unpacked here, member by member: of the names, types, modes and sizes in them nothing is believed.
"""

from __future__ import annotations

import errno
import re
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import BudgetError, DamagedError, DataError, MissingDataError, UnsafeError, UnsupportedError

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9+._-]+:")  # two letters or more: a URL scheme or a GDAL driver
_VIRTUAL = re.compile(r"/+vsi", re.IGNORECASE)
_BLOCK = 512  # of a tar archive
_PIECE = 1 << 20
_AT_ONCE = 16 << 20  # bytes; a tar's extended header is read in one piece and may declare any size
_NO_RATIO = 1 << 30  # bytes of content that any archive may hold: empty label volumes pack 1000 to 1


def local(path: str | Path) -> Path:
    """Give the absolute form of a path that names a file or folder on this machine, or nothing yet.

    Raises:
        UnsafeError: it is empty, a URL, a `/vsi` path, a driver prefix (`NETCDF:...`), XML, holds a null byte, or names a
            device, pipe or socket, on which reading may never end.
    """
    text = str(path)
    if not text or text.lstrip().startswith("<") or "\0" in text:
        raise UnsafeError(f"expected the path of a file, got text that is none ({text[:40]!r}); give a path.")
    absolute = Path(path).absolute()
    if _VIRTUAL.match(text) or _VIRTUAL.match(str(absolute)):  # they differ where the working folder is /
        raise UnsafeError(
            f"{text}: expected a plain local path, got one of GDAL's virtual file systems; copy the file here."
        )
    mode = _mode(absolute)
    if mode is None and _PREFIX.match(text):
        raise UnsafeError(
            f"{text}: expected a plain local path, got a URL or a driver prefix; nothing is fetched or opened by "
            "another name, copy the file here and give its path."
        )
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnsafeError(f"{text}: expected a file or folder, got a device, pipe or socket; copy it into a file.")
    return absolute


def _mode(path: Path) -> int | None:
    """Type and permissions of what is there, links followed; None where there is nothing or nothing can be said."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UnsafeError(f"{str(path)[:80]}...: expected a path, got a name that is too long; give one.") from None
        return None


def inside(root: Path, path: Path, *, optional: bool = False) -> Path:
    """Give `path`, which must not leave `root`, links followed.

    Args:
        root: the folder.
        path: what must lie in it.
        optional: whoever asks could have allowed it to leave, and the message says how.

    Raises:
        UnsafeError: it does, or its links lead in a circle.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise RuntimeError for a circle
        raise UnsafeError(f"{path}: expected a file inside {root}, but its links lead in a circle; mend it.") from None
    if not target.is_relative_to(root.resolve()):
        allow = ", or allow files outside (`--allow-outside`, in Python `allow_outside=True`)" if optional else ""
        raise UnsafeError(
            f"{path}: expected a file inside {root}, but it leads to {target}; copy it into that folder{allow}."
        )
    return path


def extract(
    archive: Path, target: Path, *, max_bytes: int = 1 << 40, max_ratio: int = 200, max_members: int = 2_000_000
) -> None:
    """Unpack a .zip or .tar(.gz, .bz2, .xz) archive into the folder `target`, which must be empty or not exist yet.

    Only plain files and folders are written, with this process's own permissions. `target` appears when all is well; of
    an archive that is refused nothing stays.

    Args:
        archive: the file; its content decides what it is.
        target: the folder.
        max_bytes: most content, in bytes.
        max_ratio: most bytes of content per byte of the archive, where there is more than a gigabyte of content.
        max_members: most files and folders.

    Raises:
        UnsafeError: a member would be written outside `target` or over another, or is a link or a device.
        BudgetError: its members hold, or declare, more than the budgets.
        DamagedError: it cannot be read to its end, or a checksum differs.
        UnsupportedError: it is another kind of archive, encrypted, or packed by an unknown method.
        MissingDataError: there is no such archive.
        DataError: `target` holds something already or cannot be written.
    """
    archive, target = local(archive), local(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{archive}: expected an empty folder to unpack into, {target} is none; name another.")
    if not archive.is_file():
        raise MissingDataError(f"expected an archive, but {archive} does not exist or is a folder.")
    limit = min(max_bytes, max(_NO_RATIO, max_ratio * archive.stat().st_size))
    fresh = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        with _explained(archive, target), archive.open("rb") as file:
            fresh.mkdir(parents=True)
            kind = _unzip if file.read(4) in (b"PK\3\4", b"PK\5\6") else _untar
            file.seek(0)
            kind(file, _Budget(archive, fresh, limit, max_members))
            fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def _explained(archive: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except RuntimeError as error:  # zipfile: encrypted, or a method that it does not know
        raise UnsupportedError(f"{archive}: cannot be unpacked ({error}); unpack it by hand.") from None
    except Exception as error:  # of hostile bytes zipfile and tarfile raise nearly anything, MemoryError included
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{archive}: cannot be unpacked into {target} ({error.strerror}); make room there."
            ) from None
        raise DamagedError(
            f"{archive}: expected a whole archive, but it cannot be read ({error}); copy it again."
        ) from None


@dataclass
class _Budget:
    """Where members go, and what they may still take."""

    archive: Path
    folder: Path
    bytes_left: int
    members_left: int

    def take(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise BudgetError(
                f"{self.archive}: its members hold or declare too many bytes, in all or for its size; remove it, or raise "
                "max_bytes and max_ratio if it is genuine."
            )

    def admit(self, name: str) -> Path:
        """Count a member and say where it goes."""
        self.members_left -= 1
        if self.members_left < 0:
            raise BudgetError(f"{self.archive}: it has too many members; raise max_members if it is genuine.")
        parts = re.split(r"[/\\]", name)
        if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
            raise UnsafeError(f"{self.archive}: its member {name!r} would be written outside the folder; remove it.")
        if "\\" in name or any(ord(letter) < 32 for letter in name):
            raise UnsafeError(f"{self.archive}: its member {name!r} has no plain name; pack it again.")
        return self.folder.joinpath(*parts)

    def refuse(self, name: str, link: bool) -> UnsafeError:
        what = "a link" if link else "a device"
        return UnsafeError(
            f"{self.archive}: its member {name!r} is {what}, not a file or folder; pack it again without."
        )

    def write(self, name: str, place: Path, content: IO[bytes] | None, size: int) -> None:
        """Write a file of exactly `size` bytes, or make a folder where there is no content."""
        try:
            if content is None:
                place.mkdir(parents=True, exist_ok=True)
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out:
                while piece := content.read(_PIECE):
                    self.take(len(piece))
                    size -= len(piece)
                    out.write(piece)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UnsafeError(
                f"{self.archive}: its member {name!r} would be written over another; pack it again."
            ) from None
        if size:
            raise DamagedError(f"{self.archive}: its member {name!r} is not as long as declared; copy it again.")


def _unzip(raw: IO[bytes], budget: _Budget) -> None:
    with zipfile.ZipFile(raw) as file:
        members = [(entry, budget.admit(entry.orig_filename)) for entry in file.infolist()]
        declared = sum(entry.file_size for entry, _ in members)
        budget.take(declared)
        budget.bytes_left += declared  # each is taken when it is written: what is declared may be a lie
        for entry, place in members:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise budget.refuse(entry.filename, kind == stat.S_IFLNK)
            if entry.is_dir():
                budget.write(entry.filename, place, None, 0)
                continue
            with file.open(entry) as content:
                budget.write(entry.filename, place, content, entry.file_size)


def _untar(raw: IO[bytes], budget: _Budget) -> None:
    stream = _Bounded(_inflated(raw), budget)
    try:
        file = tarfile.open(fileobj=stream, mode="r:")  # type: ignore[call-overload]  # it asks for no more than we have
    except tarfile.ReadError:
        raise UnsupportedError(
            f"{budget.archive}: expected a .zip or .tar archive, its content is another; unpack it by hand."
        ) from None
    with file:
        while (member := file.next()) is not None:
            place = budget.admit(member.name)
            if not (member.isdir() or member.isreg()):
                raise budget.refuse(member.name, member.issym() or member.islnk())
            budget.write(member.name, place, None if member.isdir() else file.extractfile(member), member.size)
            file.members.clear()  # it would keep the header of every member
    if stream.last != bytes(_BLOCK):  # tarfile takes a damaged header for the end
        raise DamagedError(f"{budget.archive}: expected a whole archive, but its end is missing; copy it again.")
    while stream.read(_PIECE):  # to where the checksum of the compression is
        pass


def _inflated(raw: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return lzma.LZMAFile(raw) if head == b"\xfd7zXZ\0" else raw


class _Bounded:
    """A stream for tarfile that gives no more at once than a header could need, and remembers the last block."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self.stream, self.budget, self.last = stream, budget, b""

    def read(self, count: int) -> bytes:
        if count > _AT_ONCE:
            raise BudgetError(f"{self.budget.archive}: one of its headers declares {count} bytes; remove it.")
        data = self.stream.read(count)
        self.last = data if count == _BLOCK else self.last
        return data

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()
