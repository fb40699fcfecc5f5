"""The training loop: batches in, a trained recipe and its run folder out. It neither opens images nor chooses them.

Every step is a pure function of (seed, step, rank): the samples carry their own randomness, and torch's generator is
seeded anew at each step, so that a continued run repeats an uninterrupted one bit for bit (same machine, same number of
threads and processes; with another number of processes the samples are the same and sums round differently).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from core import checkpoint
from core.batch import Batch
from core.engine import shard
from core.engine.config import How, Optim, run_id
from core.engine.distributed import World
from core.engine.log import Log
from core.engine.optim import Group, decay_groups, make_optimizer, set_learning_rate
from core.engine.recompute import recompute_blocks
from core.engine.run_folder import RunFolder
from core.engine.schedule import learning_rate
from core.engine.state import State, empty_moments, moments_of, optimizer_tensors, restore_optimizer
from core.engine.step import Precision, count_skipped, train_step
from core.engine.stop import Preempted, Signals
from core.engine.validate import stream_of, validate
from core.errors import DataError
from core.recipes.base import Recipe, RecipeSpec
from core.rng import key
from core.weights import place, read_weights

Batches = Callable[[int, int], Iterator[Batch]]
HeldOut = Callable[[], Iterable[Batch]]


class Training(Protocol):
    """What the loop reads of a config; `Pretrain` is one."""

    @property
    def optim(self) -> Optim:
        """Optimiser and schedule."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    @property
    def how(self) -> How:
        """Devices, precision, logging."""


@dataclass(frozen=True)
class _Session:
    """What one process works with while it trains; `state` counts along."""

    recipe: Recipe
    model: nn.Module
    optimizer: AdamW
    config: Training
    run: RunFolder
    world: World
    precision: Precision
    state: State
    log: Log


def build(spec: RecipeSpec, seed: int) -> Recipe:
    """Build a recipe with weights that depend on the seed alone."""
    torch.manual_seed(key(seed, "weights"))
    return spec.build()


def fit(
    recipe: Recipe,
    config: Training,
    run: RunFolder,
    *,
    batches: Batches,
    world: World,
    held_out: HeldOut | None = None,
    groups: list[Group] | None = None,
) -> Path:
    """Train until the config's last step and give the run folder, which then holds the exported encoder.

    Args:
        recipe: built by `build`; trained in place, on the world's device.
        config: its half without `how` is the run's identity.
        run: from `open_run`; when it is resuming, training goes on from the newest checkpoint that verifies.
        batches: (first, last + 1) -> this rank's share of the global batches of those steps, counted from 0.
        world: from `core.engine.distributed.world`.
        held_out: gives the same held-out batches, with the same keys, at every call and on every rank.
        groups: parameter groups, when not `decay_groups`.

    Raises:
        Preempted: SIGTERM, SIGUSR1 or SIGINT (Ctrl-C) came; everything is saved.
        KeyboardInterrupt: Ctrl-C came twice.
        NumericsError: loss or gradient stopped being finite.
        CheckpointError: no checkpoint verifies, or it does not fit the recipe.
        RunFolderError: the disk is full.
        ConfigError: ranks differ in their config, or the device lacks the precision.
        DataError: `batches` ended too early.
    """
    how, optim, device = config.how, config.optim, world.device
    world.agree("config", run_id(config))
    precision = Precision.of(how.precision, device)
    groups = groups or decay_groups(recipe.named_parameters(), optim.weight_decay)
    _settle(recipe.train(), how, world)
    precision = replace(precision, keep_casts=not shard.is_sharded(recipe))
    optimizer = make_optimizer(shard.renewed(groups, recipe), optim, device)
    world.on_main(lambda: checkpoint.require_space(run.path, 3 * _num_bytes(recipe)))
    state, positions, notes = _load(recipe, optimizer, run, world)
    if how.shard == "full" and world.size == 1:
        notes.append("how.shard=full: one process shares nothing out, it holds all")
    log = Log(
        run.path,
        is_main=world.is_main,
        steps=config.steps,
        start=state.step,
        log_every=how.log_every,
        tensorboard=how.tensorboard,
    )
    with log, Signals() as signals:
        session = _Session(recipe, _parallel(recipe, world), optimizer, config, run, world, precision, state, log)
        log.truncate(positions)
        facts = {"world_size": world.size, "device": str(device), "precision": precision.name, "run_id": run_id(config)}
        log.event("resume" if run.resuming else "start", step=state.step, **facts, notes=[*notes, *run.drift])
        for note in notes:
            log.say(note)
        _train(session, batches, held_out, signals)
        about = {"run": run.path.name, "step": state.step, "run_id": run_id(config)}
        kept, target = recipe.kept(), run.path / "encoder"
        weights = shard.whole_weights(recipe, kept, world) if shard.is_sharded(recipe) else None
        world.on_main(lambda: checkpoint.export_encoder(kept, target, about=about, weights=weights))
        log.event("end", step=state.step, skipped=state.skipped)
    return run.path


