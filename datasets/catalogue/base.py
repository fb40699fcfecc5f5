"""What the catalogue says of a public data set, and how its published layout becomes a list of images.

An entry is one file in this folder: a frozen `Entry` called ENTRY whose two functions know the layout. `find` reads it
through a `Place`, whose every refusal says what was expected, where to get it and how to lay it out; `example` writes a
miniature of it, by which the exam (`datasets.testing.catalogue_contract`) judges the entry.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path
from textwrap import dedent
from typing import Literal

from core.errors import DataError, MissingDataError, RunFolderError, nearest
from datasets.image import Flag
from datasets.publishing import published

Domain = Literal["retina", "radiology", "pathology", "satellite"]
Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Under what terms the images come.

    Attributes:
        name: SPDX identifier, else the name of the terms.
        commercial: whether commercial use is allowed; None = the terms do not say, or could not be verified.
        registration: what must be done before the download; "" = nothing.
    """

    name: str
    commercial: bool | None
    registration: str = ""


@dataclass(frozen=True, kw_only=True)
class Citation:
    """What to cite; `doi` and `arxiv` are "" where there is none or none could be verified."""

    authors: str
    title: str
    year: int
    doi: str = ""
    arxiv: str = ""

    def __str__(self) -> str:
        """One line."""
        ends = [f"doi:{self.doi}"] * bool(self.doi) + [f"arXiv:{self.arxiv}"] * bool(self.arxiv)
        return f"{self.authors}: {self.title} ({self.year}). {' '.join(ends)}".strip()


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much it is; None = unknown or not verified."""

    images: int | None
    groups: int | None = None
    gigabytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One image: its path relative to the root, the unit that must not be split, the official split, its labels."""

    file: str
    group: str
    split: str | None = None
    labels: Mapping[str, Value] = field(default_factory=dict)


