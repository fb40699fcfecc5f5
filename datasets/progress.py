"""Progress for a person, in stages: a bar on a terminal, a line now and then elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_EVERY_S = 5.0  # between lines where there is no terminal


class Stages:
    """Shows how far each stage is; called with (what, done, total)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._stage, self._begun, self._said = quiet, "", 0.0, 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Stages:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            texts = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
            columns = (texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Note that a stage is that far."""
        if self._quiet:
            return
        if what != self._stage:
            self._stage, self._begun, self._said = what, time.monotonic(), time.monotonic()
            if self._bar is not None:
                self._task = self._bar.add_task(what, total=total, rate="")
        if self._bar is not None:
            rate = done / max(1e-9, time.monotonic() - self._begun)
            self._bar.update(self._task, completed=done, total=total, rate=f"{rate:.3g}/s")
            return
        now = time.monotonic()
        if now - self._said >= _EVERY_S:
            rate = done / (now - self._begun)
            self._said = now
            print(
                f"{what}: {done:,} of {total:,}, {rate:.1f}/s, {(total - done) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
