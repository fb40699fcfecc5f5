"""TileLoader: the batches of any range of steps, the same for any number of workers and ranks; it holds no position.

With workers, torch's DataLoader starts them by forkserver (spawn where there is none): a fork after a threaded library
was used deadlocks or reads wrong bytes. Without, one thread prepares the next batches while the step runs.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from core import errors
from core.batch import Batch
from core.contract import Input
from core.errors import BandError, ConfigError, DataError
from datasets.batch import collate_or_pass
from datasets.manifest import Manifest
from datasets.readers.base import Reader
from datasets.samplers import Order, Schedule
from datasets.tiles import Failure, Item, StreamSpec, TileDataset

Made = Generator[Batch | Failure, None, None]

_PREFETCH = 2  # batches ready per worker (or thread)


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
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 1 << 30,
        readers: tuple[Reader, ...] = (),
    ) -> None:
        """Assign rows to streams and check them; nothing is read.

        Args:
            manifest: the collection, with `split` assigned.
            streams: the kinds of batches; a row belongs to the first whose input fits it.
            seed: of order, crops and keys.
            workers: processes that read; 0 = a thread of this one.
            rank: which share of each global batch this process takes.
            world_size: number of shares.
            cache_bytes: memory for decoded images, per process that reads.
            readers: readers with options, as given to `build_manifest`.

        Raises:
            ConfigError: a batch size is not a multiple of `world_size`.
            BandError: an image lacks the bands of the stream that reads its rank.
            DataError: an image that no stream reads or that is smaller than a patch, a stream without images.
        """
        self.manifest = manifest
        self.streams = {spec.name: spec for spec in streams}
        if len(self.streams) != len(streams) or not 0 <= rank < world_size or workers < 0:
            names = [spec.name for spec in streams]
            raise ConfigError(
                f"expected streams of different names, 0 <= rank < world_size and workers >= 0, got {names}, "
                f"{rank} of {world_size} and {workers}."
            )
        for spec in streams:
            if spec.batch_size % world_size:
                raise ConfigError(
                    f"stream '{spec.name}': expected a global batch size that {world_size} processes share evenly, got "
                    f"{spec.batch_size}; choose a multiple of {world_size}."
                )
        self.schedule = Schedule(tuple((spec.name, spec.turns) for spec in streams))
        self.seed, self.workers, self.rank, self.world_size = seed, workers, rank, world_size
        self._dataset = TileDataset(manifest, streams, seed=seed, cache_bytes=cache_bytes, readers=readers)
        assigned = assign(manifest, [spec.input for spec in streams])
        splits = manifest.column("split")
        self._train = [[row for row in rows if splits[row] in ("train", None)] for rows in assigned]
        self._held_out = [[row for row in rows if splits[row] == "held_out"] for rows in assigned]
        for spec, rows in zip(streams, self._train, strict=True):
            if not rows:
                raise DataError(
                    f"stream '{spec.name}': expected {spec.input.ndim}D images of bands {spec.input.bands} to train "
                    f"on, the {len(manifest)} images of the data have none; add some or leave the stream out."
                )
        self._orders = [Order(len(rows), seed) for rows in self._train]

    def num_rows(self, stream: str) -> int:
        """Images that one epoch of a stream visits."""
        return len(self._train[self._position(stream)])

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Give this rank's batch of each step of [start_step, stop_step), in order; starting late replays nothing.

        Raises:
            DataError: a file cannot be read; the message names it, also when a worker process read it.
        """
        return _run(self._dataset, (self._items(step) for step in range(start_step, stop_step)), self.workers)

    def held_out(self, stream: str, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Give the held-out images of a stream as whole images, always in the same order and with the same keys.

        Every rank gets all of them: means over ranks then equal the mean of one process. `limit` bounds their number.
        """
        position = self._position(stream)
        rows = self._held_out[position][:limit]
        items = [Item(stream=position, row=row, index=index, mode="whole") for index, row in enumerate(rows)]
        return _run(self._dataset, iter(_chunks(items, batch_size)), 0)

    def _position(self, stream: str) -> int:
        names = list(self.streams)
        if stream not in names:
            raise ConfigError(f"no stream is called '{stream}': {errors.nearest(stream, names)}")
        return names.index(stream)

    def _items(self, step: int) -> list[Item]:
        name, count = self.schedule.at(step)
        position = self._position(name)
        size = self.streams[name].batch_size
        items = []
        for index in range(count * size + self.rank, (count + 1) * size, self.world_size):
            epoch, place = self._orders[position].at(index)
            items.append(Item(stream=position, row=self._train[position][place], index=index, epoch=epoch))
        return items


def whole_batches(
    manifest: Manifest,
    entry: Input,
    batch_size: int,
    *,
    workers: int = 0,
    seed: int = 0,
    readers: tuple[Reader, ...] = (),
) -> Iterator[Batch]:
    """Give every image of a manifest as a whole image, in row order; the last batch may be smaller.

    Raises:
        BandError: an image lacks bands of the input.
        DataError: an image of another rank, smaller than a patch, or unreadable.
    """
    assign(manifest, [entry])
    stream = StreamSpec(input=entry, batch_size=batch_size)
    dataset = TileDataset(manifest, [stream], seed=seed, cache_bytes=0, readers=readers)
    items = [Item(stream=0, row=row, index=row, mode="whole") for row in range(len(manifest))]
    return _run(dataset, iter(_chunks(items, batch_size)), workers)


def assign(manifest: Manifest, inputs: Sequence[Input]) -> list[list[int]]:
    """Give the rows that each input reads: every row goes to the first input of its rank whose bands it has.

    Raises:
        BandError: an input has the row's rank, but none has its bands.
        DataError: no input has its rank, it is smaller than a patch, or its spacing is in another unit.
    """
    assigned: list[list[int]] = [[] for _ in inputs]
    columns = zip(*(manifest.column(name) for name in ("ndim", "bands", "shape", "unit")), strict=True)
    for row, (ndim, bands, shape, unit) in enumerate(columns):
        ranked = [number for number, entry in enumerate(inputs) if entry.ndim == ndim]
        fits = [number for number in ranked if set(inputs[number].bands) <= set(bands)]
        if not fits:
            _refuse(manifest.path(row), ndim, bands, [inputs[number] for number in ranked])
        entry = inputs[fits[0]]
        if any(n < p for n, p in zip(shape[1:], entry.patch, strict=True)):
            raise DataError(
                f"{manifest.path(row)}: expected at least one patch of {entry.patch} voxels, the image has "
                f"{tuple(shape[1:])}; remove it or choose a smaller patch."
            )
        if entry.unit != "px" and unit != entry.unit:
            raise DataError(
                f"{manifest.path(row)}: expected spacing in {entry.unit} for input '{entry.name}', the file has {unit}."
            )
        assigned[fits[0]].append(row)
    return assigned


def _refuse(path: Path, ndim: int, bands: Sequence[str], ranked: Sequence[Input]) -> None:
    if ranked:
        wanted = " or ".join(str(entry.bands) for entry in ranked)
        raise BandError(f"{path}: expected bands {wanted}, the image has {tuple(bands)}; convert it or leave it out.")
    raise DataError(f"{path}: the image is {ndim}D and nothing in this run reads {ndim}D images; leave it out.")


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    if size < 1:
        raise ConfigError(f"expected a batch size of at least 1, got {size}.")
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _run(dataset: TileDataset, wanted: Iterator[list[Item]], workers: int) -> Iterator[Batch]:
    made = _in_workers(dataset, wanted, workers) if workers else _in_thread(dataset, wanted)
    try:
        for batch in made:
            if isinstance(batch, Failure):
                raise getattr(errors, batch.kind)(batch.message)
            yield batch
    finally:
        made.close()


def _in_workers(dataset: TileDataset, wanted: Iterator[list[Item]], workers: int) -> Made:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    loader: DataLoader[Batch | Failure] = DataLoader(
        dataset,  # type: ignore[arg-type]  # torch asks for its own base class, but uses only __getitems__
        batch_sampler=wanted,  # read once, in order
        num_workers=workers,
        multiprocessing_context=method,
        collate_fn=collate_or_pass,
        prefetch_factor=_PREFETCH,
        generator=torch.Generator(),  # else the DataLoader would draw from the global one
        worker_init_fn=_leave_signals_to_the_parent,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader worker died ({str(error).splitlines()[0]}), often for lack of memory: use fewer workers."
        ) from None


def _leave_signals_to_the_parent(_: int) -> None:
    """Stay alive when a scheduler signals the whole process group: the parent still needs batches until it has saved."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _in_thread(dataset: TileDataset, wanted: Iterator[list[Item]]) -> Made:
    """Prepare batches in one thread, a few ahead; the thread ends when the consumer does."""
    ready: queue.Queue[Batch | Failure | BaseException | None] = queue.Queue(maxsize=_PREFETCH)
    stop = threading.Event()

    def offer(what: Batch | Failure | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(what, timeout=0.05)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for items in wanted:
                if stop.is_set():
                    return
                offer(collate_or_pass(dataset.__getitems__(items)))
            offer(None)
        except BaseException as error:  # a mistake of ours: it must reach the consumer, not die with the thread
            offer(error)

    thread = threading.Thread(target=work, name="halfseen-prefetch", daemon=True)
    thread.start()
    try:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        thread.join()
