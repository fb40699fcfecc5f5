from __future__ import annotations

import io
import sys

import pytest

from domains.verbs import progress
from domains.verbs.progress import Scoring


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_name_each_piece_once_and_guess_the_rest(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Scoring("curve") as tell:
        tell("encoder, k-NN", 0.0)
        clock[0] += 10
        tell("encoder, linear probe", 0.1)
        clock[0] += 29
        tell("encoder, linear probe", 0.3)  # the same piece, said less than 30 s ago
        clock[0] += 1
        tell("encoder, linear probe", 0.5)
        clock[0] += 4060
        tell("intervals", 0.25)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "curve: encoder, k-NN  0%",
        "curve: encoder, linear probe  10%  ETA 0:01:30",
        "curve: encoder, linear probe  50%  ETA 0:00:40",
        "curve: intervals  25%  ETA 3:25:00",
    ]


def test_a_terminal_has_a_bar_that_is_gone_afterwards(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", "160")
    with Scoring("table") as tell:
        clock[0] += 30
        tell("encoder, linear probe", 0.25)
        assert tell._bar is not None
        tell._bar.refresh()
        shown = out.getvalue()
    assert "table: encoder, linear probe" in shown
    assert "25%" in shown
    assert "ETA 0:01:30" in shown
