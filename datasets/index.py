"""Building a manifest: find the images, decode each once (the integrity check), take facts, groups, splits and labels.

Paths may be folders, class-per-folder trees, single images, lists (CSV or Parquet with a `file` column relative to the
list) and manifests written before, mixed. Whatever is wrong with the collection is said here, before any training.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, DataError, HalfseenError, MissingDataError, nearest
from core.preprocess import measure
from datasets.manifest import FACTS, Manifest, is_manifest, split_groups
from datasets.readers import open_image, suffixes
from datasets.readers.base import Reader

__all__ = ["Manifest", "build_manifest", "split_groups"]

Progress = Callable[[int, int], None]

_LISTS = (".csv", ".parquet")
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")  # no leading zeros: "007" is a name
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)


@dataclass(frozen=True)
class _Entry:
    """One image to be examined: where it is, and what a list says of it (raw text or typed values, None = missing)."""

    root: Path
    file: str
    said: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def path(self) -> Path:
        return self.root / self.file


def build_manifest(
    paths: Sequence[str | Path],
    *,
    label: str | None = None,
    group: str | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    readers: tuple[Reader, ...] = (),
) -> Manifest:
    """Look at every image of a collection and write down what it is.

    Folders are searched recursively for names that a reader accepts; other files, hidden ones and `__MACOSX` are passed
    over. When all images of a folder are of one rank and lie exactly one folder deep, in two or more folders, the
    folder's name becomes the label column `class`. All columns of a list are kept: `group` and `split` have their
    meaning, the others are labels, whole numbers, real numbers or text. The group of an image is the column `group`
    (or the one you name), else the image itself.

    Args:
        paths: folders, images, lists or manifests.
        label: a label column that must exist and be complete.
        group: the list's column that names the unit that must not be split.
        progress: called with (done, total) after each image, in this thread.
        workers: threads that decode; default one per available core.
        readers: readers with options; default all of them with their defaults.

    Raises:
        MissingDataError: a path does not exist.
        ConfigError: no column is called `label` or `group`; the message names the nearest.
        DataError: no image is found, images cannot be read (all are named), or a list is inconsistent.
    """
    if not paths:
        raise ConfigError("expected at least one path to images, got none.")
    entries, manifests = [], []
    for path in map(Path, paths):
        if not path.exists():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise MissingDataError(f"expected images, but {path} does not exist; {nearest(path.name, siblings)}")
        if path.is_dir():
            entries += _folder(path, readers)
        elif path.suffix.lower() not in _LISTS:
            entries.append(_Entry(path.parent.resolve(), path.name))
        elif path.suffix.lower() == ".parquet" and _is_manifest_file(path):
            manifests.append(Manifest.read(path))
        else:
            entries += _list(path)
    _refuse_duplicates(entries, manifests)
    names = dict.fromkeys(name for entry in entries for name in entry.said)
    if group is not None and not manifests and group not in names:
        raise ConfigError(f"{_sources(paths)}: no column is called '{group}' for the groups: {nearest(group, names)}")
    built = [_assemble(entries, _examine(entries, readers, workers, progress), group)] if entries else []
    manifest = _joined([*manifests, *built])
    _refuse_divided_groups(manifest)
    if label is not None:
        if label not in manifest.label_names:
            hint = nearest(label, manifest.label_names)
            raise ConfigError(f"{_sources(paths)}: no label column is called '{label}': {hint}")
        manifest.labels(label)
    return manifest


def _sources(paths: Sequence[str | Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _folder(folder: Path, readers: tuple[Reader, ...]) -> list[_Entry]:
    accepted = suffixes(readers or None)
    root = folder.resolve()
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        found += [Path(place, name) for name in files if name.lower().endswith(accepted) and not name.startswith(".")]
    if not found:
        raise DataError(
            f"{folder}: expected images ({', '.join(accepted)}) in this folder, found none; check the path, or give "
            "a list (.csv or .parquet) with a `file` column."
        )
    return [_Entry(root, path.relative_to(root).as_posix()) for path in sorted(found)]


def _list(path: Path) -> list[_Entry]:
    """Read a list: a CSV or Parquet table whose `file` column is relative to where the list lies."""
    columns = _parquet_columns(path) if path.suffix.lower() == ".parquet" else _csv_columns(path)
    if "file" not in columns:
        raise DataError(
            f"{path}: expected a column `file` with paths relative to this list; {nearest('file', columns)}"
        )
    reserved = sorted(set(columns) & set(FACTS) - {"file", "group", "split"})
    if reserved:
        raise DataError(f"{path}: the column '{reserved[0]}' has a meaning of its own in manifests; rename it.")
    files = columns.pop("file")
    if not files:
        raise DataError(f"{path}: expected at least one row, got an empty list.")
    root = path.parent.resolve()
    entries = []
    for number, file in enumerate(files):
        if not file or not (root / str(file)).is_file():
            raise DataError(
                f"{path}: row {number + 1} names '{file}', which is not at {root / str(file or '')}; mend the list."
            )
        said = {name: values[number] for name, values in columns.items()}
        entries.append(_Entry(root, str(file), said, path))
    return entries


def _csv_columns(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a UTF-8 CSV list, but it cannot be read ({error}); save it again.") from None
    if not lines:
        raise DataError(f"{path}: expected a CSV list with a header line, got an empty file.")
    header, *rows = lines
    names = [name.strip() for name in header]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: expected each column once, but '{twice[0]}' occurs twice; rename one.")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise DataError(
                f"{path}: row {number + 1} has {len(row)} fields, the header has {len(names)}; mend the list."
            )
    return {name: [row[i].strip() or None for row in rows] for i, name in enumerate(names)}


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet list, but it cannot be read ({error}); write it again.") from None
    return {name: table[name].to_pylist() for name in table.column_names}


def _is_manifest_file(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return is_manifest(pq.read_schema(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet list, but it cannot be read ({error}); write it again.") from None


def _refuse_duplicates(entries: Sequence[_Entry], manifests: Sequence[Manifest]) -> None:
    seen: set[str] = {str(path) for manifest in manifests for path in manifest.paths}
    for entry in entries:
        resolved = os.path.realpath(entry.path)
        if resolved in seen:
            where = f"{entry.source}: " if entry.source else ""
            raise DataError(
                f"{where}{entry.path} is listed twice; name each image once (a folder or a list of it, not both)."
            )
        seen.add(resolved)


def _examine(
    entries: Sequence[_Entry], readers: tuple[Reader, ...], workers: int | None, progress: Progress | None
) -> list[dict[str, Any]]:
    """Decode every image once, in threads; all that fail are named in one error."""

    def look(entry: _Entry) -> dict[str, Any] | HalfseenError:
        try:
            return _facts(entry.path, readers)
        except HalfseenError as error:
            return error

    facts, failures = [], []
    pool = ThreadPoolExecutor(workers or _cores())
    try:
        for done, result in enumerate(pool.map(look, entries), start=1):
            if isinstance(result, HalfseenError):
                failures.append((entries[done - 1].path, result))
            else:
                facts.append(result)
            if progress is not None:
                progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt must not wait for a million images
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        others = ", ".join(str(path) for path, _ in failures[1:])
        raise DataError(
            f"{len(failures)} of {len(entries)} images cannot be read: {failures[0][1]} The others: {others}."
        )
    return facts


def _cores() -> int:
    """Cores that this process may use, not those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _facts(path: Path, readers: tuple[Reader, ...]) -> dict[str, Any]:
    image = open_image(path, *readers)
    voxels = image.read()
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    if image.ndim == 3:
        finite = np.isfinite(voxels).all(axis=0)
        if not finite.any():
            raise DataError(f"{path}: expected measured voxels, but none of them is finite; remove it.")
        mean, std = measure(voxels, finite)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
    return {
        "ndim": image.ndim,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "spacing": list(image.spacing.values),
        "unit": image.spacing.unit,
        "bands": list(image.bands),
        "mean": None if mean is None else mean.tolist(),
        "std": None if std is None else std.tolist(),
        "bytes": path.stat().st_size,
        "digest": digest,
    }


