"""Manifest: the table of a collection, one row per image, and the split of its groups. Building one is in `index`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigError, DataError, MissingDataError, nearest
from core.rng import key

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = (
    "root",  # folder that `file` is relative to
    "file",
    "group",  # the unit that must not be split: patient, scene, slide
    "split",  # train, held_out, any other name, or null = not assigned
    "ndim",
    "shape",  # (C, *S)
    "dtype",
    "spacing",
    "unit",
    "bands",
    "mean",  # of raw finite voxels, per band; volumes only
    "std",
    "bytes",
    "digest",  # blake2b of the file
)
_MARK = {b"halfseen": b"manifest 1"}


@dataclass(frozen=True)
class Manifest:
    """A collection of images: an immutable table of facts and labels.

    Attributes:
        table: pyarrow table with the columns `FACTS` and one column per label.
    """

    table: pa.Table

    @classmethod
    def of(cls, columns: dict[str, Any]) -> Manifest:
        """Make one from columns: every fact, and any labels."""
        import pyarrow as pa

        table = pa.table({name: pa.array(columns[name], type=kind) for name, kind in _fact_types().items()})
        for name, values in columns.items():
            if name not in FACTS:
                table = table.append_column(name, pa.array(values))
        return cls(table.replace_schema_metadata(_MARK))

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read one back from Parquet.

        Raises:
            MissingDataError: there is no such file.
            DataError: it is no manifest, or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not Path(path).is_file():
            raise MissingDataError(f"expected a manifest, but {path} does not exist.")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: expected a Parquet manifest, but it cannot be read ({error}).") from None
        if not is_manifest(table.schema):
            raise DataError(
                f"{path}: expected a manifest written by halfseen, got a Parquet table {table.column_names}."
            )
        return cls(table)

    def write(self, path: str | Path) -> None:
        """Write it as Parquet."""
        import pyarrow.parquet as pq

        pq.write_table(self.table, path, compression="zstd")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(name for name in self.table.column_names if name not in FACTS)

    @property
    def digest(self) -> str:
        """Fingerprint of the content: files by their digests, groups, splits and labels; not where the files lie."""
        state = hashlib.blake2b(digest_size=16)
        for name in ("digest", "group", "split", *sorted(self.label_names)):
            state.update(repr((name, self.column(name))).encode())
        return state.hexdigest()

    def path(self, row: int) -> Path:
        """Where the image of a row lies."""
        return Path(self.table["root"][row].as_py(), self.table["file"][row].as_py())

    @property
    def paths(self) -> list[Path]:
        """Where the images lie, in row order."""
        return [Path(root) / file for root, file in zip(self.column("root"), self.column("file"), strict=True)]

    def column(self, name: str) -> list[Any]:
        """One column as plain Python values, None where missing.

        Raises:
            ConfigError: no such column; the message names the nearest.
        """
        if name not in self.table.column_names:
            raise ConfigError(f"no column is called '{name}': {nearest(name, self.table.column_names)}")
        values: list[Any] = self.table[name].to_pylist()
        return values

    def labels(self, name: str) -> np.ndarray:
        """One label column, complete: int64, float64 or str objects.

        Raises:
            ConfigError: no label column of that name; the message names the nearest.
            DataError: rows without a label; the message names the first.
        """
        if name not in self.label_names:
            raise ConfigError(f"no label column is called '{name}': {nearest(name, self.label_names)}")
        values = self.column(name)
        missing = [row for row, value in enumerate(values) if value is None]
        if missing:
            raise DataError(
                f"expected a '{name}' for every image, but {len(missing)} of {len(self)} have none, the first is "
                f"{self.path(missing[0])}; complete the list or leave those rows out."
            )
        return np.array(values, dtype=object if any(isinstance(v, str) for v in values) else None)

    def rows(self, **wanted: Any) -> np.ndarray:
        """Row numbers whose columns equal the values given, int64, ascending: `rows(ndim=2, split="train")`."""
        keep = np.ones(len(self), dtype=bool)
        for name, value in wanted.items():
            keep &= np.fromiter((entry == value for entry in self.column(name)), dtype=bool, count=len(self))
        return np.flatnonzero(keep)

    def select(self, **wanted: Any) -> Manifest:
        """Keep the rows whose columns equal the values given: `select(ndim=2)`, `select(split="held_out")`."""
        return self.take(self.rows(**wanted))

    def take(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """Keep these rows, in this order."""
        import pyarrow as pa

        return Manifest(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))))

    def with_column(self, name: str, values: Sequence[Any]) -> Manifest:
        """Replace or add one column."""
        import pyarrow as pa

        labels = [entry for entry in self.label_names if entry != name] + ([] if name in FACTS else [name])
        table = self.table.drop_columns([name]) if name in self.table.column_names else self.table
        table = table.append_column(name, pa.array(values, type=_fact_types().get(name)))
        return Manifest(table.select([*FACTS, *labels]).replace_schema_metadata(_MARK))


def is_manifest(schema: pa.Schema) -> bool:
    """Say whether a Parquet schema is of a manifest that this suite wrote."""
    return (schema.metadata or {}).get(b"halfseen") == _MARK[b"halfseen"] and set(FACTS) <= set(schema.names)


def split_groups(manifest: Manifest, held_out: float, seed: int) -> Manifest:
    """Assign every group without a split to `train` or `held_out`, about `held_out` of the groups to the latter.

    A pure function of each group's name and the seed: adding or removing images never moves another group. Rows that
    came with a split keep it. Of two or more groups that have images of one rank, 2D or 3D, at least one is on each side
    (the nearest to the border), unless `held_out` is 0.

    Raises:
        ConfigError: `held_out` is not in [0, 1).
        DataError: one group comes with a split for some of its rows and none for others.
    """
    if not 0 <= held_out < 1:
        raise ConfigError(f"expected a held-out share in [0, 1), got {held_out}.")
    groups, splits = manifest.column("group"), manifest.column("split")
    given = {group for group, split in zip(groups, splits, strict=True) if split is not None}
    free = {group for group, split in zip(groups, splits, strict=True) if split is None}
    if given & free:
        name = min(given & free)
        raise DataError(
            f"expected one split per group, but group '{name}' has rows with and without one; complete the list."
        )
    draw = {group: (key(seed, "split", group) + (1 << 63)) / (1 << 64) for group in free}
    chosen = {group for group in free if draw[group] < held_out}
    ranks = manifest.column("ndim")
    for ndim in sorted(set(ranks)) if held_out > 0 else ():
        present = {group for group, rank in zip(groups, ranks, strict=True) if rank == ndim and group in free}
        ranked = sorted(present, key=lambda group: (draw[group], group))
        if len(ranked) > 1 and not chosen & present:
            chosen.add(ranked[0])
        elif len(ranked) > 1 and present <= chosen:
            chosen.remove(ranked[-1])
    assigned = [
        split if split is not None else ("held_out" if group in chosen else "train")
        for group, split in zip(groups, splits, strict=True)
    ]
    return manifest.with_column("split", assigned)


def _fact_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    text, floats = pa.string(), pa.list_(pa.float64())
    return {
        "root": text,
        "file": text,
        "group": text,
        "split": text,
        "ndim": pa.int8(),
        "shape": pa.list_(pa.int64()),
        "dtype": text,
        "spacing": floats,
        "unit": text,
        "bands": pa.list_(text),
        "mean": floats,
        "std": floats,
        "bytes": pa.int64(),
        "digest": text,
    }
