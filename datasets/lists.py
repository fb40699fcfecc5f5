"""Lists: CSV and Parquet tables whose column `file` names images, and whose other columns say something of them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from core.errors import DataError, nearest
from datasets.manifest import FACTS

LISTS = (".csv", ".parquet")
_SAID = {"file", "group", "split", "time"}  # facts that a list may say


def columns_of(path: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """Read a list: its files, relative to where it lies, and its other columns, None = missing.

    Raises:
        DataError: it cannot be read, has no row or no column `file`, or one that means something else in manifests.
    """
    columns = _parquet_columns(path) if path.suffix.lower() == ".parquet" else _csv_columns(path)
    if "file" not in columns:
        raise DataError(
            f"{path}: expected a column `file` with paths relative to this list; {nearest('file', columns)}"
        )
    reserved = sorted(set(columns) & set(FACTS) - _SAID)
    if reserved:
        raise DataError(f"{path}: the column '{reserved[0]}' has a meaning of its own in manifests; rename it.")
    files = columns.pop("file")
    if not files:
        raise DataError(f"{path}: expected at least one row, got an empty list.")
    return [str(file or "") for file in files], columns


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
