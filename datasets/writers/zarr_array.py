"""Prepared stores (`.zarr`): sharded Zarr v3 with a checksum per chunk; the format is defined in `readers._store`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.errors import DataError
from core.preprocess import Window
from datasets.readers import _store
from datasets.writers._blocks import Blocks
from datasets.writers.base import Draft, Facts, Writer, refuse_dtype

if TYPE_CHECKING:
    import zarr

_KNOWN = frozenset(
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
)  # what the reader knows


@dataclass(frozen=True)
class ZarrArray(Writer):
    """Writes a prepared store. All facts are kept.

    Attributes:
        chunk: spatial shape that is decoded at once; none = the measured choice.
        codec: `small`, or `fast`: decodes about five times faster and may be larger.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".zarr",)
    chunk: tuple[int, ...] = ()
    codec: _store.CodecName = "small"

    def check(self, path: Path, facts: Facts) -> None:
        """Refuse dtypes that Zarr does not hold and chunks of another rank."""
        refuse_dtype(path, facts, _KNOWN, "give uint8 for a mask")
        if self.chunk and (len(self.chunk) != len(facts.size) or min(self.chunk) < 1):
            raise DataError(f"{path}: expected a chunk of {len(facts.size)} axes for {facts.size}, got {self.chunk}.")

    def block(self, facts: Facts) -> tuple[int, ...]:
        """One shard: what one file holds."""
        shards: tuple[int, ...] = self.arguments(facts)["shards"]
        return tuple(min(n, s) for n, s in zip(facts.size, shards[1:], strict=True))

    def arguments(self, facts: Facts) -> dict[str, tuple[int, ...]]:
        """Shapes of the inner chunks and of the shards, (C, *S)."""
        inner = self.inner(facts) or _store.inner_chunk(facts.shape, facts.dtype)
        return {"chunks": inner, "shards": _store.shard_shape(facts.shape, inner, facts.dtype)}

    def inner(self, facts: Facts) -> tuple[int, ...] | None:
        """The inner chunk (C, *S) where one was asked for."""
        if not self.chunk:
            return None
        spatial = tuple(min(c, n) for c, n in zip(self.chunk, facts.size, strict=True))
        measured = _store.inner_chunk(facts.shape, facts.dtype)
        return (measured[0], *spatial)

    def begin(self, path: Path, draft: Path, spool: Path, facts: Facts) -> Draft:
        """Create the arrays; shards are written when they are whole."""
        arrays = _store.create(
            draft, facts.shape, facts.dtype, valid=facts.valid, chunk=self.inner(facts), codec=self.codec
        )
        return _Shards(draft, spool, facts, arrays)


class _Shards(Draft):
    def __init__(self, draft: Path, spool: Path, facts: Facts, arrays: dict[str, zarr.Array[Any]]) -> None:
        self._draft, self._facts, self._arrays = draft, facts, arrays
        self._blocks = {
            name: Blocks(array.shape, array.shards or array.chunks, array.dtype, spool=spool, name=f"{name}.")
            for name, array in arrays.items()
        }

    def put(self, window: Window, voxels: np.ndarray, valid: np.ndarray | None) -> None:
        for name, values in ((_store.IMAGE, voxels), (_store.VALID, valid)):
            if values is None:
                continue
            blocks = self._blocks[name]
            for index in blocks.put((slice(0, len(values)), *window), values):
                self._arrays[name][blocks.coverage.home(index)] = blocks.take(index)

    def missing(self) -> Window | None:
        hole = self._blocks[_store.IMAGE].coverage.missing()
        return None if hole is None else hole[1:]

    def finish(self) -> None:
        _store.finish(self._draft, _store.attributes_of(self._facts, made_by=made_by()))  # type: ignore[arg-type]

    def abandon(self) -> None:
        pass  # nothing is open: each shard is one write


def made_by(*libraries: str) -> dict[str, str]:
    """Versions of what decided a store's bytes: halfseen, zarr, numcodecs and, of the libraries named, those there are."""
    from importlib.metadata import PackageNotFoundError, version

    found = {name: version(name) for name in ("halfseen", "zarr", "numcodecs")}
    for name in libraries:
        with suppress(PackageNotFoundError):  # HDF4 and HDF5 have a library each; what is not there decided nothing
            found[name] = version(name)
    return found
