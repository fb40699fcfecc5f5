"""Bad and unusual input, one module per format, generated in code: what each must lead to is part of its description."""

from __future__ import annotations

from pathlib import Path

import pytest

# The checks of kinds say what they compared, as those of tests do. By file: this package itself is imported already.
pytest.register_assert_rewrite(*(f"{__name__}.{file.stem}" for file in sorted(Path(__file__).parent.glob("[a-z]*.py"))))
