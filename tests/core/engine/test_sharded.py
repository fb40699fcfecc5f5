"""Weights that ranks share out: the numbers of whole ones, in training, across kill -9, and on another number of ranks."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.checkpoint import checkpoints, is_sharded
from tests.core.engine.same import read, training
from tests.core.engine.stub import told, train_as
from tests.core.engine.test_processes import complete, finish, start, wait_for_steps
from tests.programs import Server

# One worker runs them all, where workers take tests by group: they share the runs of two pairs of processes.
pytestmark = pytest.mark.slow
SIMMIM = ("--recipe=simmim", "--dropout=0")
SHARED = (*SIMMIM, "--shard=full")
LATENT = ("--recipe=latent_mim", "--dropout=0.2")  # a teacher that averages the student, and dropped paths


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in training(run)]


def exported(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "encoder/model.safetensors")


def assert_same_numbers(one: Path, two: Path, *, rel: float = 1e-6) -> None:
    """Losses, held-out losses and gradient norms of two runs, and the encoders that they leave."""
    assert losses(one) == pytest.approx(losses(two), rel=rel)
    norms = ([event["grad_norm"] for event in training(run) if "grad_norm" in event] for run in (one, two))
    assert next(norms) == pytest.approx(next(norms), rel=1e-5)
    assert (one / "samples.jsonl").read_text() == (two / "samples.jsonl").read_text()
    first, second = exported(one), exported(two)
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 10 * rel


def one_after_another(runs: Mapping[Path, tuple[str, ...]]) -> list[str]:
    """Give the words that have the same processes make several runs."""
    return [word for out, options in runs.items() for word in ("then", str(out), *options)][1:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This process, which holds all: a run to its end, and one that dies after five steps, of which four are saved."""
    folder = tmp_path_factory.mktemp("alone")
    train_as(told(str(folder / "whole"), *SIMMIM))
    train_as(told(str(folder / "cut"), *SIMMIM, "--die=5"))
    return folder


@pytest.fixture(scope="module")
def pair(warm: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that share weights out, or do not; the last of their runs is killed -9 after five steps."""
    folder = tmp_path_factory.mktemp("pair")
    runs = {
        folder / "shared": SHARED,
        folder / "recomputed": (*SHARED, "--recompute"),
        folder / "slices": (*SIMMIM, "--accumulate=2"),  # the mean of slices' losses is another loss
        folder / "shared slices": (*SHARED, "--accumulate=2"),
        folder / "cut": (*SHARED, "--die=5"),
        folder / "latent": LATENT,
        folder / "shared latent": (*LATENT, "--shard=full"),
        folder / "killed": (*LATENT, "--shard=full", "--delay=0.3"),
    }
    processes = start(warm, *one_after_another(runs), ranks=2)
    wait_for_steps(folder / "killed", 5, patience_s=180)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    finish(processes)
    for cut in ("cut", "killed"):
        assert [(file.name, is_sharded(file)) for file in checkpoints(folder / cut)] == [
            ("step_000004", True),
            ("step_000002", True),
        ]
    return folder


def copied(run: Path, out: Path) -> Path:
    shutil.copytree(run, out)
    return out


@pytest.fixture(scope="module")
def resumed(warm: Server, alone: Path, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What others began, taken to its end by two processes and by this one."""
    folder = tmp_path_factory.mktemp("resumed")
    damaged = copied(pair / "cut", folder / "damaged")
    part = damaged / "step_000004/__1_0.distcp"
    part.write_bytes(part.read_bytes()[:-1] + b"\x55")
    two = {
        copied(pair / "cut", folder / "full 2"): (*SHARED, "--resume"),
        copied(pair / "cut", folder / "none 2"): (*SIMMIM, "--resume"),
        copied(alone / "cut", folder / "was whole"): (*SHARED, "--resume"),
        damaged: (*SHARED, "--resume"),
        copied(pair / "killed", folder / "latent"): (*LATENT, "--shard=full", "--resume"),
    }
    complete(warm, *one_after_another(two), ranks=2)
    for name, options in (("full 1", SHARED), ("none 1", SIMMIM)):
        train_as(told(str(copied(pair / "cut", folder / name)), *options, "--resume"))
    return folder


def resumption(run: Path) -> dict[str, Any]:
    return next(e for e in read(run / "metrics.jsonl") if e["event"] == "resume")


@pytest.mark.parametrize("run", ["shared", "recomputed"])
def test_shared_out_weights_train_as_whole_ones_do(run: str, alone: Path, pair: Path) -> None:
    assert_same_numbers(alone / "whole", pair / run)
    names = {file.name for file in (pair / run / "step_000006").iterdir()}
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "state.json"} <= names


def test_shared_out_weights_sum_slices_as_whole_ones_do(pair: Path) -> None:
    assert not is_sharded(pair / "slices/step_000006")
    assert is_sharded(pair / "shared slices/step_000006")
    assert_same_numbers(pair / "slices", pair / "shared slices", rel=1e-5)  # parts sum slices later


@pytest.mark.parametrize(("shard", "ranks"), [("full", 1), ("full", 2), ("none", 1), ("none", 2)])
def test_parts_are_resumed_by_any_number_of_ranks(shard: str, ranks: int, alone: Path, resumed: Path) -> None:
    out = resumed / f"{shard} {ranks}"
    assert_same_numbers(alone / "whole", out)
    assert resumption(out)["step"] == 4
    assert is_sharded(out / "step_000006") == (shard == "full" and ranks == 2)


def test_a_whole_checkpoint_is_resumed_in_parts(alone: Path, resumed: Path) -> None:
    out = resumed / "was whole"
    assert_same_numbers(alone / "whole", out)
    assert resumption(out)["step"] == 4
    assert [is_sharded(folder) for folder in checkpoints(out)] == [True, False]


def test_killed_and_resumed_in_parts_it_equals_the_uninterrupted_run_bit_for_bit(pair: Path, resumed: Path) -> None:
    one, two = pair / "shared latent", resumed / "latent"
    assert resumption(two)["step"] == 4
    assert training(one) == training(two)
    first, second = exported(one), exported(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_average_of_parts_is_the_average_of_the_whole(pair: Path) -> None:
    assert_same_numbers(pair / "latent", pair / "shared latent")  # both of two ranks, whose dropped paths differ


def test_a_damaged_part_is_passed_over(alone: Path, resumed: Path) -> None:
    event = resumption(resumed / "damaged")
    assert event["step"] == 2
    assert event["notes"][0] == "step_000004 refused: the bytes of __1_0.distcp are not those that were written"
    assert_same_numbers(alone / "whole", resumed / "damaged")
