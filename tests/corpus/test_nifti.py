"""Every kind of bad or unusual NIfTI volume ends as it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.kind import Kind, every, examine
from tests.corpus.nifti import kinds


@pytest.mark.parametrize(("kind", "seed"), every(kinds()))
def test_kind_ends_as_it_must(kind: Kind, seed: int, tmp_path: Path) -> None:
    examine(kind, tmp_path, seed)
