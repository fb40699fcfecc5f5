"""Manifest: the table of a collection, one row per image, and the split of its groups. Building one is in `index`.

Two million rows are ordinary: columns stay Arrow arrays, and `mapped` puts the table into a file that every process maps
instead of holding it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import ConfigError, DataError, MissingDataError, nearest
from core.rng import key
from datasets.columns import equal, feed
from datasets.content import digest_of
from datasets.publishing import draft_of, publish, published, remove

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = (
    "root",  # folder that `file` is relative to; where it is relative itself, to the folder of the manifest
    "file",  # file or folder of the image
    "group",  # the unit that must not be split: patient, scene, slide
    "split",  # train, held_out, any other name, or null = not assigned
    "ndim",
    "shape",  # (C, *S)
    "dtype",
    "spacing",
    "unit",
    "bands",
    "mean",  # of raw valid voxels, per band
    "std",
    "bytes",  # on disk
    "digest",  # of the bytes on disk: `content.digest_of`
    "mtime_ns",
    "crs",  # of a scene
    "transform",  # of a scene: (a, b, c, d, e, f)
    "nodata",  # per band
    "scaling",  # per band (scale, offset), one after the other
    "chunks",  # spatial shape that costs as much as one voxel
    "low",  # least raw valid voxel, per band
    "high",
    "valid_share",  # per band
    "content",  # start, stop per axis of the box that holds every voxel that is valid in some band
    "reader",  # name of the reader
    "options",  # its options that were not the defaults, as `readers.configured` takes them
    "voxel_digest",  # of type, shape and voxels as decoded; null for images that are not decoded at once
    "time",  # when it was taken, as `times.as_time` writes it; null = not known
)
_NEEDED = frozenset("root file group split ndim shape dtype spacing unit bands bytes digest".split())
_VERSION = b"manifest 2"
_MARK = {b"halfseen": _VERSION}
_ROWS_PER_PART = 1 << 20  # of a mapped file: few parts, and texts below 2 GiB in each


@dataclass(frozen=True)
class Manifest:
    """A collection of images: an immutable table of facts and labels.

    Attributes:
        table: pyarrow table with the columns `FACTS` and one column per label.
        backing: the file that the table is a map of, see `mapped`; such a manifest pickles as that path.
    """

    table: pa.Table
    backing: Path | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.backing is not None:
            return _map, (str(self.backing),)
        return Manifest, (self.table,)

    @classmethod
    def of(cls, columns: dict[str, Any]) -> Manifest:
        """Make one from columns: the facts (those that not every image has may be left out), and any labels."""
        import pyarrow as pa

        number = len(columns["file"])
        plain = {name: columns[name] for name in FACTS if name in _NEEDED or name in columns}
        table = pa.table(
            {name: pa.array(plain.get(name, [None] * number), type=kind) for name, kind in _fact_types().items()}
        )
        for name, values in columns.items():
            if name not in FACTS:
                table = table.append_column(name, pa.array(values))
        return cls(table.replace_schema_metadata(_MARK))

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read one back from Parquet; roots that are relative become absolute, from the manifest's own folder.

        Raises:
            MissingDataError: there is no such file.
            DataError: it is no manifest, of another version, or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise MissingDataError(f"expected a manifest, but {path} does not exist.")
        try:
            table = pq.read_table(path, memory_map=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: expected a Parquet manifest, but it cannot be read ({error}).") from None
        if not is_manifest(table.schema):
            raise DataError(f"{path}: {_why_not(table.schema)}")
        return cls(_absolute(_complete(table), path.parent))

    def write(self, path: str | Path, *, relative_to: Path | None = None) -> None:
        """Write it as Parquet, at once or not at all.

        Args:
            path: file to write; replaced if it exists.
            relative_to: write roots below this folder relative to it. It must be the folder of `path`, or become it.
        """
        import pyarrow.parquet as pq

        table = self.table if relative_to is None else _relative(self.table, relative_to)
        with published(Path(path)) as partial:
            pq.write_table(table, partial, compression="zstd")

    def mapped(self, folder: str | Path) -> Manifest:
        """Put the table into a file in `folder` and give the manifest that maps it.

        The file is uncompressed Arrow, named by its content, written once and never changed. Its pages belong to all
        processes together, and the manifest pickles as its path, so that loader workers hold nothing of their own.
        """
        import pyarrow as pa

        if self.backing is not None:
            return self
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        partial = draft_of(folder / "manifest.arrow")
        try:
            table = self.table.combine_chunks().unify_dictionaries()
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=_ROWS_PER_PART)
            final = folder / f"manifest-{digest_of(partial)[:16]}.arrow"
            publish(partial, final)
        finally:
            remove(partial)
        return _map(str(final.absolute()))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(name for name in self.table.column_names if name not in FACTS)

    @property
    def digest(self) -> str:
        """Fingerprint of the content: files by their digests, options in any order, groups, splits, times and labels.

        Where the files lie and when they were written is no part of it.
        """
        state = hashlib.blake2b(digest_size=16)
        dated = self.table["time"].null_count < len(self)  # a list may say it, whose bytes are no part of the images'
        for name in ("digest", "group", "split", *(("time",) if dated else ()), *sorted(self.label_names)):
            state.update(name.encode() + b"\0")
            feed(state, self.table[name])
        options = self.table["options"]
        given = options.to_pylist() if options.null_count < len(self) else []
        if any(given):
            state.update(repr([sorted(entry or []) for entry in given]).encode())
        return state.hexdigest()

    def path(self, row: int) -> Path:
        """Where the image of a row lies."""
        return Path(self.table["root"][row].as_py(), self.table["file"][row].as_py())

    @property
    def paths(self) -> list[Path]:
        """Where the images lie, in row order."""
        return [Path(root, file) for root, file in zip(self.column("root"), self.column("file"), strict=True)]

    def column(self, name: str) -> list[Any]:
        """One column as plain Python values, None where missing; for columns of a large manifest see `codes`.

        Raises:
            ConfigError: no such column; the message names the nearest.
        """
        values: list[Any] = self._column(name).to_pylist()
        return values

    def codes(self, name: str) -> tuple[np.ndarray, list[Any]]:
        """One column of single values as (numbers, values): row r holds `values[numbers[r]]`, and -1 means missing.

        The numbers are int32 and follow the first occurrence.

        Raises:
            ConfigError: no such column; the message names the nearest.
        """
        import pyarrow as pa

        column = self._column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        whole = column.combine_chunks().dictionary_encode()
        if isinstance(whole, pa.ChunkedArray):
            whole = whole.combine_chunks()
        return whole.indices.fill_null(-1).to_numpy(zero_copy_only=False), whole.dictionary.to_pylist()

    def labels(self, name: str) -> np.ndarray:
        """One label column, complete: int64, float64 or str objects.

        Raises:
            ConfigError: no label column of that name; the message names the nearest.
            DataError: rows without a label; the message names the first.
        """
        if name not in self.label_names:
            raise ConfigError(f"no label column is called '{name}': {nearest(name, self.label_names)}")
        column = self.table[name]
        if column.null_count:
            missing = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"expected a '{name}' for every image, but {column.null_count} of {len(self)} have none, the first is "
                f"{self.path(missing)}; complete the list or leave those rows out."
            )
        return np.asarray(column.to_numpy())

    def rows(self, **wanted: Any) -> np.ndarray:
        """Row numbers whose columns equal the values given, int64, ascending: `rows(ndim=2, split="train")`."""
        keep = np.ones(len(self), dtype=bool)
        for name, value in wanted.items():
            keep &= equal(self._column(name), value)
        return np.flatnonzero(keep)

    def select(self, **wanted: Any) -> Manifest:
        """Keep the rows whose columns equal the values given: `select(ndim=2)`, `select(split="held_out")`."""
        return self.take(self.rows(**wanted))

    def take(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """Keep these rows, in this order."""
        import pyarrow as pa

        return Manifest(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))))

    def with_column(self, name: str, values: Any) -> Manifest:
        """Replace or add one column; `values` is a sequence or an Arrow array."""
        import pyarrow as pa

        labels = [entry for entry in self.label_names if entry != name] + ([] if name in FACTS else [name])
        table = self.table.drop_columns([name]) if name in self.table.column_names else self.table
        kind = _fact_types().get(name)
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = pa.array(values, type=kind)
        elif kind is not None and values.type != kind:
            values = values.cast(kind)
        table = table.append_column(name, values)
        return Manifest(table.select([*FACTS, *labels]).replace_schema_metadata(_MARK))

    def _column(self, name: str) -> Any:
        if name not in self.table.column_names:
            raise ConfigError(f"no column is called '{name}': {nearest(name, self.table.column_names)}")
        return self.table[name]


def is_manifest(schema: pa.Schema) -> bool:
    """Say whether a Parquet schema is of a manifest that this suite wrote, in this version."""
    return (schema.metadata or {}).get(b"halfseen") == _VERSION and _NEEDED <= set(schema.names)


def was_manifest(schema: pa.Schema) -> bool:
    """Say whether a Parquet schema is of a manifest of any version."""
    mark: bytes = (schema.metadata or {}).get(b"halfseen", b"")
    return mark.startswith(b"manifest ")


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
    import pyarrow as pa
    import pyarrow.compute as pc

    group, names = manifest.codes("group")
    given = manifest.table["split"].is_valid().to_numpy()
    with_split, without = (np.bincount(group[rows], minlength=len(names)) > 0 for rows in (given, ~given))
    half = np.flatnonzero(with_split & without)
    if len(half):
        name = min(names[number] for number in half)
        raise DataError(
            f"expected one split per group, but group '{name}' has rows with and without one; complete the list."
        )
    # The draws as whole numbers first: their order is exact, and so is that of the shares below.
    draw = np.array(
        [(key(seed, "split", name) + (1 << 63)) / (1 << 64) if free else 2.0
         for name, free in zip(names, without, strict=True)]
    )  # fmt: skip
    chosen = without & (draw < held_out)
    ranks = manifest.table["ndim"].to_numpy()
    for ndim in np.unique(ranks) if held_out > 0 else ():
        present = (np.bincount(group[ranks == ndim], minlength=len(names)) > 0) & without
        ranked = sorted(np.flatnonzero(present), key=lambda number: (draw[number], names[number]))
        if len(ranked) > 1 and not (chosen & present).any():
            chosen[ranked[0]] = True
        elif len(ranked) > 1 and chosen[present].all():
            chosen[ranked[-1]] = False
    assigned = pa.array(np.where(chosen[group], 0, 1).astype(np.int32))
    drawn = pa.DictionaryArray.from_arrays(assigned, ["held_out", "train"]).cast(pa.string())
    return manifest.with_column("split", pc.coalesce(manifest.table["split"].cast(pa.string()), drawn))


def _map(path: str) -> Manifest:
    import pyarrow as pa

    with pa.memory_map(path) as source:
        table = pa.ipc.open_file(source).read_all()
    return Manifest(table, Path(path))


def _why_not(schema: pa.Schema) -> str:
    if was_manifest(schema):
        mark = schema.metadata[b"halfseen"].decode()
        return (
            f"expected a manifest of this halfseen ({_VERSION.decode()}), got '{mark}', which knows less of each image; "
            "build it again from the images: python -m datasets.check PATH --out FILE."
        )
    return f"expected a manifest written by halfseen, got a Parquet table {schema.names}."


def _complete(table: pa.Table) -> pa.Table:
    """Add the facts that were not known yet when a manifest was written; they are not known of its images."""
    import pyarrow as pa

    kinds = _fact_types()
    for name in FACTS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), kinds[name]))
    labels = [name for name in table.column_names if name not in FACTS]
    return table.select([*FACTS, *labels])


def _absolute(table: pa.Table, folder: Path) -> pa.Table:
    return _with_roots(table, lambda root: str(folder.resolve() / root))


def _relative(table: pa.Table, folder: Path) -> pa.Table:
    base = folder.resolve()

    def shorten(root: str) -> str:
        return Path(root).relative_to(base).as_posix() if Path(root).is_relative_to(base) else root

    return _with_roots(table, shorten)


def _with_roots(table: pa.Table, change: Any) -> pa.Table:
    import pyarrow as pa

    column = table["root"].unify_dictionaries()
    parts = [
        pa.DictionaryArray.from_arrays(part.indices, pa.array(map(change, part.dictionary.to_pylist()), pa.string()))
        for part in column.chunks
    ]
    return table.set_column(table.column_names.index("root"), "root", pa.chunked_array(parts, type=column.type))


def _fact_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    text, floats, whole = pa.string(), pa.list_(pa.float64()), pa.list_(pa.int64())
    word = pa.dictionary(pa.int32(), text)  # the same few texts in every row
    lists = {"shape": whole, "chunks": whole, "content": whole, "bands": pa.list_(text), "options": pa.list_(text)}
    lists |= dict.fromkeys(("spacing", "mean", "std", "transform", "nodata", "scaling", "low", "high"), floats)
    single = {"ndim": pa.int8(), "bytes": pa.int64(), "mtime_ns": pa.int64(), "valid_share": floats}
    words = dict.fromkeys(("root", "split", "dtype", "unit", "crs", "reader"), word)
    texts = dict.fromkeys(("file", "group", "digest", "voxel_digest", "time"), text)
    kinds = lists | single | words | texts
    return {name: kinds[name] for name in FACTS}
