"""Open files, kept per process and thread: no handle is ever used by two threads or on both sides of a fork.

Readers of formats with an expensive `open` (GeoTIFF, HDF, slides) borrow theirs here; a source itself holds only facts
and stays picklable. A library handle shared over a fork returned wrong pixels for 197 of 450 windows (measured), so a
process that finds another process's handles leaves them alone and opens its own.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

Handle = TypeVar("Handle")

_MOST = 32  # open handles per thread

_own = threading.local()
_left_alone: list[Any] = []  # handles of the process this one was forked from: closing them here could hang


def borrow(name: Hashable, open_it: Callable[[], Handle]) -> Handle:
    """Give this thread's open handle of that name, opening it if there is none; the least recently used is closed.

    The handle is borrowed until the next call of `borrow` in this thread. `name` must say all that `open_it` depends on.
    """
    if getattr(_own, "process", None) != os.getpid():
        if hasattr(_own, "open"):  # a thread that is new has none
            _left_alone.append(_own.open)
        _own.process, _own.open = os.getpid(), OrderedDict()
    held: OrderedDict[Hashable, Any] = _own.open
    if name in held:
        held.move_to_end(name)
    else:
        held[name] = open_it()
        while len(held) > _MOST:
            _close(held.popitem(last=False)[1])
    handle: Handle = held[name]
    return handle


def discard(name: Hashable) -> None:
    """Close this thread's handle of that name, if it has one; for a file that failed and may have been replaced."""
    if getattr(_own, "process", None) == os.getpid() and name in _own.open:
        _close(_own.open.pop(name))


def borrow_file(kind: str, path: Path, open_it: Callable[[], Handle]) -> Handle:
    """Borrow the handle of a file by its path; where another file has that name by now, or it changed, it is opened anew.

    `discard((kind, path))` closes it.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - on the path of every window
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError:  # gone: opening it says so
        stamp = (0, 0, 0)
    held = borrow((kind, path), lambda: _Stamped(stamp, open_it()))
    if held.stamp != stamp:
        discard((kind, path))  # first: a library may take an open file of one inode for the same
        held = borrow((kind, path), lambda: _Stamped(stamp, open_it()))
    return held.handle


@dataclass(frozen=True)
class _Stamped(Generic[Handle]):
    """A handle, and what its file was when it was opened: inode, size and time of modification."""

    stamp: tuple[int, int, int]
    handle: Handle

    def close(self) -> None:
        _close(self.handle)


@cache
def let_dask_fork() -> None:
    """Give processes that are forked from this one dask thread pools of their own; once is enough.

    Dask keeps its pools for the life of a process, and a forked child inherits them without their threads: it would wait
    for ever at the first `compute`.
    """

    def forget() -> None:
        from dask import threaded

        threaded.default_pool = None
        threaded.pools.clear()
        threaded.pools_lock = threading.Lock()  # the one that was copied may be held for ever

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _close(handle: Any) -> None:
    close = getattr(handle, "close", None)
    if close is not None:
        close()
