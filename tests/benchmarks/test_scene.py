"""A scene that exists only as a formula is mapped in the memory that was said beforehand, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the peak of a process as Linux counts it")
def test_memory_is_what_was_said_and_nodata_is_kept() -> None:
    words = [sys.executable, "-m", "benchmarks.scene", "--hold", "2500"]
    out = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(out.splitlines()[-1])
    assert found["windows"] == found["seen"] == 169
    assert found["wrong_nodata"] == 0
    assert 0 < found["peak_mb"] - found["libraries_mb"] < found["said_mb"]
