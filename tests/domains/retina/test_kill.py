"""A run that is killed at random moments and continued ends bit for bit where an uninterrupted one does.

HALFSEEN_KILLS=30 sets the number of kills (default 4), spread over loader workers {0, 2} x processes {1, 2 gloo ranks}.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import Outcome, Program, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("HALFSEEN_KILLS", "4"))
CASES = list(itertools.product((0, 2), (1, 2)))
STEPS = 40
SMALL = (
    "--recipe.encoder.width=24 --recipe.encoder.depth=1 --recipe.encoder.heads=2 --recipe.predictor.width=24 "
    "--recipe.predictor.heads=2 --data.streams.0.batch_size=8 --data.streams.1.batch_size=8 --optim.warmup_steps=5 "
    f"--steps={STEPS} --how.save_every=4 --how.validate_every=10"
).split()
CLOCK = ("time", "samples_per_s", "data_wait_s", "step_s")


class Job(NamedTuple):
    """A run: its ranks, and the mark in the environment of what these start."""

    ranks: list[Program]
    mark: str

    def signal(self, number: int) -> None:
        """Signal the ranks, their loaders' workers and the server that these are forks of."""
        wanted, found = f"HALFSEEN_MARK={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # it has just ended
                continue
        for rank in self.ranks:
            rank.send_signal(number)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, timeout_s: float = 400.0) -> list[Outcome]:
        """Wait for all ranks."""
        return [rank.outcome(timeout_s) for rank in self.ranks]


def _start(warm: Server, out: Path, samples: Path, workers: int, ranks: int) -> Job:
    """Start a run, or go on with it: one process per rank, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = ["tiny", "--data", samples, "--out", out, *SMALL, f"--how.workers={workers}", "--how.device=cpu"]
    words += ["--resume"] if (out / "config.yaml").exists() else []
    mark, started = uuid.uuid4().hex, []
    for rank in range(ranks):
        own = {"HALFSEEN_MARK": mark}
        if ranks > 1:
            own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            own |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(warm.start("domains.retina.pretrain", *words, environment=own))
    return Job(started, mark)


def _outcome(run: Path) -> dict[str, object]:
    """Everything that must be equal: weights, optimiser, consumed samples, and all metrics but the clock's."""
    last = run / f"step_{STEPS:06d}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] in ("step", "validation")]
    return {
        "weights": (last / "model.safetensors").read_bytes(),
        "optimiser": (last / "optimizer.safetensors").read_bytes(),
        "samples": (run / "samples.jsonl").read_text(),
        "metrics": [{k: v for k, v in line.items() if k not in CLOCK} for line in steps],
    }


@pytest.fixture(scope="module")
def references(warm, samples, tmp_path_factory):
    """The uninterrupted run of each number of ranks, its outcome and how long it took."""
    found = {}
    for ranks in (1, 2):
        out = tmp_path_factory.mktemp("reference") / f"ranks{ranks}"
        began = time.monotonic()
        ended = _start(warm, out, samples, 0, ranks).end()
        assert [rank.code for rank in ended] == [0] * ranks, ended
        found[ranks] = (_outcome(out), time.monotonic() - began)
    return found


@pytest.mark.parametrize(("workers", "ranks"), CASES)
def test_killed_and_continued_equals_uninterrupted(warm, samples, references, tmp_path, workers, ranks):
    expected, seconds = references[ranks]
    draw = random.Random(f"{workers} {ranks}")
    out, kills, survived = tmp_path / "run", 0, 0
    share = KILLS // len(CASES) + (CASES.index((workers, ranks)) < KILLS % len(CASES))
    while kills < share:
        job = _start(warm, out, samples, workers, ranks)
        time.sleep(draw.uniform(0.35 * seconds, seconds))
        job.signal(signal.SIGKILL)
        ended = job.end(60)
        if any(rank.code == -signal.SIGKILL for rank in ended):
            kills += 1
            continue
        assert [rank.code for rank in ended] == [0] * ranks, ended
        assert _outcome(out) == expected  # it finished before its kill: compare, and start over
        out, survived = tmp_path / f"run{survived}", survived + 1
    ended = _start(warm, out, samples, workers, ranks).end()
    assert [rank.code for rank in ended] == [0] * ranks, ended
    got = _outcome(out)
    assert got["samples"] == expected["samples"]
    assert got["metrics"] == expected["metrics"]
    assert got["weights"] == expected["weights"]
    assert got["optimiser"] == expected["optimiser"]
    print(f"workers {workers}, ranks {ranks}: {kills} kills, then equal in every bit")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_and_leaves(warm, samples, references, tmp_path, number, code):
    """A scheduler, or a terminal, signals loader workers too; they leave that to the process that trains."""
    out = tmp_path / "run"
    job = _start(warm, out, samples, 2, 1)
    deadline = time.monotonic() + 120
    while not (out / "samples.jsonl").exists() or (out / "samples.jsonl").read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.signal(number)
    (ended,) = job.end(60)
    assert (ended.code, "--resume" in ended.err) == (code, True), ended
    (ended,) = _start(warm, out, samples, 2, 1).end()
    assert ended.code == 0, ended
    assert _outcome(out) == references[1][0]


def test_the_same_samples_for_one_and_two_ranks(references):
    assert references[1][0]["samples"] == references[2][0]["samples"]
