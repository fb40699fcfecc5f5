"""Building a manifest: find the images, decode each once (the integrity check), take facts, groups, splits and labels.

Paths may be folders, class-per-folder trees, single images, stores, lists (CSV or Parquet with a `file` column relative
to the list) and manifests written before, mixed. Whatever is wrong with the collection is said here, before any training.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, nearest
from datasets.assembling import assemble, divided_groups, joined, regrouped
from datasets.checking.labels import look_like_labels
from datasets.collect import Entry, gather, refuse_repeats, require_files
from datasets.effect import refuse_idle
from datasets.examine import Examined, Progress, examine_all
from datasets.manifest import Manifest, split_groups
from datasets.readers import configured
from datasets.readers.base import Reader

__all__ = ["Manifest", "build_manifest", "split_groups"]

_NAMED = 10  # files of one refusal; `datasets.check` lists all


def build_manifest(
    paths: Sequence[str | Path],
    *,
    label: str | None = None,
    group: str | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    readers: tuple[Reader, ...] = (),
    options: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_outside: bool = False,
    journal: Path | None = None,
) -> Manifest:
    """Look at every image of a collection and write down what it is.

    Folders are searched recursively for names that a reader accepts and for folders that are one image; other files,
    hidden ones and `__MACOSX` are passed over. When all images of a folder are of one rank and lie exactly one folder
    deep, in two or more folders, the folder's name becomes the label column `class`; not where one of the folders is of
    label images, such as `labels` or `masks`. All columns of a list are kept:
    `group`, `split` and `time` (ISO 8601) have their meaning, the others are labels, whole numbers, real numbers or text.
    The group of an image is the column `group` (or the one you name), else the image itself. A manifest is taken as it is,
    without reading its images again, and so is a folder that holds one as `manifest.parquet`: reader options that it was
    made without are refused there. Linked folders, which are not searched, and images that look like labels of others are
    told on standard error.

    Args:
        paths: folders, images, lists or manifests.
        label: a label column that must exist and be complete.
        group: the list's column that names the unit that must not be split.
        progress: called with (done, total) after each image, in this thread.
        workers: threads that decode; default one per available core.
        readers: readers with options; default all of them with their defaults.
        options: the same as text, such as `nifti.affine=sform`; kept in the manifest, so that images are opened again
            as they were checked.
        exclude: names that are left out of folders, as `collect.gather` takes them: `*_seg.nii.gz`, `labelsTr`.
        allow_outside: accept links and lists that lead out of the folder that they are in.
        journal: file that examined images are noted in, so that an interrupted call goes on where it was.

    Raises:
        MissingDataError: a path does not exist.
        ConfigError: no column is called `label` or `group` (the message names the nearest), or an option has no effect.
        UnsafeError: an image lies outside the folder that was named.
        DataError: no image is found, images cannot be read (the first are named), or a list is inconsistent.
    """
    chosen = _chosen(readers, options)
    entries, manifests = found(paths, chosen, options, group, exclude=exclude, allow_outside=allow_outside)
    for entry in entries:
        entry.safe()
    results = examine_all(entries, chosen, workers=workers, progress=progress, journal=journal)
    _refuse_failures(entries, results)
    manifest = put_together(manifests, entries, [result.facts or {} for result in results], group)
    if label is not None:
        if label not in manifest.label_names:
            hint = nearest(label, manifest.label_names)
            raise ConfigError(f"{_sources(paths)}: no label column is called '{label}': {hint}")
        manifest.labels(label)
    return manifest


def found(
    paths: Sequence[str | Path],
    chosen: tuple[Reader, ...],
    options: Sequence[str],
    group: str | None,
    *,
    exclude: Sequence[str],
    allow_outside: bool,
) -> tuple[list[Entry], list[Manifest]]:
    """Find the images of a collection and refuse what makes no sense before any is decoded; as `build_manifest`."""
    linked: list[Path] = []
    entries, manifests = gather(paths, chosen, exclude=exclude, allow_outside=allow_outside, passed_over=linked.append)
    if linked:
        print(
            f"{len(linked)} linked folders are not searched, the first is {linked[0]}: name them beside the others, if they "
            "belong to the collection.",
            file=sys.stderr,
        )
    require_files(entries)
    refuse_repeats(entries, manifests)
    refuse_idle(options, chosen, entries, manifests)
    names = dict.fromkeys(name for entry in entries for name in entry.said)
    names |= dict.fromkeys(name for manifest in manifests for name in ("group", *manifest.label_names))
    if group is not None and group not in names:
        raise ConfigError(f"{_sources(paths)}: no column is called '{group}' for the groups: {nearest(group, names)}")
    return entries, manifests


def put_together(
    manifests: Sequence[Manifest],
    entries: Sequence[Entry],
    facts: Sequence[dict[str, Any]],
    group: str | None,
) -> Manifest:
    """Make one manifest of those that were given and of the images that were examined.

    Raises:
        DataError: a group is in two splits, or an image has none.
    """
    built = [assemble(entries, facts, group)] if entries else []
    manifest = joined([*(regrouped(manifest, group) for manifest in manifests), *built])
    for text in divided_groups(manifest).values():
        raise DataError(text)
    labels = look_like_labels(built[0]) if built else []
    if labels:
        row, why = labels[0]
        print(
            f"{len(labels)} of {len(built[0])} images look like labels of the others, the first is {built[0].path(row)}: {why} "
            "Leave them out with --exclude, if they are.",
            file=sys.stderr,
        )
    return manifest


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
        others = ", ".join(str(path) for path, _ in failures[1:_NAMED])
        more = len(failures) - _NAMED
        rest = f" and {more} more, which `python -m datasets.check` lists" if more > 0 else ""
        raise DataError(
            f"{len(failures)} of {len(entries)} images cannot be read: {failures[0][1]} The others: {others}{rest}."
        )