def _train(session: _Session, batches: Batches, held_out: HeldOut | None, signals: Signals) -> None:
    state, config = session.state, session.config
    _validate_if_due(session, held_out)
    source = batches(state.step, config.steps)
    try:
        while state.step < config.steps:
            began = time.perf_counter()
            try:
                batch = next(source, None)
            except Exception:
                if signals.received and session.world.size == 1:  # the signal ended the loader's processes as well
                    _leave(session, signals)
                raise
            if batch is None:
                raise DataError(f"expected batches for {config.steps} steps, but the loader ended after {state.step}.")
            asked = _advance(session, batch, began, stop=signals.received)
            if asked and state.step < config.steps:
                _leave(session, signals)
            _validate_if_due(session, held_out)
            if state.step % config.how.save_every == 0 or state.step == config.steps:
                _save(session)
    finally:
        close = getattr(source, "close", None)  # a generator's loader processes end here and not with the interpreter
        if close is not None:
            close()


def _leave(session: _Session, signals: Signals) -> NoReturn:
    _save(session)
    session.log.event("stop", step=session.state.step)
    raise Preempted(session.run.path, session.state.step, signals.code)


def _advance(session: _Session, batch: Batch, began: float, *, stop: bool) -> bool:
    """Make one step, record it, and say whether some rank was asked to leave."""
    config, state, world = session.config, session.state, session.world
    waited = time.perf_counter() - began
    rate = learning_rate(
        state.step,
        peak=config.optim.lr,
        warmup_steps=config.optim.warmup_steps,
        steps=config.steps,
        final_share=config.optim.final_lr_share,
    )
    set_learning_rate(session.optimizer, rate)
    torch.manual_seed(key(config.seed, "step", state.step, world.rank))
    batch = batch.to(world.device, non_blocking=True)
    session.recipe.progress.fill_(state.step / config.steps)
    outcome = train_step(
        session.model,
        session.optimizer,
        batch,
        accumulate=config.optim.accumulate,
        clip_norm=config.optim.clip_norm,
        precision=session.precision,
        world=world,
        stop=stop,
    )
    if outcome.finite:
        session.recipe.progress.fill_((state.step + 1) / config.steps)  # what follows an update counts it as done
        if session.recipe.updated():
            session.optimizer.state.clear()
    indices, rows = world.interleave(torch.stack([batch.index, batch.row])).tolist()
    stream = stream_of(session.recipe, batch)
    state.step += 1
    spent = time.perf_counter() - began
    session.log.consumed(state.step, stream, indices)
    session.log.step(
        step=state.step,
        stream=stream,
        loss=outcome.loss,
        terms=outcome.terms,
        lr=rate,
        grad_norm=outcome.grad_norm,
        skipped=not outcome.finite,
        samples=len(indices),
        samples_per_s=len(indices) / spent,
        data_wait_s=waited,
        step_s=spent,
    )
    count_skipped(state, outcome, config.steps, rows)
    return outcome.stop


