"""What is kept and what is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.engine.display import Bar, Lines
from core.engine.log import JsonLines, Log, runs
from core.errors import ConfigError

STEP = {
    "step": 10,
    "stream": "photograph",
    "loss": 0.5,
    "terms": {"image": 0.5},
    "lr": 1e-3,
    "skipped": False,
    "samples": 8,
    "samples_per_s": 16.0,
    "data_wait_s": 0.1,
    "step_s": 0.5,
}


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[JsonLines]:
    log = JsonLines(tmp_path / "log.jsonl")
    yield log
    log.close()


def test_each_record_is_on_disk_at_once(lines: JsonLines) -> None:
    lines.write({"a": 1})
    assert lines.path.read_text() == '{"a": 1}\n'


def test_numbers_that_json_lacks_become_null(lines: JsonLines) -> None:
    lines.write({"loss": float("nan"), "terms": {"x": float("inf"), "y": 1.5}})
    assert json.loads(lines.path.read_text()) == {"loss": None, "terms": {"x": None, "y": 1.5}}


def test_going_back_forgets_what_came_after(lines: JsonLines) -> None:
    lines.write({"a": 1})
    position = lines.position()
    lines.write({"a": 2})
    lines.truncate(position)
    lines.write({"a": 3})
    assert lines.path.read_text() == '{"a": 1}\n{"a": 3}\n'


def test_log_shorter_than_recorded_loses_only_its_torn_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n{"a"')
    log = JsonLines(tmp_path / "log.jsonl")
    log.truncate(1000)
    log.write({"a": 2})
    log.close()
    assert (tmp_path / "log.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([], []), ([4, 5, 6], [[4, 7]]), ([4, 5, 9, 8], [[4, 6], [9, 10], [8, 9]]), ([3, 3], [[3, 4], [3, 4]])],
)
def test_indices_are_written_as_half_open_runs(indices: list[int], expected: list[list[int]]) -> None:
    assert runs(indices) == expected
    assert [i for first, end in runs(indices) for i in range(first, end)] == indices


def test_plain_lines_come_every_so_often_first_and_last(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines(steps=25, every=10)
    for step in range(1, 26):
        shown.step(STEP | {"step": step})
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[1] for line in err.splitlines()] == ["1/25", "10/25", "20/25", "25/25"]
    first = "step 1/25  photograph  loss 0.5000  lr 1.00e-03  16.0 samples/s  data wait 20%  ETA 0:00:12"
    assert err.splitlines()[0] == first


def test_skipped_step_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(steps=10, every=1).step(STEP | {"loss": float("nan"), "skipped": True})
    assert "loss skipped" in capsys.readouterr().err


def test_bar_shows_loss_rate_wait_and_eta(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = Bar(steps=20, start=5)
    bar.step(STEP)
    bar.say("held-out [loss] 0.4")
    bar.close()
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("10/20", "loss 0.5000", "16.0 samples/s", "data wait 20%", "ETA 0:00:05", "held-out [loss] 0.4"):
        assert text in err


def log(folder: Path, **options: Any) -> Log:
    return Log(folder, **({"is_main": True, "steps": 20, "start": 0, "log_every": 10, "tensorboard": False} | options))


def test_ranks_above_0_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log(tmp_path, is_main=False, tensorboard=True) as silent:
        silent.step(**STEP)
        silent.consumed(1, "photograph", [1])
        silent.validation(**STEP)
        silent.say("hello")
        silent.truncate(silent.positions())
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")
    with log(tmp_path, tensorboard=True) as kept:
        kept.step(**STEP)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {f"train/photograph/{name}" for name in ("loss", "lr", "image")}
    assert [(e.step, e.value) for e in events.Scalars("train/photograph/loss")] == [(10, 0.5)]


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'halfseen\[tensorboard\]'"):
        log(tmp_path, tensorboard=True)
