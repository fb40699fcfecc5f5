"""Verbs typed as a user types them, in this process."""

from __future__ import annotations

import runpy
import sys
from dataclasses import dataclass

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
def verb(monkeypatch, capsys):
    """Run `python -m domains.retina.<name> <words>`."""

    def type_it(name: str, *words: object) -> Outcome:
        monkeypatch.delitem(sys.modules, f"domains.retina.{name}", raising=False)
        monkeypatch.setattr(sys, "argv", [name, *(str(word) for word in words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            runpy.run_module(f"domains.retina.{name}", run_name="__main__", alter_sys=True)
        shown = capsys.readouterr()
        return Outcome(int(left.value.code or 0), shown.out, shown.err)

    return type_it
