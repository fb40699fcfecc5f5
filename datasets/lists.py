"""Lists: CSV and Parquet tables whose column `file` names images, and whose other columns say something of them."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import DataError, nearest
from datasets.manifest import FACTS

if TYPE_CHECKING:
    import pyarrow as pa

LISTS = (".csv", ".parquet")
_SAID = {"file", "group", "split", "time"}  # facts that a list may say


def columns_of(path: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """Read a list: its files, relative to where it lies, and its other columns.

    Texts lose the space around them. None = missing: an empty text, a null, and NaN of a column of real numbers.

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
    plain = {name: [_plain(value) for value in values] for name, values in columns.items()}
    files = plain.pop("file")
    if not files:
        raise DataError(f"{path}: expected at least one row, got an empty list.")
    _check_splits(path, plain.get("split", []))
    return [str(file or "") for file in files], plain


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, float) and math.isnan(value) else value


def _check_splits(path: Path, splits: list[Any]) -> None:
    """Refuse what is nearly the name of a split: its images would be left alone, and nobody would see why."""
    for split in dict.fromkeys(splits):
        meant = {"train": "train", "heldout": "held_out"}.get(re.sub(r"[\s_-]", "", str(split)).lower())
        if meant not in (None, split):
            raise DataError(
                f"{path}: expected the split '{meant}', got '{split}'; mend it. Pretraining leaves images of any other split "
                "alone."
            )


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
    between = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if between is not None:
        raise DataError(
            f"{path}: expected commas between the columns, got {between!r}; save it as comma-separated CSV."
        )
    _check_names(path, names)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise DataError(
                f"{path}: expected {len(names)} values in each row, as in the header, row {number} has {len(row)}; mend it."
            )
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _parquet_columns(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        _check_names(path, schema.names)
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: expected a Parquet list, but it cannot be read ({error}); write it again.") from None
    return {name: _values(path, name, table[name]) for name in table.column_names}


def _values(path: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(
            f"{path}: expected one text, number or time in each row of the column '{name}', got values of type {kind}; "
            "divide it, or leave it out."
        )
    if pa.types.is_timestamp(kind):  # nanoseconds need pandas to become Python's, and are more than `time` keeps
        kind = pa.timestamp("us", tz=kind.tz)
        column = column.cast(kind, safe=False)
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: the column '{name}' of type {kind} holds a value that cannot be read ({error}); mend it."
        ) from None


def _check_names(path: Path, names: Sequence[str]) -> None:
    if "" in names:
        raise DataError(
            f"{path}: expected a name for each column, but column {names.index('') + 1} of {len(names)} has none; name it, or "
            "leave it out (pandas: to_csv(..., index=False))."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: expected each column once, but '{twice[0]}' occurs twice; rename one.")