def _validate_if_due(session: _Session, held_out: HeldOut | None) -> None:
    """Score the held-out images before the first step, every so often, and after the last; once for each step."""
    state, config = session.state, session.config
    due = state.step % config.how.validate_every == 0 or state.step == config.steps
    if held_out is None or not due or state.validated == state.step:
        return
    scores = validate(session.recipe, held_out(), precision=session.precision, world=session.world)
    for score in scores:
        session.log.validation(step=state.step, **asdict(score))
    if len(scores) > 1:
        session.log.event("validation_mean", step=state.step, loss=sum(s.loss for s in scores) / len(scores))
    state.validated = state.step


def _settle(recipe: Recipe, how: How, world: World) -> None:
    """Bring a recipe to its device, in the form that `how` asks for.

    Raises:
        ConfigError: it has no blocks whose activations could be left out.
    """
    if how.checkpoint_activations:
        recompute_blocks(recipe)
    if how.shard == "full" and world.size > 1:
        if how.compile:
            shard.compile_blocks(recipe)
        shard.shard(recipe, world)
        return
    recipe.to(world.device)
    if how.compile:
        recipe.compile()


def _save(session: _Session) -> None:
    facts = {"counters": asdict(session.state), "logs": session.log.positions(), "run_id": run_id(session.config)}
    run, step, recipe, optimizer = session.run.path, session.state.step, session.recipe, session.optimizer
    if shard.is_sharded(recipe):
        from core.engine import sharded_checkpoint

        sharded_checkpoint.save(run, step, _all_tensors(recipe, optimizer_tensors(optimizer)), facts, session.world)
        return

    def write() -> None:
        tensors = {"model": recipe.state_dict(), "optimizer": optimizer_tensors(optimizer)}
        checkpoint.save(run, step, tensors, facts)

    session.world.on_main(write)


def _all_tensors(recipe: Recipe, moments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name what a sharded checkpoint holds."""
    weights = {f"model/{name}": value for name, value in recipe.state_dict().items()}
    return weights | {f"optimizer/{name}": value for name, value in moments.items()}


def _load(recipe: Recipe, optimizer: AdamW, run: RunFolder, world: World) -> tuple[State, dict[str, int], list[str]]:
    """Bring recipe and optimiser to the newest good checkpoint; give counters, log positions, and what was refused."""
    if not run.resuming:
        return State(), {}, []
    folder, notes = world.on_main(lambda: checkpoint.newest(run.path))
    if folder is None:
        return State(), {}, ["no checkpoint had been written yet: starting from step 0"]
    if checkpoint.is_sharded(folder):
        from core.engine import sharded_checkpoint

        names = [name.partition("/")[2] for name in sharded_checkpoint.stored_shapes(folder) if name[:5] != "model"]
        moments = empty_moments(optimizer, names)
        sharded_checkpoint.read(folder, _all_tensors(recipe, moments))
    else:
        weights, moments = (read_weights(folder / f"{name}.safetensors") for name in ("model", "optimizer"))
        place(recipe, shard.parts_of(weights, recipe.state_dict()), source=str(folder))
        moments = shard.parts_of(moments, moments_of(optimizer, moments))
    restore_optimizer(optimizer, moments, source=folder)
    stored = checkpoint.read_state(folder)
    return State(**stored["counters"]), stored["logs"], [*notes, f"continuing from {folder.name}"]


def _parallel(recipe: Recipe, world: World) -> nn.Module:
    if world.size == 1 or shard.is_sharded(recipe):
        return recipe
    several = len(recipe.encoder.contract.inputs) > 1  # a batch of one kind leaves the stems of the others unused
    cards = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        recipe, device_ids=cards, find_unused_parameters=several, gradient_as_bucket_view=True
    )


def _num_bytes(recipe: Recipe) -> int:
    return sum(p.numel() * p.element_size() for p in recipe.parameters())
