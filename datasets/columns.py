"""Columns of a large table as Arrow keeps them: comparing and hashing them without a Python object per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def equal(column: pa.ChunkedArray, value: Any) -> np.ndarray:
    """Say which rows hold a value, None included; nothing equals a value of another type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if value is None:
        return np.asarray(column.is_null().to_numpy())
    single = not pa.types.is_nested(column.type) and not isinstance(value, list | tuple)
    try:
        found = pc.equal(column, pa.scalar(value)) if single else None
    except pa.ArrowException:  # a text is not a number: nothing equals it
        found = None
    if found is None:
        return np.fromiter((entry == value for entry in column.to_pylist()), dtype=bool, count=len(column))
    return np.asarray(found.fill_null(False).to_numpy())


def feed(state: Any, column: pa.ChunkedArray) -> None:
    """Hash the values of a column; how they are divided into chunks or encoded changes nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        state.update(b"nothing" + len(column).to_bytes(8, "little"))
        return
    state.update(np.packbits(column.is_valid().to_numpy()).tobytes())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        filled = column.fill_null("")
        state.update(b"text" + pc.binary_length(filled).to_numpy().astype("<i8").tobytes())
        for part in filled.chunks:
            state.update(_text(part))
    elif pa.types.is_floating(kind):
        state.update(b"real" + column.fill_null(0).to_numpy().astype("<f8").tobytes())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        state.update(b"whole" + column.cast(pa.int64()).fill_null(0).to_numpy().astype("<i8").tobytes())
    else:  # whatever a Parquet list brought along
        state.update(repr(column.to_pylist()).encode())


def _text(part: pa.Array) -> memoryview | bytes:
    """The bytes of all texts of an array, one after the other."""
    import pyarrow as pa

    _, ends, data = part.buffers()
    if data is None or not len(part):
        return b""
    width = np.int64 if pa.types.is_large_string(part.type) else np.int32
    first, last = np.frombuffer(ends, dtype=width)[[part.offset, part.offset + len(part)]]
    return memoryview(data)[int(first) : int(last)]
