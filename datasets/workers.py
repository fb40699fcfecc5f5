"""Who prepares batches: threads of this process or processes of their own; both in order, a few ahead, never for ever.

A worker takes a whole batch at a time: handing out single reads of a millisecond costs as much as reading. A worker process
is driven by a thread here, so that both kinds are one mechanism; it is started by forkserver (spawn where there is none),
since a fork after a threaded library was used deadlocks or reads wrong bytes. Whatever happens to a worker, the consumer
gets a `Failure` or a `DataError` and no silence: an error of any kind, its death, or a batch that takes too long.

Processes are the default. Samples per second with one and two workers, best of seven interleaved runs on two busy cores:

    tiled GeoTIFF, aligned 128 px x 14 bands    threads 560  852    processes 472  972
    prepared Zarr, the same crops               threads 1022 1151   processes 762  1327
    JPEG photographs, resized 224 px crops      threads 96   137    processes 92   170
    .nii.gz, one 96^3 crop per visit            threads 93   154    processes 78   136
    .nii.gz, four crops per visit               threads 303  304    processes 187  132

Two processes are 1.7 to 2.1 times as fast as one, two threads 1.1 to 1.7 times. Threads win where several crops of an image
that is decoded whole are drawn per visit, because they share one cache: each process decodes the image for itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol

import torch

from core.errors import DataError
from datasets.batch import Packed, pack_or_pass
from datasets.sample import Failure, Item, Sample
from datasets.transport import receive, send

WorkerKind = Literal["thread", "process"]
Made = Generator[Packed | Failure, None, None]

_PREFETCH = 2  # batches ready per worker


class Source(Protocol):
    """What workers read: a `TileDataset`."""

    def __getitems__(self, items: list[Item]) -> list[Sample | Failure]:
        """Read a batch."""


class _Worker(Protocol):
    """What a thread asks for batches; it gives them in the order in which they were asked for."""

    depth: int  # batches that may be asked for before the first is given

    def ask(self, items: list[Item]) -> None:
        """Ask for a batch."""

    def give(self, items: list[Item]) -> Packed | Failure:
        """Give the oldest batch that was asked for, which is of these items."""

    def end(self) -> None:
        """Let go of what it holds; a read that is under way may be cut off."""


def in_order(
    source: Source,
    wanted: Iterator[list[Item]],
    *,
    workers: int,
    kind: WorkerKind,
    timeout_s: float,
    name: Callable[[Item], str],
) -> Made:
    """Give the batches that are wanted, in that order; no worker is left when the generator is closed.

    Args:
        source: what reads a list of items.
        wanted: the items of each batch; asked for a few batches ahead.
        workers: how many; 0 = one thread.
        kind: threads or processes, see above.
        timeout_s: how long one batch may take.
        name: what an item is called in a message.

    Raises:
        DataError: a worker died, or a batch took longer than `timeout_s`; the message names the batch's files.
    """
    line = _Line(wanted, ahead=max(1, workers) * _PREFETCH)
    team: list[_Worker] = []
    threads: list[threading.Thread] = []
    stuck = False
    try:
        for _ in range(max(1, workers)):
            team.append(_Process(source, timeout_s, name) if workers and kind == "process" else _Here(source))
            work = threading.Thread(target=line.work, args=(team[-1],), name="halfseen-prefetch", daemon=True)
            work.start()
            threads.append(work)
        while True:
            try:
                made = line.take(timeout_s if kind == "thread" or not workers else None)
            except TimeoutError:
                stuck = True  # a thread that hangs in a read cannot be ended: leave it, the process may still end
                raise _too_slow(line.awaited(), timeout_s, name) from None
            if made is None:
                return
            if isinstance(made, BaseException):
                raise made
            yield made
    finally:
        line.stop()
        for worker in team:
            worker.end()
        for work in threads if not stuck else ():
            work.join()


def _files(items: list[Item], name: Callable[[Item], str]) -> str:
    names = list(dict.fromkeys(name(item) for item in items))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _too_slow(items: list[Item], timeout_s: float, name: Callable[[Item], str]) -> DataError:
    return DataError(
        f"reading one batch took longer than {timeout_s:g} s: the storage hangs, or raise the loader's timeout; the batch "
        f"is of {_files(items, name)}."
    )


class _Here:
    """Reads in the thread that asks."""

    depth = 1

    def __init__(self, source: Source) -> None:
        self.source = source

    def ask(self, items: list[Item]) -> None:
        """Nothing is done ahead."""

    def give(self, items: list[Item]) -> Packed | Failure:
        """Read and pack a batch."""
        return pack_or_pass(self.source.__getitems__(items))

    def end(self) -> None:
        """Nothing is held."""


class _Process:
    """Reads in a process of its own, which is watched while it does, and never waits for the next thing to do."""

    depth = 2

    def __init__(self, source: Source, timeout_s: float, name: Callable[[Item], str]) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self.timeout_s, self.name = timeout_s, name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, source, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, items: list[Item]) -> None:
        """Send what is wanted; that the process is gone is said by `give`."""
        with contextlib.suppress(OSError):
            self.pipe.send(items)

    def give(self, items: list[Item]) -> Packed | Failure:
        """Take over what was read and packed.

        Raises:
            DataError: the process died or takes too long.
        """
        try:
            ready = wait([self.pipe, self.process.sentinel], self.timeout_s)
            if not ready:
                raise _too_slow(items, self.timeout_s, self.name)
            return receive(self.pipe)
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
            raise DataError(
                f"a loader process died ({how}) while it read {_files(items, self.name)}: for lack of memory (then use "
                "fewer workers, or threads), or reading one of them ends the process."
            ) from None

    def end(self) -> None:
        """End the process, whatever it is doing: it only reads."""
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, source: Source, parent: int) -> None:
    """Be a worker process: read what is asked for until the parent closes the pipe or is gone.

    Signals that a scheduler or a keyboard sends to the whole group are left to the parent, which still needs batches until
    it has saved.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            send(pipe, source.__getitems__(pipe.recv()), parent)


