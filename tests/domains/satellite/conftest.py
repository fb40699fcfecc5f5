"""The satellite verbs as a person types them, and scenes small enough for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def satellite(typed: Callable[..., Any]) -> Callable[..., Any]:
    """Run `python -m domains.satellite.<name> <words>`."""
    return partial(typed, "satellite")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn collection: 6 scenes of Sentinel-2 in up to four files each, with labels.csv."""
    from datasets import scene_set

    return scene_set(tmp_path_factory.mktemp("scenes") / "set", scenes=6, size=(192, 192))


@pytest.fixture(scope="session")
def scene_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on them; tests that change it copy it."""
    from core.cli import Options
    from core.config import Typed, assemble, to_dict
    from core.engine.config import Pretrain
    from domains.satellite.pretrain import run, tiny
    from tests.domains.satellite.writing import SMALL

    words = dict(word.removeprefix("--").split("=", 1) for word in SMALL)
    options: dict[str, object] = {name: Typed(value) for name, value in words.items()}
    options |= {"data.paths": [str(scenes / "labels.csv")], "data.group": "scene"}
    config = assemble(Pretrain, to_dict(tiny()), options)
    return run(config, Options(out=tmp_path_factory.mktemp("runs") / "scenes", preset="tiny"))
