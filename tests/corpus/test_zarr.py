"""Every kind of Zarr store in the corpus leads to what it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.kind import Kind, every, examine
from tests.corpus.zarr import kinds


@pytest.mark.parametrize(("kind", "seed"), every(kinds()))
def test_a_kind_leads_to_its_outcome(kind: Kind, seed: int, tmp_path: Path) -> None:
    examine(kind, tmp_path, seed)