class _Line:
    """Batches in the making: who takes the next one, which are ready, and how far ahead threads may run."""

    def __init__(self, wanted: Iterator[list[Item]], ahead: int) -> None:
        self.wanted, self.ahead = wanted, ahead
        self.changed = threading.Condition()
        self.given = self.taken = 0
        self.items: dict[int, list[Item]] = {}
        self.ready: dict[int, Packed | Failure | BaseException] = {}
        self.ended = self.stopped = False

    def next(self, *, wait: bool) -> tuple[int, list[Item]] | None:
        """Give a thread its next batch, after waiting while too many are ready; None = there are no more, or not yet."""
        with self.changed:
            while wait and not self.stopped and not self.ended and self.given - self.taken >= self.ahead:
                self.changed.wait()
            if self.stopped or self.ended or self.given - self.taken >= self.ahead:
                return None
            number = self.given
            try:
                items = next(self.wanted, None)
            except BaseException as error:  # a mistake of ours: it must reach the consumer, not die with the thread
                self.ready[number], self.items[number], items = error, [], None
                self.given += 1
            self.ended = items is None
            if items is not None:
                self.items[number], self.given = items, number + 1
            self.changed.notify_all()
            return None if items is None else (number, items)

    def put(self, number: int, made: Packed | Failure | BaseException) -> None:
        """Hand in a batch."""
        with self.changed:
            self.ready[number] = made
            self.changed.notify_all()

    def take(self, timeout_s: float | None) -> Packed | Failure | BaseException | None:
        """Give the consumer the batch whose turn it is; None = that was the last.

        Raises:
            TimeoutError: it is not ready within the time allowed; None = wait.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self.changed:
            while self.taken not in self.ready:
                if self.ended and self.taken == self.given:
                    return None
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self.changed.wait(left)
            self.items.pop(self.taken)
            made = self.ready.pop(self.taken)
            self.taken += 1
            self.changed.notify_all()
            return made

    def awaited(self) -> list[Item]:
        """Items of the batch whose turn it is."""
        with self.changed:
            return self.items.get(self.taken, [])

    def work(self, worker: _Worker) -> None:
        """Be the thread of a worker."""
        asked: deque[tuple[int, list[Item]]] = deque()
        while True:
            task = self.next(wait=not asked) if len(asked) < worker.depth else None
            if task is not None:
                worker.ask(task[1])
                asked.append(task)
                continue
            if not asked:
                return
            number, items = asked.popleft()
            try:
                made: Packed | Failure | BaseException = worker.give(items)
            except BaseException as error:  # also a mistake of ours: it must reach the consumer
                made = error
            self.put(number, made)

    def stop(self) -> None:
        """Send the threads home."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
