"""Every kind of DICOM in the corpus ends as it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.dicom import kinds
from tests.corpus.kind import Kind, every, examine

pytest.importorskip("pydicom", reason="DICOM is an extra: pip install 'halfseen[dicom]'")


@pytest.mark.parametrize(("kind", "seed"), every(kinds()))
def test_kind_ends_as_it_must(kind: Kind, seed: int, tmp_path: Path) -> None:
    examine(kind, tmp_path, seed)