def _assemble(entries: Sequence[_Entry], facts: Sequence[dict[str, Any]], group: str | None) -> Manifest:
    columns: dict[str, Any] = {name: [fact[name] for fact in facts] for name in facts[0]}
    columns["root"] = [str(entry.root) for entry in entries]
    columns["file"] = [entry.file for entry in entries]
    columns["group"] = _groups(entries, group)
    columns["split"] = [None if (said := entry.said.get("split")) is None else str(said) for entry in entries]
    names = dict.fromkeys(name for entry in entries for name in entry.said if name not in ("group", "split"))
    for name in names:
        columns[name] = _typed([entry.said.get(name) for entry in entries])
    classes = _classes(entries, facts)
    if classes is not None and "class" not in columns:
        columns["class"] = classes
    return Manifest.of(columns)


def _groups(entries: Sequence[_Entry], column: str | None) -> list[str]:
    """The group of each image: what the column says, else its path without suffix, told apart by root where needed."""
    column = column or "group"
    alone = [re.sub(r"(\.nii)?\.[^./]+$", "", entry.file) for entry in entries]
    times = Counter(alone)
    groups = []
    for entry, name in zip(entries, alone, strict=True):
        if column in entry.said:
            said = entry.said[column]
            if said is None:
                raise DataError(f"{entry.source}: {entry.file} has no '{column}'; every image needs its group.")
            groups.append(str(said))
        else:
            groups.append(name if times[name] == 1 else f"{entry.root.name}/{entry.file}")
    return groups


