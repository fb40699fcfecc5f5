"""Weights that ranks share out: the numbers of whole ones, in training, across kill -9, and on another number of ranks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.checkpoint import checkpoints, is_sharded
from tests.core.engine.same import read, training
from tests.core.engine.test_processes import complete, finish, start, wait_for_steps

pytestmark = pytest.mark.slow
SIMMIM = ("--recipe=simmim", "--dropout=0")
SHARED = (*SIMMIM, "--shard=full")


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


def cut_short(out: Path, *options: str, ranks: int) -> Path:
    """Start a run and kill it -9 once five steps are logged, of which four are saved."""
    processes = start(out, "--steps=6", "--delay=0.3", *options, ranks=ranks)
    wait_for_steps(out, 5)
    for process in processes:
        process.kill()
    finish(processes)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that holds all."""
    return complete(tmp_path_factory.mktemp("whole") / "run", "--steps=6", *SIMMIM)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that share, killed; its checkpoints are in parts."""
    out = cut_short(tmp_path_factory.mktemp("killed") / "run", *SHARED, ranks=2)
    assert checkpoints(out)
    assert all(is_sharded(folder) for folder in checkpoints(out))
    return out


@pytest.mark.parametrize("more", [(), ("--recompute",), ("--accumulate=2",)])
def test_shared_out_weights_train_as_whole_ones_do(more: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    two = complete(tmp_path / "two", "--steps=6", *SHARED, *more, ranks=2)
    if "--accumulate=2" in more:  # the mean of slices' losses is another loss
        whole = complete(tmp_path / "one", "--steps=6", *SIMMIM, *more, ranks=2)
    assert_same_numbers(whole, two, rel=1e-5 if more == ("--accumulate=2",) else 1e-6)  # parts sum slices later
    last = two / "step_000006"
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "state.json"} <= {file.name for file in last.iterdir()}


@pytest.mark.parametrize("resumed", [("full", 1), ("full", 2), ("none", 1), ("none", 2)], ids=str)
def test_parts_are_resumed_by_any_number_of_ranks(
    resumed: tuple[str, int], killed: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    (shard, ranks) = resumed
    complete(out, "--steps=6", *SIMMIM, f"--shard={shard}", "--resume", ranks=ranks)
    assert_same_numbers(whole, out)
    event = next(e for e in read(out / "metrics.jsonl") if e["event"] == "resume")
    assert event["step"] == 4
    assert is_sharded(out / "step_000006") == (resumed == ("full", 2))


def test_a_whole_checkpoint_is_resumed_in_parts(whole: Path, tmp_path: Path) -> None:
    out = cut_short(tmp_path / "run", *SIMMIM, ranks=1)
    complete(out, "--steps=6", *SHARED, "--resume", ranks=2)
    assert_same_numbers(whole, out)
    assert [is_sharded(folder) for folder in checkpoints(out)] == [True, False]


def test_killed_and_resumed_in_parts_it_equals_the_uninterrupted_run_bit_for_bit(tmp_path: Path) -> None:
    """With a teacher that averages the student, and dropped paths."""
    options = ("--recipe=latent_mim", "--dropout=0.2", "--shard=full")
    uninterrupted = complete(tmp_path / "whole", "--steps=6", *options, ranks=2)
    out = cut_short(tmp_path / "killed", *options, ranks=2)
    complete(out, "--steps=6", *options, "--resume", ranks=2)
    assert training(uninterrupted) == training(out)
    first, second = exported(uninterrupted), exported(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_average_of_parts_is_the_average_of_the_whole(tmp_path: Path) -> None:
    options = ("--steps=6", "--recipe=latent_mim", "--dropout=0.2")  # both on two ranks, whose dropped paths differ
    apart = complete(tmp_path / "apart", *options, "--shard=full", ranks=2)
    assert_same_numbers(complete(tmp_path / "whole", *options, ranks=2), apart)


def test_a_damaged_part_is_passed_over(killed: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    part = checkpoints(out)[0] / "__1_0.distcp"
    part.write_bytes(part.read_bytes()[:-1] + b"\x55")
    complete(out, "--steps=6", *SHARED, "--resume", ranks=2)
    event = next(e for e in read(out / "metrics.jsonl") if e["event"] == "resume")
    assert event["step"] == 2
    assert event["notes"][0] == "step_000004 refused: the bytes of __1_0.distcp are not those that were written"
    assert_same_numbers(whole, out)
