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
from functools import cache
from typing import Any, TypeVar

Handle = TypeVar("Handle")

_MOST = 32  # open handles per thread

_own = threading.local()
_left_alone: list[Any] = []  # handles of the process this one was forked from: closing them here could hang


def borrow(name: Hashable, open_it: Callable[[], Handle]) -> Handle:
    """Give this thread's open handle of that name, opening it if there is none; the least recently used is closed.

    The handle is borrowed until the next call of `borrow` in this thread. `name` must say all that `open_it` depends on.
    """
    if getattr(_own, "process", None) != os.getpid():
        _left_alone.append(getattr(_own, "open", None))
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
