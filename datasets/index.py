"""Building a manifest: find the images, decode each once (the integrity check), take facts, groups, splits and labels.

Paths may be folders, class-per-folder trees, single images, stores, lists (CSV or Parquet with a `file` column relative
to the list) and manifests written before, mixed. Whatever is wrong with the collection is said here, before any training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, nearest
from datasets.collect import Entry, gather, refuse_repeats, require_files
from datasets.examine import Examined, Progress, examine_all
from datasets.manifest import Manifest, split_groups
from datasets.readers import configured
from datasets.readers.base import Reader

__all__ = ["Manifest", "build_manifest", "split_groups"]

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")  # no leading zeros: "007" is a name
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)


def build_manifest(
    paths: Sequence[str | Path],
    *,
    label: str | None = None,
    group: str | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    readers: tuple[Reader, ...] = (),
    options: Sequence[str] = (),
    allow_outside: bool = False,
    journal: Path | None = None,
) -> Manifest:
    """Look at every image of a collection and write down what it is.

    Folders are searched recursively for names that a reader accepts and for folders that are one image; other files,
    hidden ones and `__MACOSX` are passed over. When all images of a folder are of one rank and lie exactly one folder
    deep, in two or more folders, the folder's name becomes the label column `class`. All columns of a list are kept:
    `group` and `split` have their meaning, the others are labels, whole numbers, real numbers or text. The group of an
    image is the column `group` (or the one you name), else the image itself. A manifest is taken as it is, without
    reading its images again, and so is a folder that holds one as `manifest.parquet`.

    Args:
        paths: folders, images, lists or manifests.
        label: a label column that must exist and be complete.
        group: the list's column that names the unit that must not be split.
        progress: called with (done, total) after each image, in this thread.
        workers: threads that decode; default one per available core.
        readers: readers with options; default all of them with their defaults.
        options: the same as text, such as `nifti.affine=sform`; kept in the manifest, so that images are opened again
            as they were checked.
        allow_outside: accept links and lists that lead out of the folder that they are in.
        journal: file that examined images are noted in, so that an interrupted call goes on where it was.

    Raises:
        MissingDataError: a path does not exist.
        ConfigError: no column is called `label` or `group`; the message names the nearest.
        UnsafeError: an image lies outside the folder that was named.
        DataError: no image is found, images cannot be read (all are named), or a list is inconsistent.
    """
    chosen = _chosen(readers, options)
    entries, manifests = gather(paths, chosen, allow_outside=allow_outside)
    require_files(entries)
    refuse_repeats(entries, manifests)
    names = dict.fromkeys(name for entry in entries for name in entry.said)
    if group is not None and not manifests and group not in names:
        raise ConfigError(f"{_sources(paths)}: no column is called '{group}' for the groups: {nearest(group, names)}")
    built = []
    if entries:
        for entry in entries:
            entry.safe()
        results = examine_all(entries, chosen, workers=workers, progress=progress, journal=journal)
        _refuse_failures(entries, results)
        built = [assemble(entries, [result.facts or {} for result in results], group)]
    manifest = joined([*manifests, *built])
    for text in divided_groups(manifest).values():
        raise DataError(text)
    if label is not None:
        if label not in manifest.label_names:
            hint = nearest(label, manifest.label_names)
            raise ConfigError(f"{_sources(paths)}: no label column is called '{label}': {hint}")
        manifest.labels(label)
    return manifest


def assemble(entries: Sequence[Entry], facts: Sequence[dict[str, Any]], group: str | None) -> Manifest:
    """Make the table: facts, groups, splits, typed labels, and folders as classes.

    Raises:
        DataError: an image has no group where its list has a column of groups.
    """
    columns: dict[str, Any] = {name: [fact[name] for fact in facts] for name in facts[0]}
    places = [_place(entry) for entry in entries]
    columns["root"] = [str(root) for root, _ in places]
    columns["file"] = [file for _, file in places]
    columns["group"] = _groups(entries, group)
    columns["split"] = [None if (said := entry.said.get("split")) is None else str(said) for entry in entries]
    names = dict.fromkeys(name for entry in entries for name in entry.said if name not in ("group", "split"))
    for name in names:
        columns[name] = _typed([entry.said.get(name) for entry in entries])
    classes = _classes(entries, facts)
    if classes is not None and "class" not in columns:
        columns["class"] = classes
    return Manifest.of(columns)


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """Put manifests one after the other; a label that one of them lacks is missing in its rows.

    Raises:
        DataError: a label is of different types in two of them.
    """
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


def divided_groups(manifest: Manifest) -> dict[str, str]:
    """Find the groups that are in more than one split, each with a sentence that names two of its images."""
    import numpy as np

    group, names = manifest.codes("group")
    split, splits = manifest.codes("split")
    pairs, first = np.unique(group.astype(np.int64) * (len(splits) + 1) + split + 1, return_index=True)
    owner = pairs // (len(splits) + 1)
    found = {}
    for number in np.unique(owner[1:][owner[1:] == owner[:-1]]):
        one, other = np.sort(first[owner == number])[:2]
        said = [f"'{splits[split[row]] if split[row] >= 0 else None}'" for row in (one, other)]
        found[names[number]] = (
            f"expected each group in one split, but group '{names[number]}' is in {said[0]} ({manifest.path(int(one))}) "
            f"and in {said[1]} ({manifest.path(int(other))}); move one of them, or name the column that tells the groups "
            "apart."
        )
    return found


def _chosen(readers: tuple[Reader, ...], options: Sequence[str]) -> tuple[Reader, ...]:
    if readers and options:
        raise ConfigError("expected readers or options, got both: put the options into the readers.")
    return configured(options) if options else readers


def _sources(paths: Sequence[str | Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _refuse_failures(entries: Sequence[Entry], results: Sequence[Examined]) -> None:
    failures: list[tuple[Path, Exception]] = []
    for entry, result in zip(entries, results, strict=True):
        if result.facts is None:
            failures.append((entry.path, result.error or DataError(result.findings[0].text)))
        for finding in result.findings:
            if finding.code == "no_data":
                failures.append((entry.path, DataError(f"{entry.path}: {finding.text} Remove it.")))
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        others = ", ".join(str(path) for path, _ in failures[1:])
        raise DataError(
            f"{len(failures)} of {len(entries)} images cannot be read: {failures[0][1]} The others: {others}."
        )


def _place(entry: Entry) -> tuple[Path, str]:
    """Root and file of a row: what was allowed to lie outside its root is at home in its own folder, as no row leads out."""
    real = entry.path.resolve() if entry.free else entry.path
    return (entry.root, entry.file) if real.is_relative_to(entry.root.resolve()) else (real.parent, real.name)


def _groups(entries: Sequence[Entry], column: str | None) -> list[str]:
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


def _classes(entries: Sequence[Entry], facts: Sequence[dict[str, Any]]) -> list[str | None] | None:
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
