"""What an import costs, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def import_seconds(module: str) -> float:
    """Time one import; the interpreter's own start is not counted."""
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return float(done.stdout)


def import_pairs(one: str, other: str, pairs: int) -> list[tuple[float, float]]:
    """Time two imports in turn, so that a noisy neighbour meets both; the first pair fills the page cache unseen."""
    timed = [(import_seconds(one), import_seconds(other)) for _ in range(pairs + 1)]
    return timed[1:]
