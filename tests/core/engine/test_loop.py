"""Whole runs in this process: resuming is exact, damage is walked around, and mistakes are told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.batch import Batch
from core.engine import stop
from core.engine.config import How, Optim
from core.engine.distributed import World
from core.engine.loop import build, fit
from core.engine.run_folder import open_run
from core.engine.stop import Preempted
from core.errors import CheckpointError, ConfigError, DataError, NumericsError
from tests.core.engine.same import assert_same_run, read, training
from tests.core.engine.stub import ALONE, Loader, StubRecipeSpec, pretrain, train


class PowerError(Exception):
    """The power fails."""


def train_until(out: Path, step: int, *, resume: bool = False) -> None:
    """Train, and die while the batch after `step` is loaded."""
    settings = pretrain()
    loader = Loader()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for at, batch in enumerate(loader.batches(start, stop), start):
            if at == step:
                raise PowerError
            yield batch

    with open_run(out, settings, world=ALONE, resume=resume) as run, pytest.raises(PowerError):
        fit(
            build(settings.recipe, settings.seed), settings, run, batches=batches, world=ALONE, held_out=loader.held_out
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "run", pretrain())


def test_run_leaves_what_the_house_promises(whole: Path) -> None:
    out = whole
    names = {p.name for p in out.iterdir()}
    assert names == {
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "samples.jsonl",
        "step_000004",
        "step_000006",
        "last",
        "encoder",
        "lock",
    }
    events = [event["event"] for event in read(out / "metrics.jsonl")]
    scores = ["validation", "validation", "validation_mean"]
    assert events == ["start", *scores, *["step"] * 3, *scores, *["step"] * 3, *scores, "end"]
    step = next(e for e in read(out / "metrics.jsonl") if e["event"] == "step")
    assert {
        "step",
        "stream",
        "loss",
        "terms",
        "lr",
        "grad_norm",
        "samples_per_s",
        "data_wait_s",
        "step_s",
        "time",
    } <= set(step)


def test_streams_take_turns_and_every_sample_is_recorded(tmp_path: Path) -> None:
    out = train(tmp_path / "run", pretrain(4))
    assert read(out / "samples.jsonl") == [
        {"step": 1, "stream": "photograph", "index": [[0, 8]]},
        {"step": 2, "stream": "volume", "index": [[0, 8]]},
        {"step": 3, "stream": "photograph", "index": [[8, 16]]},
        {"step": 4, "stream": "volume", "index": [[8, 16]]},
    ]


def test_training_lowers_the_held_out_loss(tmp_path: Path) -> None:
    out = train(tmp_path / "run", pretrain(60, how=How(device="cpu", save_every=60, validate_every=60)))
    losses = [e["loss"] for e in read(out / "metrics.jsonl") if e["event"] == "validation_mean"]
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize("died", [1, 2, 3, 4, 5])
def test_crash_and_resume_equals_the_uninterrupted_run(whole: Path, died: int, tmp_path: Path) -> None:
    train_until(tmp_path / "broken", died)
    broken = train(tmp_path / "broken", pretrain(), resume=True)
    assert_same_run(whole, broken, step=6)


def test_several_crashes_change_nothing(whole: Path, tmp_path: Path) -> None:
    for attempt, died in enumerate((3, 5, 4)):
        train_until(tmp_path / "broken", died, resume=attempt > 0)
    assert_same_run(whole, train(tmp_path / "broken", pretrain(), resume=True), step=6)


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path: Path) -> None:
    one, two = train(tmp_path / "one", pretrain(2)), train(tmp_path / "two", pretrain(2))
    assert_same_run(one, two, step=2)
    other = train(tmp_path / "other", pretrain(2, seed=1))
    assert training(one) != training(other)


def test_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(whole: Path, tmp_path: Path) -> None:
    train_until(tmp_path / "broken", 5)
    weights = tmp_path / "broken/step_000004/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    broken = train(tmp_path / "broken", pretrain(), resume=True)
    event = next(e for e in read(broken / "metrics.jsonl") if e["event"] == "resume")
    assert event["step"] == 2
    assert event["notes"][0].startswith("step_000004 refused: the bytes of model.safetensors")
    assert_same_run(whole, broken, step=6)


def test_resume_does_not_start_anew_when_every_checkpoint_is_damaged(tmp_path: Path) -> None:
    train_until(tmp_path / "run", 5)
    for state in (tmp_path / "run").glob("step_*/state.json"):
        state.write_text("{}")
    with pytest.raises(CheckpointError, match=r"step_000004 refused.*step_000002 refused"):
        train(tmp_path / "run", pretrain(), resume=True)


def test_finished_run_can_be_resumed_and_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "again", pretrain())
    train(tmp_path / "again", pretrain(), resume=True)
    assert_same_run(whole, again, step=6)


def test_log_torn_by_a_crash_is_mended(whole: Path, tmp_path: Path) -> None:
    train_until(tmp_path / "broken", 5)
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    assert_same_run(whole, train(tmp_path / "broken", pretrain(), resume=True), step=6)


def test_how_may_change_on_resume_and_is_recorded(tmp_path: Path) -> None:
    train_until(tmp_path / "run", 3)
    changed = pretrain(how=How(device="cpu", save_every=1, validate_every=3))
    out = train(tmp_path / "run", changed, resume=True)
    assert "save_every: 1" in (out / "config.yaml").read_text()
    assert {p.name for p in out.glob("step_*")} == {"step_000005", "step_000006"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_leaves_and_goes_on_exactly(
    whole: Path, tmp_path: Path, number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    loader = Loader()
    config = pretrain()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for at, batch in enumerate(loader.batches(start, stop), start):
            if at == 2:
                os.kill(os.getpid(), number)  # arrives during step 3, where a validation is due
            yield batch

    before = signal.getsignal(number)
    with pytest.raises(Preempted) as caught, open_run(tmp_path / "run", config, world=ALONE) as run:
        fit(build(config.recipe, 0), config, run, batches=batches, world=ALONE, held_out=loader.held_out)
    assert caught.value.code == code
    assert caught.value.step == 3
    assert signal.getsignal(number) is before
    assert ("Ctrl-C again stops at once" in capfd.readouterr().err) == (number == signal.SIGINT)
    assert (tmp_path / "run/last").read_text() == "step_000003\n"
    assert_same_run(whole, train(tmp_path / "run", pretrain(), resume=True), step=6)


def test_a_second_interrupt_ends_at_once_unless_it_is_the_first_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, config, apart = Loader(), pretrain(), iter((0.0, 0.5, 2.0))
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: next(apart)))

    def batches(start: int, last: int) -> Iterator[Batch]:
        for at, batch in enumerate(loader.batches(start, last), start):
            for _ in range(3 if at == 4 else 0):
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "run", config, world=ALONE) as run:
        fit(build(config.recipe, 0), config, run, batches=batches, world=ALONE)
    assert list(apart) == []
    assert (tmp_path / "run/last").read_text() == "step_000004\n"  # as `save_every` has it, and no later one


def test_signal_that_ends_the_loader_too_loses_nothing(whole: Path, tmp_path: Path) -> None:
    loader, config = Loader(), pretrain()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        yield from loader.batches(start, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("a worker was terminated")

    with pytest.raises(Preempted), open_run(tmp_path / "run", config, world=ALONE) as run:
        fit(build(config.recipe, 0), config, run, batches=batches, world=ALONE, held_out=loader.held_out)
    assert (tmp_path / "run/last").read_text() == "step_000003\n"
    assert_same_run(whole, train(tmp_path / "run", pretrain(), resume=True), step=6)


def test_numbers_that_are_not_finite_end_the_run_and_name_the_rows(tmp_path: Path) -> None:
    config = pretrain(recipe=StubRecipeSpec(poison=(3, 9)))
    with pytest.raises(NumericsError, match=r"got loss nan .* at step 2 from rows \[0, 1, 2, 3, 4, 5, 6, 7\]"):
        train(tmp_path / "run", config)
    steps = [e for e in read(tmp_path / "run/metrics.jsonl") if e["event"] == "step"]
    assert [(e["loss"], e["skipped"]) for e in steps] == [(None, True), (None, True)]


def test_loader_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    loader = Loader()
    config = pretrain()
    with (
        open_run(tmp_path / "run", config, world=ALONE) as run,
        pytest.raises(DataError, match="expected batches for 6 steps, but the loader ended after 4"),
    ):
        fit(build(config.recipe, 0), config, run, batches=lambda a, b: loader.batches(a, 4), world=ALONE)


def test_checkpoint_of_another_network_is_refused_with_both_shapes(tmp_path: Path) -> None:
    """The config's digest guards this; weights from elsewhere are still never placed by guesswork."""
    from core.checkpoint import DIGESTS
    from core.weights import file_digest
    from tests.core.engine.stub import StubSpec

    train_until(tmp_path / "run", 3)
    wide = train(tmp_path / "wide", pretrain(2, recipe=StubRecipeSpec(encoder=StubSpec(width=12))))
    source, folder = wide / "step_000002/model.safetensors", tmp_path / "run/step_000002"
    (folder / "model.safetensors").write_bytes(source.read_bytes())
    digests = json.loads((folder / DIGESTS).read_text())
    digests["model.safetensors"] = file_digest(folder / "model.safetensors")
    (folder / DIGESTS).write_text(json.dumps(digests))
    with pytest.raises(CheckpointError, match=r"encoder\.blocks\.0\.weight.*\(12, 12\).*\(8, 8\)"):
        train(tmp_path / "run", pretrain(), resume=True)


def test_bf16_on_a_card_that_lacks_it_and_unknown_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.engine.distributed import pick_device
    from core.engine.step import Precision

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    card = torch.device("cuda", 0)
    assert Precision.of("auto", card).name == "fp32"
    with pytest.raises(ConfigError, match=r"cuda:0 has no bf16"):
        Precision.of("bf16", card)
    for name in ("gpu", "meta", "mps"):
        with pytest.raises(ConfigError, match=rf"expected auto, cpu, cuda or cuda:N, got '{name}'"):
            pick_device(name, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"got cuda:1 where torch sees 1"):
        pick_device("cuda", local_rank=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "option 'steps': expected at least 1 step, got 0"),
        ({"optim": Optim(lr=1e-3, warmup_steps=6)}, r"optim\.warmup_steps.*fewer than the 6 steps"),
        (
            {"optim": Optim(lr=1e-3, accumulate=3)},
            r"stream 'photograph': expected a batch_size that optim\.accumulate, 3",
        ),
    ],
)
def test_config_that_cannot_work_fails_when_it_is_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(pretrain(), **changes)  # type: ignore[arg-type]


def test_ranks_that_hold_the_same_text_agree() -> None:
    World(0, 1, torch.device("cpu")).agree("config", "a")
