"""Progress for a person, in stages: a bar on a terminal, a line now and then elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

_EVERY_S = 5.0  # between lines where there is no terminal


class Bar(ABC):
    """A bar that is there while the work is, where standard error is a terminal; subclasses say what it shows."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    @abstractmethod
    def columns(self) -> tuple[ProgressColumn, ...]:
        """Give what stands side by side on its line."""

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(*self.columns(), console=Console(file=sys.stderr), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class Stages(Bar):
    """Shows how far each stage is; called with (what, done, total)."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._stage, self._begun, self._said = "", 0.0, 0.0

    def columns(self) -> tuple[ProgressColumn, ...]:
        """Show the stage, how many are done, how fast, and how long the rest will take."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        texts = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
        return (texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn())

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
