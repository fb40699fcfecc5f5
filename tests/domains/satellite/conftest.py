"""The satellite verbs as a person types them, and scenes small enough for tests."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


@pytest.fixture
def satellite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `python -m domains.satellite.<name> <words>`."""

    def type_it(name: str, *words: object) -> Outcome:
        monkeypatch.delitem(sys.modules, f"domains.satellite.{name}", raising=False)
        monkeypatch.setattr(sys, "argv", [name, *(str(word) for word in words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_module(f"domains.satellite.{name}", run_name="__main__", alter_sys=True)
        shown = capsys.readouterr()
        return Outcome(int(left.value.code or 0), shown.out, shown.err)

    return type_it


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
