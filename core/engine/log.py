"""What a run tells: metrics.jsonl always, TensorBoard on request, and a person through `core.engine.display`.

Records are kept by rank 0 alone. `samples.jsonl` says which samples each step consumed, as half-open runs of the
stream's endless order, so that a resumed run can be compared with an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from core.engine.display import Display, Silent, display
from core.errors import ConfigError, RunFolderError

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class JsonLines:
    """An append-only file of one JSON record per line, flushed with each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; a number that is not finite becomes null.

        Raises:
            RunFolderError: the disk is full or refuses.
        """
        try:
            self._file.write(json.dumps(_finite(record)).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunFolderError(
                f"{self.path} could not be written: {error.strerror}: free some space, then --resume."
            ) from error

    def position(self) -> int:
        """Flush to disk and give the length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def truncate(self, length: int) -> None:
        """Forget what came after a position; after a loss of power less may be there, and a torn last line goes too."""
        if length > self.position():
            content = self.path.read_bytes()
            length = content.rfind(b"\n") + 1
        os.ftruncate(self._file.fileno(), length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return value


def runs(indices: Iterable[int]) -> list[list[int]]:
    """Write whole numbers as half-open runs: 4 5 6 9 -> [[4, 7], [9, 10]]; order is kept."""
    found: list[list[int]] = []
    for index in indices:
        if found and found[-1][1] == index:
            found[-1][1] += 1
        else:
            found.append([index, index + 1])
    return found


class Log:
    """All that a run tells, in one place; above rank 0 it tells nothing."""

    def __init__(
        self, folder: Path, *, is_main: bool, steps: int, start: int, log_every: int, tensorboard: bool
    ) -> None:
        self.is_main = is_main
        self._files: dict[str, JsonLines] = {}
        self._board: Any = None
        self._display: Display = Silent()
        if not is_main:
            return
        if tensorboard:
            self._board = _open_tensorboard(folder / "tensorboard", start)
        self._files = {name: JsonLines(folder / name) for name in (METRICS, SAMPLES)}
        self._display = display(steps=steps, start=start, log_every=log_every)

    def event(self, event: str, **fields: Any) -> None:
        """Append one record to metrics.jsonl."""
        if self.is_main:
            self._files[METRICS].write({"event": event, **fields, "time": time.time()})

    def step(self, **fields: Any) -> None:
        """Record and show a finished step."""
        self.event("step", **fields)
        self._display.step(fields)
        self._scalars("train", fields)

    def consumed(self, step: int, stream: str, indices: Iterable[int]) -> None:
        """Record which samples of a stream's order a step used, all ranks together."""
        if self.is_main:
            self._files[SAMPLES].write({"step": step, "stream": stream, "index": runs(indices)})

    def validation(self, **fields: Any) -> None:
        """Record and show the score of one stream's held-out images."""
        self.event("validation", **fields)
        self.say(f"step {fields['step']}  held-out {fields['stream']}  loss {fields['loss']:.4f}")
        self._scalars("held_out", fields)

    def say(self, text: str) -> None:
        """Show a line to a person."""
        self._display.say(text)

    def positions(self) -> dict[str, int]:
        """Give the length of each file, flushed to disk; empty above rank 0."""
        return {name: file.position() for name, file in self._files.items()}

    def truncate(self, positions: Mapping[str, int]) -> None:
        """Go back to recorded lengths, so that repeated steps replace the lost ones."""
        for name, file in self._files.items():
            file.truncate(positions.get(name, 0))

    def _scalars(self, group: str, fields: Mapping[str, Any]) -> None:
        if self._board is not None:
            values = {"loss": fields["loss"], "lr": fields.get("lr")} | dict(fields.get("terms", {}))
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{fields['stream']}/{name}", value, fields["step"])

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()


def _open_tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "option 'how.tensorboard' needs the package tensorboard: pip install 'halfseen[tensorboard]', "
            "or leave the option out."
        ) from None
    return SummaryWriter(str(folder), purge_step=start + 1)
