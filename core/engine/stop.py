"""Leaving politely: a signal sets a flag, the loop reads it once per step, saves, and ends with exit code 75 or 130.

75 is EX_TEMPFAIL of sysexits.h, "try again": a scheduler that requeues on it continues the run with `--resume`. SIGTERM
is what schedulers and torchrun send before they kill; SIGUSR1 is SLURM's early warning (`--signal=USR1@120`). SIGINT is a
person's Ctrl-C: 130 by custom, so that nothing starts the run again; a second one ends it at once, unsaved.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

EXIT_CODE = 75
INTERRUPTED = 130
_AGAIN_S = 1.0  # torchrun passes on what the keyboard has sent to its processes already


class Preempted(SystemExit):
    """The run was asked to leave and has saved itself; ends the process with exit code 75, or 130, unless caught.

    Attributes:
        path: the run folder.
        step: steps done and saved.
    """

    code: int

    def __init__(self, path: Path, step: int, code: int = EXIT_CODE) -> None:
        super().__init__(code)
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
    """While entered, SIGTERM, SIGUSR1 and the first SIGINT set `received` instead of ending the process.

    Attributes:
        received: whether one came.
        code: what the process should end with then.
    """

    def __init__(self) -> None:
        self.received, self.code = False, EXIT_CODE
        self._before: dict[int, object] = {}
        self._interrupted_at: float | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted_at is None:
            self._interrupted_at, self.code = now, INTERRUPTED
            if os.environ.get("RANK", "0") == "0":  # not by `print`, which this may have interrupted
                with contextlib.suppress(OSError):  # nobody may be reading
                    os.write(2, b"\nstopping after this step, to save; Ctrl-C again stops at once and saves nothing\n")
        elif now - self._interrupted_at > _AGAIN_S:
            raise KeyboardInterrupt

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only there Python delivers signals
            self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
