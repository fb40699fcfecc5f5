"""Whether two run folders hold the same training: bytes of the weights, and logs without what depends on the clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_CLOCK = {"time", "samples_per_s", "data_wait_s", "step_s"}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def training(run: Path) -> list[dict[str, Any]]:
    """Steps and scores of metrics.jsonl in order; the events of starting and stopping are not training."""
    kept = (e for e in read(run / "metrics.jsonl") if e["event"] in ("step", "validation", "validation_mean"))
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def assert_same_run(one: Path, two: Path, step: int) -> None:
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = ((run / f"step_{step:06d}" / name).read_bytes() for run in (one, two))
        assert first == second, f"{name} differs"
    assert (one / "samples.jsonl").read_text() == (two / "samples.jsonl").read_text()
    assert training(one) == training(two)
    assert (one / "encoder/model.safetensors").read_bytes() == (two / "encoder/model.safetensors").read_bytes()
