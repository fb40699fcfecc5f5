"""Leaving politely: a signal sets a flag, the loop reads it once per step, saves, and ends with exit code 75.

75 is EX_TEMPFAIL of sysexits.h, "try again": a scheduler that requeues on it continues the run with `--resume`. SIGTERM
is what schedulers and torchrun send before they kill; SIGUSR1 is SLURM's early warning (`--signal=USR1@120`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

EXIT_CODE = 75


class Preempted(SystemExit):
    """The run was asked to leave and has saved itself; ends the process with exit code 75 unless caught.

    Attributes:
        path: the run folder.
        step: steps done and saved.
    """

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(EXIT_CODE)
        self.path, self.step = path, step

    def __str__(self) -> str:
        return f"asked to stop: saved {self.path} at step {self.step}"


def leave(code: int) -> NoReturn:
    """End this process with an exit code; one of several does so at once, without the libraries' own farewells."""
    sys.stdout.flush()
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)
    sys.exit(code)


class Signals:
    """While entered, SIGTERM and SIGUSR1 set `received` instead of ending the process."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there Python delivers signals
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
