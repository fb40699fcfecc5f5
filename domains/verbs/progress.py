"""How far an evaluation is and how long it will still take: a bar on a terminal, lines elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from domains.verbs.collection import say

EVERY_S = 30.0
"""Between two lines about the same piece of work."""
ENOUGH = 0.01
"""Share of the work after which it is worth guessing how long the rest will take."""


class Scoring:
    """Shows each piece of work as it begins; called with what it is, and the share of all work that is done (0 to 1)."""

    def __init__(self, whole: str) -> None:
        self._whole, self._piece, self._said = whole, "", 0.0
        self._bar: Progress | None = None

    def __enter__(self) -> Scoring:
        self._begun = time.monotonic()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._bar.add_task(self._whole, total=1.0, left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, piece: str, share: float) -> None:
        """Note that a piece of work begins."""
        now = time.monotonic()
        left = int((now - self._begun) * (1 - share) / share) if share > ENOUGH else None
        eta = "" if left is None else f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        if self._bar is not None:
            self._bar.update(self._task, completed=share, description=f"{self._whole}: {piece}", left=eta)
        elif piece != self._piece or now - self._said >= EVERY_S:
            self._piece, self._said = piece, now
            say(f"{self._whole}: {piece}  {share:.0%}  {eta}".rstrip())
