"""Several processes, signals and kill -9, in processes of their own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.core.engine.same import assert_same_run, read, training
from tests.programs import Program, Server

ROOT = Path(__file__).resolve().parents[3]
# One worker runs them all, where workers take tests by group: they share the runs of one fixture.
pytestmark = pytest.mark.slow


def start(warm: Server, out: Path | str, *options: str, ranks: int = 1, odd: str | None = None) -> list[Program]:
    """Start the stub run, one process per rank, as torchrun would; `odd` is an extra option of rank 1 alone.

    The word `then` among the options begins another run of the same processes: a start costs more than a run.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank in range(ranks):
        env: dict[str, str] = {}
        if ranks > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        extra = [odd] if odd and rank == 1 else []
        started.append(warm.start("tests.core.engine.stub", out, *options, *extra, environment=env))
    return started


def finish(programs: list[Program]) -> tuple[list[int], list[str]]:
    ended = [program.outcome() for program in programs]
    return [each.code for each in ended], [each.err for each in ended]


def complete(warm: Server, out: Path | str, *options: str, ranks: int = 1) -> None:
    codes, texts = finish(start(warm, out, *options, ranks=ranks))
    assert codes == [0] * ranks, texts


def wait_for_steps(out: Path, count: int, *, patience_s: float = 60) -> None:
    """Return once so many steps are in the log, whatever it held before."""
    log = out / "samples.jsonl"
    deadline = time.monotonic() + patience_s
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(warm: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one and of two ranks: a run with dropout, and one without; of two ranks also one that dies after four steps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    plain = ("--steps=6", "--dropout=0")
    complete(warm, folder / "1", "--steps=12", "then", str(folder / "one"), *plain)
    two = ("then", str(folder / "two"), *plain, "then", str(folder / "mixed"), *plain, "--die=4")
    complete(warm, folder / "2", "--steps=12", *two, ranks=2)
    return folder


@pytest.fixture(scope="module")
def whole(uninterrupted: Path) -> dict[int, Path]:
    """The runs of one and of two ranks that nothing interrupted."""
    return {ranks: uninterrupted / str(ranks) for ranks in (1, 2)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_random_moments_and_resumed_it_equals_the_uninterrupted_run(
    warm: Server, ranks: int, whole: dict[int, Path], tmp_path: Path
) -> None:
    moments = random.Random(ranks)
    out = tmp_path / "killed"
    for at_least in (2, 7):
        processes = start(warm, out, "--steps=12", "--delay=0.1", "--auto", ranks=ranks)
        wait_for_steps(out, at_least)
        time.sleep(moments.uniform(0.0, 0.3))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        codes, _ = finish(processes)
        assert codes == [-signal.SIGKILL] * ranks
    complete(warm, out, "--steps=12", "--auto", ranks=ranks)
    assert_same_run(whole[ranks], out, step=12)


def test_signal_to_one_rank_stops_both_at_one_step_with_exit_code_75(
    warm: Server, whole: dict[int, Path], tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    processes = start(warm, out, "--steps=12", "--delay=0.2", ranks=2)
    wait_for_steps(out, 3)
    processes[1].send_signal(signal.SIGTERM)
    codes, texts = finish(processes)
    assert codes == [75, 75], texts
    stopped = read(out / "metrics.jsonl")[-1]
    assert stopped["event"] == "stop"
    assert (out / "last").read_text() == f"step_{stopped['step']:06d}\n"
    assert 3 <= stopped["step"] < 12
    complete(warm, out, "--steps=12", "--resume", ranks=2)
    assert_same_run(whole[2], out, step=12)


def test_two_ranks_train_as_one_process_does(warm: Server, uninterrupted: Path, tmp_path: Path) -> None:
    """Dropout is off: its draws belong to ranks. Validity differs between the ranks' samples."""
    one, two, mixed = uninterrupted / "one", uninterrupted / "two", tmp_path / "mixed"
    shutil.copytree(uninterrupted / "mixed", mixed)
    assert (mixed / "last").read_text() == "step_000004\n"
    complete(warm, mixed, "--steps=6", "--dropout=0", "--resume")

    reference = load_file(one / "step_000006/model.safetensors")
    for other in (two, mixed):
        assert (other / "samples.jsonl").read_text() == (one / "samples.jsonl").read_text()
        weights = load_file(other / "step_000006/model.safetensors")
        assert max(float((weights[name] - reference[name]).abs().max()) for name in reference) < 1e-5
        for a, b in zip(training(one), training(other), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_ranks_with_different_options_are_refused_by_all(warm: Server, tmp_path: Path) -> None:
    codes, texts = finish(start(warm, tmp_path / "run", ranks=2, odd="--steps=7"))
    assert codes == [1, 1]
    assert all("error: expected one config on all ranks, got rank 0: " in text for text in texts), texts


def test_refusal_on_rank_0_reaches_every_rank(warm: Server, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    codes, texts = finish(start(warm, tmp_path / "run", ranks=2))
    assert codes == [1, 1]
    assert all("exists: continue that run with --resume" in text for text in texts), texts


def test_torchrun_starts_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={0}",
        "--standalone",
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.core.engine.stub", str(tmp_path / "run"), "--steps=2"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    start_event = read(tmp_path / "run/metrics.jsonl")[0]
    assert start_event["world_size"] == 2
    assert torch.isfinite(load_file(tmp_path / "run/step_000002/model.safetensors")["heads.volume.weight"]).all()
