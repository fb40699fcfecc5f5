"""Progress for a person: a bar on a terminal, plain lines elsewhere. Nothing here is kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

_FIELDS = ("loss", "rate", "wait", "eta")


class Display(Protocol):
    """Shows progress to a person."""

    def step(self, record: Mapping[str, Any]) -> None:
        """Take note of a finished step."""

    def say(self, text: str) -> None:
        """Show a line."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Silent:
    """Shows nothing: the ranks above 0."""

    def step(self, record: Mapping[str, Any]) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Rate:
    """Time per step, averaged over the last steps, and what is left at that pace."""

    def __init__(self, steps: int) -> None:
        self.steps, self.step_s, self.wait_s = steps, 0.0, 0.0

    def update(self, record: Mapping[str, Any]) -> dict[str, str]:
        weight = 1.0 if not self.step_s else 0.1
        self.step_s += weight * (record["step_s"] - self.step_s)
        self.wait_s += weight * (record["data_wait_s"] - self.wait_s)
        left = int(self.step_s * (self.steps - record["step"]))
        loss = record["loss"]
        return {
            "loss": "skipped" if record.get("skipped") else f"{loss:.4f}",
            "rate": f"{record['samples'] / max(self.step_s, 1e-9):.1f} samples/s",
            "wait": f"data wait {self.wait_s / max(self.step_s, 1e-9):.0%}",
            "eta": f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}",
        }


class Lines:
    """One line on standard error every `every` steps: what a log file can hold."""

    def __init__(self, steps: int, every: int) -> None:
        self._rate, self._steps, self._every = _Rate(steps), steps, every

    def step(self, record: Mapping[str, Any]) -> None:
        """Print every `every` steps, the first and the last."""
        texts, step = self._rate.update(record), record["step"]
        if step % self._every == 0 or step in (1, self._steps):
            self.say(
                f"step {step}/{self._steps}  {record['stream']}  loss {texts['loss']}  lr {record['lr']:.2e}  "
                f"{texts['rate']}  {texts['wait']}  ETA {texts['eta']}"
            )

    def say(self, text: str) -> None:
        """Print."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to do."""


class Bar:
    """A progress bar on standard error."""

    def __init__(self, steps: int, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._rate = _Rate(steps)
        fields = [TextColumn(f"{{task.fields[{name}]}}") for name in _FIELDS]
        self._progress = Progress(
            TextColumn("pretraining"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            *fields,
            console=Console(stderr=True),
        )
        blank: dict[str, Any] = dict.fromkeys(_FIELDS, "")
        self._task = self._progress.add_task("", total=steps, completed=start, **blank)
        self._progress.start()

    def step(self, record: Mapping[str, Any]) -> None:
        """Move the bar."""
        texts: dict[str, Any] = self._rate.update(record)
        texts |= {"loss": f"loss {texts['loss']}", "eta": f"ETA {texts['eta']}"}
        self._progress.update(self._task, completed=record["step"], **texts)

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


def display(*, steps: int, start: int, log_every: int) -> Display:
    """Choose: the bar where standard error is a terminal, else lines."""
    return Bar(steps, start) if sys.stderr.isatty() else Lines(steps, log_every)
