"""How far an evaluation is and how long it will still take: a bar on a terminal, lines elsewhere; on standard error."""

from __future__ import annotations

import time

from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn

from datasets.progress import Bar
from domains.verbs.collection import say

EVERY_S = 30.0
"""Between two lines about the same piece of work."""
ENOUGH = 0.01
"""Share of the work after which it is worth guessing how long the rest will take."""


class Scoring(Bar):
    """Shows each piece of work as it begins; called with what it is, and the share of all work that is done (0 to 1)."""

    def __init__(self, whole: str) -> None:
        super().__init__()
        self._whole, self._piece, self._said, self._begun = whole, "", 0.0, time.monotonic()

    def columns(self) -> tuple[ProgressColumn, ...]:
        """Show the piece of work, the share that is done, and how long the rest will take."""
        return (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))

    def __call__(self, piece: str, share: float) -> None:
        """Note that a piece of work begins."""
        now = time.monotonic()
        left = int((now - self._begun) * (1 - share) / share) if share > ENOUGH else None
        eta = "" if left is None else f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._whole, total=1.0, left="")
            self._bar.update(self._task, completed=share, description=f"{self._whole}: {piece}", left=eta)
        elif piece != self._piece or now - self._said >= EVERY_S:
            self._piece, self._said = piece, now
            say(f"{self._whole}: {piece}  {share:.0%}  {eta}".rstrip())
