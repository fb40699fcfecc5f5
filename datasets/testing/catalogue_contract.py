"""The exam that every entry of the catalogue passes: subclass `CatalogueContract` with a fixture `entry`.

It needs nothing but pytest's `tmp_path`: each entry writes a miniature of its published layout and says which rows must be
found there.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from core.errors import DataError, MissingDataError
from datasets.catalogue.base import Entry, Row
from datasets.image import Flag
from datasets.index import build_manifest
from datasets.manifest import FACTS

_Plain = tuple[str, str, str | None, tuple[tuple[str, str | None], ...]]

_DOI = re.compile(r"10\.\d{4,9}/\S+")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")


class CatalogueContract:
    """Facts, the miniature, refusals, and the list that a manifest is built from."""

    def test_facts_are_complete(self, entry: Entry) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", entry.name)
        assert entry.domain in ("retina", "radiology", "pathology", "satellite")
        assert min(len(text) for text in (entry.title, entry.modality, entry.tree, entry.homepage)) > 4
        assert entry.homepage.startswith(("https://", "http://"))
        assert entry.traps
        assert all(len(trap) > 20 for trap in entry.traps)
        assert entry.size.images is None or entry.size.images >= (entry.size.groups or 1) >= 1
        assert (
            (entry.size.images is not None) or (entry.size.groups is not None) or "number of images" in entry.unverified
        )

    def test_licence_is_named_and_doubt_is_admitted(self, entry: Entry) -> None:
        assert len(entry.licence.name) >= 3
        if re.search(r"\bNC\b", entry.licence.name):
            assert entry.licence.commercial is False
        if re.fullmatch(r"CC-BY(-SA)?-\d\.\d|CC0-1\.0|MIT|Apache-2\.0|CDLA-Permissive-1\.0", entry.licence.name):
            assert entry.licence.commercial is True
        if entry.licence.commercial is None:
            doubt = " ".join((entry.licence.name, *entry.unverified))
            assert re.search(r"not stated|commercial", doubt), "unclear terms must be listed as not verified"

    def test_citation_has_authors_title_year_and_legal_identifiers(self, entry: Entry) -> None:
        cite = entry.citation
        assert cite.authors
        assert len(cite.title) > 8
        assert 1990 <= cite.year <= 2030
        assert not cite.doi or _DOI.fullmatch(cite.doi)
        assert not cite.arxiv or _ARXIV.fullmatch(cite.arxiv)
        assert str(cite).startswith(f"{cite.authors}: {cite.title} ({cite.year})")

    def test_the_miniature_gives_the_rows_that_the_entry_promises(self, entry: Entry, tmp_path: Path) -> None:
        expected = _made(entry, tmp_path / "set")
        assert expected
        found = entry.locate(tmp_path / "set")
        assert [_plain(row) for row in found.rows] == [_plain(row) for row in expected]
        for row in found.rows:
            assert (tmp_path / "set" / row.file).exists()
        text = " ".join(entry.labels)
        assert all(name in text for row in found.rows for name in row.labels), "each label column needs its meaning"
        assert not {name for row in found.rows for name in row.labels} & set(FACTS), "a column of manifests"

    def test_no_group_is_in_two_splits(self, entry: Entry, tmp_path: Path) -> None:
        _made(entry, tmp_path / "set")
        splits: dict[str, set[str | None]] = {}
        for row in entry.locate(tmp_path / "set").rows:
            splits.setdefault(row.group, set()).add(row.split)
        assert all(len(found) == 1 for found in splits.values()), splits

    def test_an_empty_or_absent_folder_says_what_to_do(self, entry: Entry, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for root in (tmp_path / "empty", tmp_path / "absent"):
            with pytest.raises(MissingDataError) as caught:
                entry.locate(root)
            text = str(caught.value)
            assert all(word in text for word in (str(root), entry.title, entry.homepage, entry.tree))
            assert entry.licence.registration in text

    def test_whatever_is_taken_away_is_named_or_gone_from_the_list(self, entry: Entry, tmp_path: Path) -> None:
        root = tmp_path / "set"
        _made(entry, root)
        before = _seen(entry, root)
        assert not isinstance(before, str)
        for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
            path.rename(tmp_path / "away")
            after = _seen(entry, root)
            (tmp_path / "away").rename(path)
            if isinstance(after, str):
                hints = {path.name, path.parent.name, path.suffix} - {""}
                assert any(hint in after for hint in hints), f"{path} is missing, but: {after}"
            elif after == before:
                part = any(path.parent == root / row[0] for row in before[0])  # of an image that is a folder
                assert part or not any(path.name in str(row) for row in before[0]), f"{path} was taken away unnoticed"

    def test_a_missing_part_is_refused(self, entry: Entry, tmp_path: Path) -> None:
        """Of what lies in the upper two levels of the layout, something is needed, and its absence says what to do."""
        root = tmp_path / "set"
        _made(entry, root)
        refusals = []
        for path in sorted([*root.glob("*"), *root.glob("*/*")]):
            path.rename(tmp_path / "away")
            after = _seen(entry, root)
            (tmp_path / "away").rename(path)
            refusals += [after] if isinstance(after, str) else []
        assert any("is missing. Get it from" in text or "unpack" in text for text in refusals)

    def test_the_list_makes_a_manifest(self, entry: Entry, tmp_path: Path) -> None:
        root = tmp_path / "set"
        expected = _made(entry, root)
        path = entry.locate(root).write(root / "list.csv")
        with path.open(newline="") as file:
            assert [line["file"] for line in csv.DictReader(file)] == [row.file for row in expected]
        manifest = build_manifest([path], options=entry.options)
        assert manifest.column("group") == [row.group for row in expected]
        assert manifest.column("split") == [row.split for row in expected]
        assert manifest.column("file") == [row.file for row in expected]

    def test_an_unpacked_set_is_not_unpacked_again(self, entry: Entry, tmp_path: Path) -> None:
        if entry.unpack is not None:
            return
        _made(entry, tmp_path / "set")
        with pytest.raises(DataError, match="one file per image"):
            entry.unpacked(tmp_path / "set", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def _made(entry: Entry, root: Path) -> list[Row]:
    root.mkdir()
    return list(entry.example(root))


def _seen(entry: Entry, root: Path) -> tuple[list[_Plain], list[Flag]] | str:
    """The rows and notes of a folder, or the text of its refusal."""
    try:
        listing = entry.locate(root)
    except (MissingDataError, DataError) as error:
        return str(error)
    return [_plain(row) for row in listing.rows], list(listing.notes)


def _plain(row: Row) -> _Plain:
    labels = tuple(sorted((name, None if value is None else str(value)) for name, value in row.labels.items()))
    return row.file, row.group, row.split, labels
