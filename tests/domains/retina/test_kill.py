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
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

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


def _start(out: Path, samples: Path, workers: int, ranks: int, mark: str, *, resume: bool) -> subprocess.Popen[bytes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={port}"]
    words = ["tiny", "--data", str(samples), "--out", str(out), *SMALL, f"--how.workers={workers}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "domains.retina.pretrain", *words]
    environment = os.environ | {"HALFSEEN_MARK": mark, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (out.parent / f"{out.name}.log").open("ab") as log:  # the child keeps its own handle
        return subprocess.Popen([*command, *(["--resume"] if resume else [])], env=environment, stdout=log, stderr=log)


def _marked(mark: str) -> list[int]:
    """Every process that carries the mark: ranks, loader workers, their fork server, the launcher."""
    wanted, found = f"HALFSEEN_MARK={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has just ended
            continue
    return found


def _kill_all(mark: str) -> int:
    """SIGKILL all of them, and say how many there were."""
    pids = _marked(mark)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


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
def references(samples, tmp_path_factory):
    """The uninterrupted run of each number of ranks, its outcome and how long it took."""
    found = {}
    for ranks in (1, 2):
        out = tmp_path_factory.mktemp("reference") / f"ranks{ranks}"
        began = time.monotonic()
        assert _start(out, samples, 0, ranks, uuid.uuid4().hex, resume=False).wait(timeout=400) == 0
        found[ranks] = (_outcome(out), time.monotonic() - began)
    return found


@pytest.mark.parametrize(("workers", "ranks"), CASES)
def test_killed_and_continued_equals_uninterrupted(samples, references, tmp_path, workers, ranks):
    expected, seconds = references[ranks]
    draw = random.Random(f"{workers} {ranks}")
    out, kills, survived = tmp_path / "run", 0, 0
    share = KILLS // len(CASES) + (CASES.index((workers, ranks)) < KILLS % len(CASES))
    while kills < share:
        mark = uuid.uuid4().hex
        process = _start(out, samples, workers, ranks, mark, resume=(out / "config.yaml").exists())
        try:
            code = process.wait(timeout=draw.uniform(0.35 * seconds, seconds))
        except subprocess.TimeoutExpired:
            assert _kill_all(mark) >= 1
            process.wait(timeout=60)
            kills += 1
            continue
        assert code == 0, (tmp_path / "run.log").read_text()[-3000:]
        assert _outcome(out) == expected  # it finished before its kill: compare, and start over
        out, survived = tmp_path / f"run{kills}", survived + 1
    mark = uuid.uuid4().hex
    final = _start(out, samples, workers, ranks, mark, resume=(out / "config.yaml").exists())
    assert final.wait(timeout=400) == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]
    got = _outcome(out)
    assert got["samples"] == expected["samples"]
    assert got["metrics"] == expected["metrics"]
    assert got["weights"] == expected["weights"]
    assert got["optimiser"] == expected["optimiser"]
    print(f"workers {workers}, ranks {ranks}: {kills} kills, then equal in every bit")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_saves_and_leaves_with_75(samples, references, tmp_path, number):
    """A scheduler signals loader workers too; they leave that to the process that trains."""
    out, mark = tmp_path / "run", uuid.uuid4().hex
    process = _start(out, samples, 2, 1, mark, resume=False)
    deadline = time.monotonic() + 120
    while not (out / "samples.jsonl").exists() or (out / "samples.jsonl").read_bytes().count(b"\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for pid in _marked(mark):
        os.kill(pid, number)
    assert process.wait(timeout=60) == 75
    assert "--resume" in (tmp_path / "run.log").read_text()
    assert _start(out, samples, 2, 1, mark, resume=True).wait(timeout=200) == 0
    assert _outcome(out) == references[1][0]


def test_the_same_samples_for_one_and_two_ranks(references):
    assert references[1][0]["samples"] == references[2][0]["samples"]
