"""Which rows of a manifest each input reads; column by column, since a collection may have millions of rows.

And how an image's bands are called there: a file may know a band by another of its sensor's names (`called_as`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.bands import BandNames
from core.contract import Contract, Input
from core.errors import BandError, DataError
from datasets.image import LazyImage
from datasets.manifest import Manifest


def called_as(image: LazyImage, entry: Input) -> LazyImage:
    """Call an image's bands as an input does, where its sensor knows them by other names too, such as HLS `B02` for `blue`.

    Raises:
        BandError: several bands of the image are one band of the sensor; the message names the file.
    """
    bands = named_by(image.bands, entry, image.path)
    return image if bands == image.bands else replace(image, bands=bands)


def named_by(bands: BandNames, entry: Input, path: Path) -> BandNames:
    """Call bands as an input does (`Input.named`).

    Raises:
        BandError: several of them are one band of the sensor; the message names the file.
    """
    try:
        return entry.named(bands)
    except BandError as error:
        raise BandError(f"{path}: {error} Name its bands by the reader's option, or leave it out.") from None


def assign(manifest: Manifest, inputs: Sequence[Input]) -> list[np.ndarray]:
    """Give the rows that each input reads, ascending: every row goes to the input that `Contract.input_for` finds.

    Raises:
        BandError: an input has the row's rank, but none has its bands.
        ConfigError: two inputs of one name.
        DataError: no input has its rank, it is smaller than a patch, or its spacing is in another unit.
    """
    assigned: dict[str, list[np.ndarray]] = {entry.name: [] for entry in inputs}
    for entry, rows in read_by(manifest, Contract(inputs=tuple(inputs))):
        _check(manifest, rows, entry, manifest.table["unit"][int(rows[0])].as_py())
        assigned[entry.name].append(rows)
    return [np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64) for parts in assigned.values()]


def read_by(manifest: Manifest, contract: Contract) -> Iterator[tuple[Input, np.ndarray]]:
    """Give each group of rows of one rank, unit and bands with the input that reads it, in the order of first rows.

    Raises:
        BandError: an input has a row's rank, but none has its bands.
        DataError: no input has its rank.
    """
    for rows in _kinds(manifest):
        first = int(rows[0])
        ndim, bands = (manifest.table[name][first].as_py() for name in ("ndim", "bands"))
        yield _reader(contract, manifest.path(first), ndim, tuple(bands)), rows


def facts(manifest: Manifest, name: str, rows: np.ndarray) -> np.ndarray:
    """Give a column of lists of one length as an array (rows, length)."""
    import pyarrow as pa

    lists = manifest.table[name].take(pa.array(rows)).combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else lists
    found: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    return found


def _kinds(manifest: Manifest) -> list[np.ndarray]:
    """Group the rows by rank, bands and unit; groups in the order of their first row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = manifest.table
    names = pc.binary_join(table["bands"], "\0")
    parts = [table["ndim"].cast(pa.string()), names, table["unit"].cast(pa.string())]
    joined = pc.binary_join_element_wise(*parts, "\1").combine_chunks().dictionary_encode()
    codes = pa.chunked_array([joined]) if not isinstance(joined, pa.ChunkedArray) else joined
    numbers = np.concatenate([chunk.indices.to_numpy() for chunk in codes.unify_dictionaries().chunks])
    order = np.argsort(numbers, kind="stable")
    _, starts = np.unique(numbers[order], return_index=True)
    groups = np.split(order, starts[1:]) if len(order) else []
    return sorted(groups, key=lambda rows: int(rows[0]))


def _check(manifest: Manifest, rows: np.ndarray, entry: Input, unit: str) -> None:
    shapes = facts(manifest, "shape", rows)
    small = (shapes[:, 1:] < np.array(entry.patch)).any(axis=1)
    if small.any():
        at = int(np.flatnonzero(small)[0])
        raise DataError(
            f"{manifest.path(int(rows[at]))}: expected at least one patch of {entry.patch} voxels, the image has "
            f"{tuple(int(n) for n in shapes[at, 1:])}; remove it or choose a smaller patch."
        )
    if entry.unit != "px" and unit != entry.unit:
        path = manifest.path(int(rows[0]))
        raise DataError(f"{path}: expected spacing in {entry.unit} for input '{entry.name}', the file has {unit}.")


def _reader(contract: Contract, path: Path, ndim: int, bands: BandNames) -> Input:
    ranked = [entry for entry in contract.inputs if entry.ndim == ndim]
    if not ranked:
        raise DataError(f"{path}: the image is {ndim}D and nothing in this run reads {ndim}D images; leave it out.")
    try:
        return contract.input_for(ndim, bands)
    except BandError:
        for entry in ranked:
            named_by(bands, entry, path)  # where names are ambiguous, it says which
        wanted = " or ".join(str(entry.bands) for entry in ranked)
        raise BandError(
            f"{path}: expected bands {wanted}, the image has {bands}; convert it or leave it out."
        ) from None
