"""Finding the images of a collection: folders, class-per-folder trees, stores, lists, manifests and STAC, mixed.

Nothing is decoded here. A folder that is one image as a whole (a Zarr store, a scene of one file per band, a DICOM
series) is found as such, and not searched.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unicodedata import normalize

from core.errors import ConfigError, DataError, MissingDataError, UnsafeError, nearest
from datasets.lists import LISTS, columns_of
from datasets.manifest import Manifest, is_manifest, was_manifest
from datasets.readers import is_image_folder, suffixes
from datasets.readers.base import Reader
from datasets.safety import inside, local
from datasets.stac import is_stac, items_of

MANIFEST = "manifest.parquet"  # a folder that holds one that we wrote is that manifest


@dataclass(frozen=True)
class Entry:
    """One image to be examined.

    Attributes:
        root: folder that the image must lie in.
        file: its path relative to that.
        said: what a list says of it, raw text or typed values, None = missing.
        source: the list that names it, if one does.
        free: it may lie outside `root`, for a person named it, or allowed it.
        options: reader options that a manifest or STAC says it is read with; they stand in for those of the caller.
    """

    root: Path
    file: str
    said: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    free: bool = False
    options: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.file

    def safe(self) -> Path:
        """Where it lies, after making sure that this is inside its root, links followed.

        Raises:
            UnsafeError: it is not, and nobody allowed it.
        """
        if self.free:
            return self.path
        try:
            return inside(self.root, self.path, optional=True)
        except UnsafeError as error:
            raise UnsafeError(f"{self.source}: {error}" if self.source else str(error)) from None


def gather(
    paths: Sequence[str | Path],
    readers: tuple[Reader, ...] = (),
    *,
    exclude: Sequence[str] = (),
    allow_outside: bool = False,
    passed_over: Callable[[Path], None] | None = None,
) -> tuple[list[Entry], list[Manifest]]:
    """List the images that paths name, in the order given, and the manifests among the paths.

    Args:
        paths: folders, images, lists or manifests.
        readers: readers with options; default all of them with their defaults.
        exclude: names that are left out of folders, such as `*_seg.nii.gz` or `labelsTr`: of a file, of a folder on the
            way to it, or its whole path below the folder that is searched.
        allow_outside: accept links and lists that lead out of the folder that they are in.
        passed_over: called with each linked folder that is not searched.

    Raises:
        ConfigError: no path, or an `exclude` that leaves nothing out.
        MissingDataError: a path does not exist; the message names the nearest.
        DataError: a folder without images, an image whose name is not UTF-8, or a list that makes no sense.
    """
    if not paths:
        raise ConfigError("expected at least one path to images, got none.")
    entries: list[Entry] = []
    manifests: list[Manifest] = []
    left_out: Counter[str] = Counter()
    for path in map(local, paths):
        if not path.exists():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise MissingDataError(f"expected images, but {path} does not exist; {nearest(path.name, siblings)}")
        known = path / MANIFEST if path.is_dir() else path
        if known.suffix.lower() == ".parquet" and known.is_file() and _was_manifest(known, strict=not path.is_dir()):
            manifests.append(Manifest.read(known))
        elif is_stac(path):
            entries += _stac(path, readers, allow_outside)
        elif path.is_dir():
            entries += _without(exclude, _folder(path, readers, passed_over=passed_over), left_out)
        elif path.suffix.lower() in LISTS:
            entries += _list(path)
        else:
            entries.append(Entry(path.parent.resolve(), path.name, free=True))
    _refuse_unwritable(entries)
    idle = next((pattern for pattern in exclude if not left_out[pattern]), None)
    if idle is not None:
        raise ConfigError(
            f"--exclude '{idle}' leaves nothing out: no image below the folders that are searched is called so, nor lies in "
            "such a folder. Lists and manifests say themselves what belongs to them. Mend it, or leave it out."
        )
    if exclude and not entries and not manifests:
        raise ConfigError(f"--exclude {' '.join(exclude)} leaves no image; leave fewer out.")
    if allow_outside:
        entries = [replace(entry, free=True) for entry in entries]
    return entries, manifests


def unlisted(
    paths: Sequence[str | Path], manifest_paths: Sequence[Path], readers: tuple[Reader, ...] = ()
) -> list[Path]:
    """List the images that lie in folders of `paths` which a manifest speaks for, and that it does not name."""
    spoken_for = [path for path in map(local, paths) if path.is_dir() and (path / MANIFEST).is_file()]
    known = {os.path.realpath(path) for path in manifest_paths}
    found = [entry.path for folder in spoken_for for entry in _folder(folder, readers, may_be_empty=True)]
    return [path for path in found if os.path.realpath(path) not in known]


def entries_of(manifest: Manifest, *, options: Sequence[str] = (), allow_outside: bool = False) -> list[Entry]:
    """List the images of a manifest again, with all that it says of groups, splits, times, labels and reader options.

    `options` of the caller are added to those of the manifest; where both set the same, the caller's wins.
    """
    names = ("group", "split", "time", *manifest.label_names)
    said = zip(*(manifest.column(name) for name in names), strict=True)
    columns = (manifest.column(name) for name in ("root", "file", "options"))
    return [
        Entry(Path(root), file, dict(zip(names, values, strict=True)), None, allow_outside, (*(own or ()), *options))
        for (root, file, own), values in zip(zip(*columns, strict=True), said, strict=True)
    ]


def require_files(entries: Sequence[Entry]) -> None:
    """Make sure that what lists name is there.

    Raises:
        DataError: a row names something else; the message names list, row and place.
    """
    rows: Counter[Path] = Counter()
    for entry in entries:
        if entry.source is None:
            continue
        rows[entry.source] += 1
        if not entry.file:
            raise DataError(f"{entry.source}: row {rows[entry.source]} names no file; fill it in, or remove the row.")
        if not entry.path.exists() or entry.path == entry.root:
            raise DataError(
                f"{entry.source}: row {rows[entry.source]} names '{entry.file}', which is not at {entry.path}; {_cure(entry)}."
            )


def _cure(entry: Entry) -> str:
    """What to do about a name that nothing has: some look right to people."""
    other = next((form for form in ("NFC", "NFD") if (entry.root / normalize(form, entry.file)).exists()), None)
    if other is not None and entry.path != entry.root:
        return f"a file is there whose name looks the same, but is written in Unicode's form {other}: make them one"
    return "divide folders by '/'" if "\\" in entry.file else "mend the list"


def refuse_repeats(entries: Sequence[Entry], manifests: Sequence[Manifest]) -> None:
    """Make sure that no image is named twice, also under another name of the same file.

    Raises:
        DataError: one is.
    """
    seen: set[str] = set()
    for number, manifest in enumerate(manifests if entries or len(manifests) > 1 else ()):
        paths = list(map(str, manifest.paths))
        twice = next((path for path in paths if path in seen), None) if number else None
        if twice is not None:
            raise DataError(f"{twice} is listed twice, in two manifests; name each image once.")
        seen.update(paths)
    for entry in entries:
        resolved = os.path.realpath(entry.path)
        if resolved in seen:
            where = f"{entry.source}: " if entry.source else ""
            raise DataError(
                f"{where}{entry.path} is listed twice; name each image once (a folder or a list of it, not both)."
            )
        seen.add(resolved)


def _refuse_unwritable(entries: Sequence[Entry]) -> None:
    """Refuse names that are no text, as of archives from systems with another encoding: no table can hold them."""
    for entry in entries:
        try:
            entry.file.encode()
            str(entry.root).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{os.fsencode(entry.path)!r}: expected a name in UTF-8; rename it (such as by convmv -f latin1 -t utf8)."
            ) from None


def _without(exclude: Sequence[str], entries: list[Entry], left_out: Counter[str]) -> list[Entry]:
    """Leave out what a pattern names, and count for each pattern how much that is."""
    kept = []
    for entry in entries:
        names = (entry.file, *Path(entry.file).parts)
        hits = [pattern for pattern in exclude if any(fnmatchcase(name, pattern) for name in names)]
        left_out.update(hits)
        kept += [] if hits else [entry]
    return kept


def _folder(
    folder: Path,
    readers: tuple[Reader, ...],
    *,
    may_be_empty: bool = False,
    passed_over: Callable[[Path], None] | None = None,
) -> list[Entry]:
    if is_image_folder(folder, readers):
        return [Entry(folder.parent.resolve(), folder.name, free=True)]
    accepted = suffixes(readers or None)
    root = folder.resolve()
    found = []

    def refuse(error: OSError) -> None:  # else os.walk passes over what it cannot list, and images are lost silently
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions.") from None

    for place, folders, files in os.walk(root, onerror=refuse):
        inner = [Path(place, name) for name in sorted(folders) if not name.startswith(".") and name != "__MACOSX"]
        images = [path for path in inner if is_image_folder(path, readers)]
        folders[:] = [path.name for path in inner if path not in images]
        if passed_over is not None:  # os.walk lists links to folders and does not enter them
            for path in (path for path in inner if path.is_symlink() and path not in images):
                passed_over(path)
        found += images
        found += [Path(place, name) for name in files if name.lower().endswith(accepted) and not name.startswith(".")]
    if not found and not may_be_empty:
        raise DataError(
            f"{folder}: expected images ({', '.join(dict.fromkeys(accepted))}) in this folder, found none; check the "
            "path, or give a list (.csv or .parquet) with a `file` column."
        )
    return [Entry(root, path.relative_to(root).as_posix()) for path in sorted(found)]


def _stac(path: Path, readers: tuple[Reader, ...], allow_outside: bool) -> list[Entry]:
    """List the items of a STAC file or catalog; each brings the options that join its files."""
    if readers:
        raise ConfigError(
            f"{path}: STAC items say themselves how their files are read, so reader options cannot be given with them; "
            "leave the options out, or name the files instead of the items."
        )
    items = items_of(path, allow_outside=allow_outside)
    return [Entry(item.root, item.file, item.said, item.source, allow_outside, item.options) for item in items]


def _list(path: Path) -> list[Entry]:
    files, columns = columns_of(path)
    root = path.parent.resolve()
    return [
        Entry(root, file, {name: values[number] for name, values in columns.items()}, path)
        for number, file in enumerate(files)
    ]


def _was_manifest(path: Path, *, strict: bool) -> bool:
    """Say whether a Parquet file is a manifest of any version; one that cannot be read is an error where it was named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: expected a Parquet {'list' if strict else 'manifest'}, but it cannot be read ({error}); write it "
            "again."
        ) from None
    return was_manifest(schema) or is_manifest(schema)
