"""`import core` costs what torch costs and no more: every loader worker pays it."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.imports import import_pairs

ROOT = Path(__file__).resolve().parent.parent
HEAVY = "torch timm monai torchvision sklearn torchmetrics pyarrow dask nibabel PIL datasets domains".split()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["core", "core.batch"])
def test_import_is_no_slower_than_import_torch(module: str) -> None:
    ratios = [ours / torch for ours, torch in import_pairs(module, "torch", 3)]
    assert statistics.median(ratios) <= 1.2, ratios


def _loaded_by(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()


def test_import_core_loads_no_heavy_library() -> None:
    assert _loaded_by("import core") == []


@pytest.mark.slow
def test_import_of_a_batch_loads_torch_alone() -> None:
    assert _loaded_by("import core.batch") == ["torch"]
