"""A warm program is what a new interpreter makes of the same words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import Outcome, Server

pytestmark = pytest.mark.slow

PROBE = '''
"""Says what it finds; then does what its first word says."""
import atexit, json, os, random, signal, sys, threading, time
from pathlib import Path

def handler(number):
    found = signal.getsignal(number)
    return getattr(found, "__name__", str(found))

found = {
    "name": __name__,
    "package": __package__,
    "main": sys.modules["__main__"].__dict__ is globals(),
    "argv": sys.argv,
    "path": sys.path,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "signals": {number.name: handler(number) for number in signal.Signals},
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task"))],
    "handles": sorted(os.listdir("/proc/self/fd")),
    "group": os.getpgid(0),
    "parts": sorted(name for name in sys.modules if name.partition(".")[0] in ("core", "datasets", "domains", "tests")),
    "standard input": sys.stdin.read(),
}
print("mine", file=sys.stderr)
atexit.register(lambda: print("left"))
if sys.argv[1] == "go":
    import numpy, torch
    found["torch"] = [torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()]
    print(json.dumps(found))
    print(json.dumps([random.random(), numpy.random.random(), torch.rand(()).item()]))
if sys.argv[1] == "wait":
    Path("waits").touch()
    time.sleep(60)
if sys.argv[1] == "break":
    raise ValueError("broken")
sys.exit({"fail": 3, "say": "a sentence"}.get(sys.argv[1], 0))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    return tmp_path


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that are started now can be interrupted, even where a shell has these tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fresh(folder: Path, *words: str) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-m", "probe", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HALFSEEN_WORD": "ä"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("interruptible")
def test_it_finds_what_a_new_interpreter_finds(warm: Server, folder: Path) -> None:
    one, two = (
        warm.run("probe", "go", "1 2", folder=folder, environment={"HALFSEEN_WORD": "ä"}),
        fresh(folder, "go", "1 2"),
    )
    found, expected = (json.loads(done.out.splitlines()[0]) for done in (one, two))
    assert found == expected
    assert found["parts"] == []
    assert found["environment"]["HALFSEEN_WORD"] == "ä"
    assert one.err == two.err == "mine\n"
    assert one.out.splitlines()[-1] == two.out.splitlines()[-1] == "left"


@pytest.mark.parametrize(
    ("word", "code", "last"),
    [("go", 0, "mine"), ("fail", 3, "mine"), ("say", 1, "a sentence"), ("break", 1, "ValueError: broken")],
)
def test_it_ends_as_a_new_interpreter_ends(warm: Server, folder: Path, word: str, code: int, last: str) -> None:
    for done in (warm.run("probe", word, folder=folder), fresh(folder, word)):
        assert done.code == code
        assert done.err.splitlines()[-1] == last
        assert done.out.splitlines()[-1] == "left"


@pytest.mark.parametrize(("number", "left"), [(signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGINT, True)])
def test_a_signal_ends_it_and_no_other(warm: Server, folder: Path, number: signal.Signals, left: bool) -> None:
    program = warm.start("probe", "wait", folder=folder)
    deadline = time.monotonic() + 60
    while not (folder / "waits").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(number)
    done = program.outcome()
    assert done.code == -number
    assert ("left" in done.out) == left
    assert program.outcome() == done
    assert warm.run("probe", "fail", folder=folder).code == 3


def test_two_at_once_draw_other_numbers_and_write_apart(warm: Server, folder: Path) -> None:
    programs = [warm.start("probe", word, folder=folder) for word in ("go", "fail", "go")]
    done = [program.outcome() for program in programs]
    assert [each.code for each in done] == [0, 3, 0]
    draws = [draw for each in done if not each.code for draw in json.loads(each.out.splitlines()[1])]
    assert len(set(draws)) == 2 * 3


def test_one_that_does_not_end_is_killed(warm: Server, folder: Path) -> None:
    program = warm.start("probe", "wait", folder=folder)
    with pytest.raises(TimeoutError, match="not done in 0.1 s"):
        program.outcome(0.1)
    assert program.outcome().code == -signal.SIGKILL


def test_what_libraries_read_when_loaded_cannot_be_chosen(warm: Server) -> None:
    with pytest.raises(ValueError, match="expected OMP_NUM_THREADS=1, .* got 2: start an interpreter"):
        warm.start("probe", environment={"OMP_NUM_THREADS": "2"})
