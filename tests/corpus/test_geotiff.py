"""Every kind of bad or unusual scene ends as it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.geotiff import kinds
from tests.corpus.kind import Kind, every, examine


@pytest.mark.parametrize(("kind", "seed"), every(kinds()))
def test_kind_ends_as_it_must(kind: Kind, seed: int, tmp_path: Path) -> None:
    examine(kind, tmp_path, seed)
