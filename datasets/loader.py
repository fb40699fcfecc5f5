"""TileLoader: the batches of any range of steps, the same for any number of workers and ranks; it holds no position."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from core import errors
from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError, DataError
from datasets.assign import assign, facts
from datasets.batch import Packed, unpack
from datasets.manifest import Manifest
from datasets.quarantine import BadSamples, Quarantine, with_substitutes
from datasets.sample import Failure, Item, StreamSpec
from datasets.samplers import Schedule, TileOrder
from datasets.tiles import TileDataset
from datasets.tiling import grid_cells
from datasets.workers import Made, WorkerKind, in_order

__all__ = ["TileLoader", "assign", "whole_batches"]

_MAPPED = 10_000  # rows from which a manifest is mapped from a file for worker processes, not copied into each


class TileLoader:
    """Training batches of one rank, and the fixed held-out batches, of a manifest whose groups are split.

    Rows of split `train` (or of no split) are trained on; rows of `held_out` are validated on; others are left alone.
    """

    def __init__(
        self,
        manifest: Manifest,
        streams: Sequence[StreamSpec],
        *,
        seed: int,
        workers: int = 0,
        worker_kind: WorkerKind = "process",
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 1 << 30,
        timeout_s: float = 300.0,
        bad_samples: BadSamples = "raise",
        bad_budget: float = 0.001,
        quarantine: Path | None = None,
    ) -> None:
        """Assign rows to streams and check them; nothing is read.

        Args:
            manifest: the collection, with `split` assigned.
            streams: the kinds of batches; a row belongs to the first whose input fits it.
            seed: of order, crops and keys.
            workers: how many read; 0 = one thread.
            worker_kind: processes, or threads of this process; `datasets.workers` says what each is good for.
            rank: which share of each global batch this process takes.
            world_size: number of shares.
            cache_bytes: memory for decoded images, per process that reads.
            timeout_s: how long a batch may take.
            bad_samples: what a training image that cannot be read is: an error, or replaced and written down.
            bad_budget: largest share of a run's samples that may be replaced; five always may.
            quarantine: where to write them down.

        Raises:
            ConfigError: a batch size is not a multiple of `world_size`.
            BandError: an image lacks the bands of the stream that reads its rank.
            DataError: an image that no stream reads or that is smaller than a patch, a stream without images.
        """
        self.streams = {spec.name: spec for spec in streams}
        if len(self.streams) != len(streams) or not 0 <= rank < world_size or workers < 0 or timeout_s <= 0:
            names = [spec.name for spec in streams]
            raise ConfigError(
                "expected streams of different names, 0 <= rank < world_size, workers >= 0 and a timeout above 0, got "
                f"{names}, {rank} of {world_size}, {workers} and {timeout_s}."
            )
        for spec in streams:
            if spec.batch_size % world_size:
                raise ConfigError(
                    f"stream '{spec.name}': expected a global batch size that {world_size} processes share evenly, got "
                    f"{spec.batch_size}; choose a multiple of {world_size}."
                )
        if workers and worker_kind == "process" and manifest.backing is None and len(manifest) >= _MAPPED:
            folder = tempfile.mkdtemp(prefix="halfseen-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            manifest = manifest.mapped(folder)
        self.manifest = manifest
        self.schedule = Schedule(tuple((spec.name, spec.turns) for spec in streams))
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.workers, self.worker_kind, self.timeout_s = workers, worker_kind, timeout_s
        self.bad_samples = bad_samples
        self._quarantine = Quarantine(quarantine, budget=bad_budget, rank=rank)
        self._dataset = TileDataset(manifest, streams, seed=seed, cache_bytes=cache_bytes)
        splits, names = manifest.codes("split")
        train = np.isin(splits, [-1, *(code for code, name in enumerate(names) if name == "train")])
        held_out = np.isin(splits, [code for code, name in enumerate(names) if name == "held_out"])
        assigned = assign(manifest, [spec.input for spec in streams])
        self._train = [rows[train[rows]] for rows in assigned]
        self._held_out = [rows[held_out[rows]] for rows in assigned]
        for spec, rows in zip(streams, self._train, strict=True):
            if not len(rows):
                raise DataError(
                    f"stream '{spec.name}': expected {spec.input.ndim}D images of bands {spec.input.bands} to train "
                    f"on, the {len(manifest)} images of the data have none; add some or leave the stream out."
                )
        self._orders = [_order(manifest, rows, spec, seed) for spec, rows in zip(streams, self._train, strict=True)]

    def num_rows(self, stream: str) -> int:
        """Images that one epoch of a stream visits."""
        return len(self._train[self._position(stream)])

    def num_tiles(self, stream: str) -> int:
        """Samples of one epoch of a stream."""
        return self._orders[self._position(stream)].num_tiles

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Give this rank's batch of each step of [start_step, stop_step), in order; starting late replays nothing.

        Raises:
            DataError: a file cannot be read; the message names it, whoever read it.
        """
        made = self._made((self._items(step) for step in range(start_step, stop_step)), self.workers)
        samples = self._samples(stop_step)
        try:
            for step, packed in enumerate(made, start=start_step):
                batch = _batch(packed)
                assert isinstance(packed, Packed)
                self._quarantine.record(packed.incidents, step=step, samples=samples)
                yield batch
        finally:
            made.close()

    def held_out(self, stream: str, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Give the held-out images of a stream as whole images, always in the same order and with the same keys.

        Every rank gets all of them: means over ranks then equal the mean of one process. `limit` bounds their number.
        An image that cannot be read is an error, whatever the policy of training.
        """
        position = self._position(stream)
        rows = self._held_out[position][:limit]
        items = [Item(stream=position, row=int(row), index=index, mode="whole") for index, row in enumerate(rows)]
        return _batches(self._made(iter(_chunks(items, batch_size)), 0))

    def _made(self, wanted: Iterator[list[Item]], workers: int) -> Made:
        return in_order(
            self._dataset,
            wanted,
            workers=workers,
            kind=self.worker_kind,
            timeout_s=self.timeout_s,
            name=lambda item: str(self.manifest.path(item.row)),
        )

    def _position(self, stream: str) -> int:
        names = list(self.streams)
        if stream not in names:
            raise ConfigError(f"no stream is called '{stream}': {errors.nearest(stream, names)}")
        return names.index(stream)

    def _items(self, step: int) -> list[Item]:
        name, count = self.schedule.at(step)
        position = self._position(name)
        size, rows, order = self.streams[name].batch_size, self._train[position], self._orders[position]
        items = []
        for index in range(count * size + self.rank, (count + 1) * size, self.world_size):
            epoch, place, tile = order.at(index)
            item = Item(stream=position, row=int(rows[place]), index=index, epoch=epoch, tile=tile)
            if self.bad_samples == "quarantine":
                item = with_substitutes(item, name, rows, self.seed)
            items.append(item)
        return items

    def _samples(self, steps: int) -> int:
        """Samples of the first steps of a run, over all ranks and streams."""
        cycles, rest = divmod(steps, sum(spec.turns for spec in self.streams.values()))
        total = sum(cycles * spec.turns * spec.batch_size for spec in self.streams.values())
        for spec in self.streams.values():
            total += min(rest, spec.turns) * spec.batch_size
            rest -= min(rest, spec.turns)
        return total


def whole_batches(
    manifest: Manifest,
    entry: Input,
    batch_size: int,
    *,
    workers: int = 0,
    worker_kind: WorkerKind = "process",
    seed: int = 0,
    timeout_s: float = 300.0,
) -> Iterator[Batch]:
    """Give every image of a manifest as a whole image, in row order; the last batch may be smaller.

    Raises:
        BandError: an image lacks bands of the input.
        DataError: an image of another rank, smaller than a patch, or unreadable.
    """
    assign(manifest, [entry])
    stream = StreamSpec(input=entry, batch_size=batch_size)
    dataset = TileDataset(manifest, [stream], seed=seed, cache_bytes=0)
    items = [Item(stream=0, row=row, index=row, mode="whole") for row in range(len(manifest))]
    made = in_order(
        dataset,
        iter(_chunks(items, batch_size)),
        workers=workers,
        kind=worker_kind,
        timeout_s=timeout_s,
        name=lambda item: str(manifest.path(item.row)),
    )
    return _batches(made)


def _order(manifest: Manifest, rows: np.ndarray, spec: StreamSpec, seed: int) -> TileOrder:
    tiles = spec.tiles
    counts: int | np.ndarray = tiles.per_image or _cover(manifest, rows, spec)
    return TileOrder(counts, len(rows), seed, per_visit=tiles.per_visit, window=tiles.window)


def _cover(manifest: Manifest, rows: np.ndarray, spec: StreamSpec) -> np.ndarray:
    """How many crops cover each image: worked out once for each distinct length, chunk and content of an axis."""
    ndim, size = spec.input.ndim, spec.input.size
    shapes, chunks, content = (facts(manifest, name, rows) for name in ("shape", "chunks", "content"))
    counts = np.ones(len(rows), dtype=np.int64)
    for axis in range(ndim):
        columns = (shapes[:, axis + 1], chunks[:, axis], content[:, 2 * axis], content[:, 2 * axis + 1])
        kinds, which = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        along = [_cover_axis(spec, size[axis], *map(int, kind)) for kind in kinds]
        counts *= np.array(along, dtype=np.int64)[which.ravel()]
    return counts


def _cover_axis(spec: StreamSpec, size: int, n: int, chunk: int, start: int, stop: int) -> int:
    if spec.tiles.plan == "free":
        return math.ceil((stop - start) / size)
    return len(grid_cells(n, size, chunk, slice(start, stop)))


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    if size < 1:
        raise ConfigError(f"expected a batch size of at least 1, got {size}.")
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _batches(made: Made) -> Iterator[Batch]:
    try:
        for packed in made:
            yield _batch(packed)
    finally:
        made.close()


def _batch(packed: Packed | Failure) -> Batch:
    if isinstance(packed, Failure):
        error = getattr(errors, packed.kind, DataError)(packed.message)
        if packed.trace:
            error.add_note(packed.trace)
        raise error
    return unpack(packed)
