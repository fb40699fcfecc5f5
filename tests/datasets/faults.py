"""Faults to inject: files that rot, and datasets whose reading raises, hangs, dies; importable by worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from core.errors import DataError
from datasets.sample import Item, Sample
from datasets.tiles import TileDataset


def damage(path: Path) -> None:
    """Zero the second half of a file's bytes and leave its size and time alone, as a rotting disk does."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


class Unpicklable(Exception):
    """An error that no process can send: it holds a lock."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Faulty(TileDataset):
    """Reads like its base, but for one row, where the fault named happens."""

    fault: str = "none"
    row: int = -1

    def __getitem__(self, item: Item) -> Sample:
        """Read, or fail."""
        if item.row == self.row:
            if self.fault == "unpicklable":
                raise Unpicklable("a lock\nand a second line")
            if self.fault == "assertion":
                raise AssertionError("our own mistake")
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "sleeps":
                time.sleep(60)
            if self.fault == "exit":
                os._exit(3)
            if self.fault == "data":
                raise DataError(f"{self.manifest.path(item.row)}: is bad.")
        return super().__getitem__(item)