Found = tuple[Sequence[Row], Sequence[Flag]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One public data set. The name is the stem of the file that defines it.

    Attributes:
        title: for people.
        domain: whose images these are.
        modality: kind of image, bands and spacing, in words.
        licence: the terms.
        citation: what to cite.
        homepage: where to get it.
        labels: label column -> what its values mean; {} = none.
        layout: the tree on disk, one path a line.
        size: images, groups, gigabytes as published.
        traps: what goes wrong when nobody says it; `find` handles what can be handled.
        unverified: facts above that could not be checked against a source.
        options: reader options that the files need, as `build_manifest(options=...)` takes them.
        repeats: files of the same bytes are looked for and put into one group, so that no split can part them.
        find: reads the layout.
        example: writes a miniature of it and gives the rows that `find` must give.
        unpack: writes the single images of a set that packs many into one file, and the list of them; None = not packed.
    """

    title: str
    domain: Domain
    modality: str
    licence: Licence
    citation: Citation
    homepage: str
    labels: Mapping[str, str]
    layout: str
    size: Size
    traps: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    repeats: bool = False
    find: Callable[[Place], Found]
    example: Callable[[Path], Sequence[Row]]
    unpack: Callable[[Place, Path], None] | None = None

    @property
    def name(self) -> str:
        """The stem of the file that defines it."""
        return self.find.__module__.rpartition(".")[2]

    @property
    def tree(self) -> str:
        """The layout without the indent of the source."""
        return dedent(self.layout).strip()

    def locate(self, root: str | Path) -> Listing:
        """Find the images below `root`, where the set was unpacked; no pixel is read.

        Raises:
            MissingDataError: the layout is not there; the message says what was expected, where to get it, how to lay it out.
            DataError: a table of labels cannot be used, or the set must be unpacked first.
        """
        rows, notes = self.find(Place(self, Path(root), Path(root)).checked())
        if self.repeats:
            rows, notes = _without_twins(Path(root), rows, notes)
        return Listing(self, Path(root), rows, notes)

    def unpacked(self, root: str | Path, target: str | Path) -> None:
        """Write the single images of a packed set, and `labels.csv`, into the new folder `target`.

        Raises:
            DataError: the set is not packed.
            MissingDataError: the layout is not there.
            RunFolderError: `target` exists or cannot be written.
        """
        if self.unpack is None:
            raise DataError(f"{root}: {self.name} has one file per image; use `locate`.")
        target = Path(target)
        try:
            target.mkdir(parents=True)
        except OSError as error:
            raise RunFolderError(
                f"{target}: expected a new, writable folder to unpack into ({error.strerror})."
            ) from None
        self.unpack(Place(self, Path(root), Path(root)).checked(), target)


@dataclass(frozen=True)
class Listing:
    """The images of a set as found: rows in a fixed order, and notes on what is unusual about this copy."""

    entry: Entry
    root: Path
    rows: Sequence[Row]
    notes: Sequence[Flag]

    def columns(self, relative_to: Path | None = None) -> dict[str, list[Value]]:
        """The table: file (relative to the root, or to a folder), group, split where the set has one, and labels."""
        move = Path(os.path.relpath(self.root, relative_to)) if relative_to else Path()
        table: dict[str, list[Value]] = {
            "file": [(move / row.file).as_posix() for row in self.rows],
            "group": [row.group for row in self.rows],
        }
        if any(row.split is not None for row in self.rows):
            table["split"] = [row.split for row in self.rows]
        for name in dict.fromkeys(name for row in self.rows for name in row.labels):
            values = [row.labels.get(name) for row in self.rows]
            paths = name.endswith("_file")  # of a label or an annotation, relative to the root as `file` is
            table[name] = [(move / str(value)).as_posix() if paths and value else value for value in values]
        return table

    def write(self, path: str | Path) -> Path:
        """Write the list that `build_manifest` takes; put it into the root, or allow files outside when it is read.

        Raises:
            RunFolderError: the file cannot be written.
        """
        path = Path(path)
        table = self.columns(path.parent.resolve() if path.parent.resolve() != self.root.resolve() else None)
        try:
            with published(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(table)
                writer.writerows(zip(*table.values(), strict=True))
        except OSError as error:
            raise RunFolderError(
                f"{path}: the list cannot be written ({error.strerror}); choose another place."
            ) from None
        return path


@dataclass(frozen=True)
class Place:
    """A folder in which an entry looks for its layout; whatever is missing ends in one kind of message."""

    entry: Entry
    root: Path
    base: Path  # the folder that the person gave; files are named relative to it

    def checked(self) -> Place:
        """Make sure that the folder exists."""
        if not self.root.is_dir():
            raise self.missing(f"the folder {self.root}")
        return self

    def missing(self, what: str) -> MissingDataError:
        """Compose the error for a part of the layout that is not there."""
        entry = self.entry
        first = f" ({entry.licence.registration})" if entry.licence.registration else ""
        return MissingDataError(
            f"{self.root}: expected {entry.title}, but {what} is missing. Get it from {entry.homepage}{first}, unpack it "
            f"and lay it out as:\n{entry.tree}"
        )

    def within(self, *names: str) -> Place:
        """The first of these folders below the root, or the root itself: a parent folder may have been given."""
        return next((replace(self, root=self.root / name) for name in names if (self.root / name).is_dir()), self)

    def has(self, name: str) -> bool:
        """Say whether a file or folder is there."""
        return (self.root / name).exists()

    def path(self, name: str) -> Path:
        """A file or folder that must be there."""
        if not self.has(name):
            raise self.missing(name)
        return self.root / name

    def files(self, folder: str, pattern: str) -> list[Path]:
        """At least one file or folder of this pattern, sorted; hidden ones (`._*` of macOS archives) are left out."""
        found = sorted(path for path in self.path(folder).glob(pattern) if not path.name.startswith("."))
        if not found:
            raise self.missing(f"{folder}/{pattern}")
        return found

    def table(self, name: str, *columns: str, delimiter: str = ",") -> list[dict[str, str]]:
        """Read a table of labels that must have these columns; names and values without the spaces around them."""
        path = self.path(name)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter) if any(line)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: expected a UTF-8 table, but it cannot be read ({error}); get it again.") from None
        head, rows = (lines[0] if lines else []), lines[1:]
        for column in columns:
            if column not in head:
                raise DataError(f"{path}: expected a column '{column}'; {nearest(column, head)}")
        if not rows:
            raise DataError(f"{path}: expected rows below the header, got none; get it again.")
        short = next((number for number, row in enumerate(rows, 2) if len(row) != len(head)), None)
        if short is not None:
            raise DataError(f"{path}: row {short} has not as many cells as the header ({len(head)}); get it again.")
        return [dict(zip(head, row, strict=True)) for row in rows]

    def name(self, path: Path | str) -> str:
        """A path (or one below this place) relative to the folder that the person gave."""
        return (self.root / path).relative_to(self.base).as_posix()

    def named(self, files: Sequence[str], *, table: str) -> None:
        """Make sure that the files (below this place) that a table names are there."""
        gone = [name for name in files if not self.has(name)]
        if gone:
            raise self.missing(f"{gone[0]} ({len(gone)} of {len(files)} images that {table} names)")


def _without_twins(root: Path, rows: Sequence[Row], notes: Sequence[Flag]) -> Found:
    """Put files of the same bytes into one group, so that no split can part them. Only files of equal size are read."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if (root / row.file).is_file():
            sizes[(root / row.file).stat().st_size].append(number)
    same: dict[bytes, list[int]] = defaultdict(list)
    for numbers in sizes.values():
        for number in numbers if len(numbers) > 1 else ():
            with (root / rows[number].file).open("rb") as file:
                same[file_digest(file, "blake2b").digest()].append(number)
    twins = [numbers for numbers in same.values() if len(numbers) > 1]
    if not twins:
        return rows, notes
    groups = _joined(rows, twins)
    files = ", ".join(rows[number].file for number in twins[0])
    text = f"{sum(map(len, twins))} files in {len(twins)} sets are identical ({files}, ...): they share one group."
    return [replace(row, group=groups.get(row.group, row.group)) for row in rows], [*notes, Flag("duplicate", text)]


def _joined(rows: Sequence[Row], twins: Sequence[Sequence[int]]) -> dict[str, str]:
    """Map each group that shares a file with another to one name for all of them."""
    leader: dict[str, str] = {}

    def first(group: str) -> str:
        while leader.get(group, group) != group:
            group = leader[group]
        return group

    for numbers in twins:
        head = first(rows[numbers[0]].group)
        for number in numbers[1:]:
            leader[first(rows[number].group)] = head
    return {row.group: first(row.group) for row in rows}
