"""From examined images to the table: groups, splits, times, typed labels and folders as classes; and tables put together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import DataError
from datasets.checking.labels import holds_labels
from datasets.collect import Entry
from datasets.manifest import Manifest
from datasets.times import as_time

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)  # no leading zeros: "007" is a name
_REAL = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf)", re.IGNORECASE | re.ASCII)
_LARGEST = 1 << 63  # whole numbers from here on are names, such as accession numbers


def assemble(entries: Sequence[Entry], facts: Sequence[dict[str, Any]], group: str | None) -> Manifest:
    """Make the table: facts, groups, splits, typed labels, and folders as classes.

    Raises:
        DataError: an image has no group where its list has a column of groups, or a time that is none.
    """
    columns: dict[str, Any] = {name: [fact[name] for fact in facts] for name in facts[0]}
    places = [_place(entry) for entry in entries]
    columns["root"] = [str(root) for root, _ in places]
    columns["file"] = [file for _, file in places]
    columns["group"] = _groups(entries, group)
    columns["split"] = [None if (said := entry.said.get("split")) is None else str(said) for entry in entries]
    columns["time"] = [_time(entry, fact) for entry, fact in zip(entries, facts, strict=True)]
    names = dict.fromkeys(name for entry in entries for name in entry.said if name not in ("group", "split", "time"))
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


def regrouped(manifest: Manifest, group: str | None) -> Manifest:
    """Take the groups of a manifest from another of its columns, where it has that.

    Raises:
        DataError: an image has no value there.
    """
    if group in (None, "group") or group not in manifest.label_names:
        return manifest
    values = manifest.column(group)
    if None in values:
        raise DataError(f"{manifest.path(values.index(None))} has no '{group}'; every image needs its group.")
    return manifest.with_column("group", list(map(str, values)))


def _time(entry: Entry, fact: dict[str, Any]) -> str | None:
    """When an image was taken: what its list says, else what its file says."""
    said = entry.said.get("time")
    try:
        return fact.get("time") if said is None else as_time(said)
    except ValueError:
        raise DataError(
            f"{entry.source or entry.path}: {entry.file} has the time '{said}', expected ISO 8601 such as 2020-08-23T10:15:00Z "
            "or 2020-08-23; mend it, or rename the column if it means something else."
        ) from None


def _place(entry: Entry) -> tuple[Path, str]:
    """Root and file of a row: what was allowed to lie outside its root is at home in its own folder, as no row leads out."""
    real = entry.path.resolve() if entry.free else entry.path
    return (entry.root, entry.file) if real.is_relative_to(entry.root.resolve()) else (real.parent, real.name)


def _groups(entries: Sequence[Entry], column: str | None) -> list[str]:
    """The group of each image: what the column says, else the image itself."""
    column = column or "group"
    groups = []
    for entry, name in zip(entries, _own_names(entries), strict=True):
        said = entry.said.get(column, name)
        if said is None:
            raise DataError(f"{entry.source}: {entry.file} has no '{column}'; every image needs its group.")
        groups.append(str(said))
    return groups


def _own_names(entries: Sequence[Entry]) -> list[str]:
    """Call each image by its file without suffix, and by as many folders above it as it takes to tell all apart."""
    names = [re.sub(r"(\.nii)?\.[^./]+$", "", entry.file) for entry in entries]
    for above in range(1, max((len(entry.root.parts) for entry in entries), default=0) + 1):
        times = Counter(names)
        if len(times) == len(names):
            break
        names = [
            name if times[name] == 1 else "/".join((*entry.root.parts[-above:], entry.file))
            for name, entry in zip(names, entries, strict=True)
        ]
    return names


def _classes(entries: Sequence[Entry], facts: Sequence[dict[str, Any]]) -> list[str | None] | None:
    """Folder names as classes, for each root whose images lie one folder deep in two folders or more.

    Where one of those folders is of labels, as in `images/` and `labels/`, they are not.
    """
    classes: list[str | None] = [None] * len(entries)
    for root in dict.fromkeys(entry.root for entry in entries if entry.source is None):
        rows = [row for row, entry in enumerate(entries) if entry.root == root and entry.source is None]
        parts = [Path(entries[row].file).parts for row in rows]
        bands: dict[str, set[int]] = {}
        for row, part in zip(rows, parts, strict=True):
            bands.setdefault(part[0], set()).add(facts[row]["shape"][0])
        if (
            all(len(part) == 2 for part in parts)
            and len(bands) > 1
            and len({facts[row]["ndim"] for row in rows}) == 1
            and not any(holds_labels(folder) and found == {1} for folder, found in bands.items())
        ):
            for row, part in zip(rows, parts, strict=True):
                classes[row] = part[0]
    return classes if any(classes) else None


def _typed(values: list[Any]) -> list[Any]:
    """One type for a column: whole numbers if all are, else real numbers if all are, else text; None stays None.

    `nan` is missing among numbers, and a text among texts.
    """
    texts = [None if value is None else str(int(value)) if isinstance(value, bool) else str(value) for value in values]
    numbers = [None if text is None or text.lower() == "nan" else text for text in texts]
    given = [text for text in numbers if text is not None]
    cast: Callable[[Any], Any]
    if all(map(_whole, given)):
        cast = int
    elif all(map(_real, given)):
        cast = float
    else:
        return [None if value is None else str(value) for value in values]
    return [None if text is None else cast(text) for text in numbers]


def _whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and -_LARGEST <= int(text) < _LARGEST


def _real(text: str) -> bool:
    """Whether a text is a number and nobody's name: neither `007` nor a number of 19 digits."""
    if _WHOLE.fullmatch(text) is not None:
        return _whole(text)
    return _REAL.fullmatch(text) is not None and re.fullmatch(r"[+-]?0\d+", text) is None