def _classes(entries: Sequence[_Entry], facts: Sequence[dict[str, Any]]) -> list[str | None] | None:
    """Folder names as classes, for each root whose images lie one folder deep in two folders or more."""
    classes: list[str | None] = [None] * len(entries)
    for root in dict.fromkeys(entry.root for entry in entries if entry.source is None):
        rows = [row for row, entry in enumerate(entries) if entry.root == root and entry.source is None]
        parts = [Path(entries[row].file).parts for row in rows]
        folders = {part[0] for part in parts}
        if (
            all(len(part) == 2 for part in parts)
            and len(folders) > 1
            and len({facts[row]["ndim"] for row in rows}) == 1
        ):
            for row, part in zip(rows, parts, strict=True):
                classes[row] = part[0]
    return classes if any(classes) else None


def _typed(values: list[Any]) -> list[Any]:
    """One type for a column: whole numbers if all are, else real numbers if all are, else text; None stays None."""
    given = [value for value in values if value is not None]
    texts = [str(int(value)) if isinstance(value, bool) else str(value) for value in given]
    if all(_WHOLE.fullmatch(text) for text in texts):
        cast: Callable[[Any], Any] = int
    else:
        cast = float if all(_REAL.fullmatch(text) for text in texts) and not any(map(_padded, texts)) else str
    return [None if value is None else cast(value) for value in values]


def _padded(text: str) -> bool:
    return re.fullmatch(r"0\d+", text) is not None


def _joined(manifests: Sequence[Manifest]) -> Manifest:
    if len(manifests) == 1:
        return manifests[0]
    import pyarrow as pa

    try:
        table = pa.concat_tables([manifest.table for manifest in manifests], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"expected manifests whose label columns agree in type, got ones that do not ({error})."
        ) from None
    return Manifest(table)


def _refuse_divided_groups(manifest: Manifest) -> None:
    """A group may be in one split only."""
    where: dict[str, tuple[str | None, Path]] = {}
    for group, split, path in zip(manifest.column("group"), manifest.column("split"), manifest.paths, strict=True):
        before, first = where.setdefault(group, (split, path))
        if before != split:
            raise DataError(
                f"expected each group in one split, but group '{group}' is in '{before}' ({first}) and in '{split}' "
                f"({path}); move one of them, or name the column that tells the groups apart."
            )
