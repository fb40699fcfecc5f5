"""Where the reference numbers are."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    """Give the folder of reference numbers."""
    return shared / "parity"
