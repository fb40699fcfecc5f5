"""The loop: train, check on the validation split, keep the best check. Test images are examined afterwards, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.batch import Batch
from core.engine.optim import layer_groups, set_learning_rate
from core.engine.schedule import learning_rate
from core.errors import ConfigError, DataError, NumericsError
from core.finetune.config import Finetune
from core.finetune.targets import Example, Split, Targets, batch_of
from core.rng import key


class _Spec(Protocol):
    depth: int


class _Trunk(Protocol):
    spec: _Spec


Log = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Check:
    """Scores of the validation split after some steps."""

    step: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Finetuned:
    """What came of it; the encoder and head given to `finetune` now hold the weights of the best check."""

    best: Check
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Examined:
    """What is kept of a model's answers to all images of a split.

    Attributes:
        rows: (M,) rows of the collection.
        summary: (M, ...) as the labels' `summary` gives: probabilities, numbers, or tables of true against answered class.
    """

    rows: NDArray[np.int64]
    summary: NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of images.

    Attributes:
        rows: (M,) rows of the manifest.
        probabilities: (M, K) float64.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def finetune(
    encoder: nn.Module,
    head: nn.Module,
    *,
    config: Finetune,
    labelled: Targets,
    train: Callable[[int, int], Iterable[Batch | Example]],
    validation: Callable[[], Iterable[Batch | Example]],
    log: Log | None = None,
) -> Finetuned:
    """Train head (and encoder) in place; both end in evaluation mode with the weights of the best validation check.

    Runs on the device of the head's parameters. The same inputs give the same weights on a CPU, whatever torch's
    generator was; that generator is left as it was found.

    Args:
        encoder: a batch in its value space -> features: a loaded `Encoder`, the `features` of a `Model`, or a module of
            the caller's. `mode="full"` reads `spec.depth` of its `backbone`, or its own, for the layer decay.
        head: features -> what the labels are compared with: logits or numbers.
        config: how.
        labelled: labels, groups and split by row.
        train: (start, stop) -> the training batches of those steps, as `TileLoader.batches` gives; with their label maps
            where labels are maps.
        validation: the validation images, each once.
        log: receives one mapping per step and per check.

    Raises:
        ConfigError: options that mean nothing for these labels.
        DataError: a batch with rows of another split, missing or repeated validation rows, or too few training batches.
        NumericsError: the loss or gradient stopped being finite.
    """
    labelled.refuse(config)
    if config.select not in labelled.metrics:
        raise ConfigError(
            f"expected a check to be chosen by {' or '.join(labelled.metrics)}, got '{config.select}': set --training.select."
        )
    device = next(head.parameters()).device
    trained = list(head.named_parameters(prefix="head"))
    depth = 0
    if config.mode == "full":
        trained = [*encoder.named_parameters(), *trained]
        depth = cast(_Trunk, getattr(encoder, "backbone", encoder)).spec.depth
    groups = layer_groups(trained, depth, config.layer_decay, config.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    weight = labelled.class_weight().to(device) if config.balanced else None

    checks: list[Check] = []
    best: dict[str, dict[str, Tensor]] = {}
    step = 0
    with _own_randomness(device, config.seed):
        for given in train(0, config.steps):
            truth = labelled.of(given, "train").to(device)
            _train_mode(encoder, head, config)
            answer = _forward(encoder, head, batch_of(given).to(device), config, learn=config.mode == "full")
            loss = labelled.loss(answer, truth, config, weight)
            rate = learning_rate(
                step, peak=config.lr, warmup_steps=config.warmup_steps, steps=config.steps, final_share=0.0
            )
            set_learning_rate(optimiser, rate)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_([p for _, p in trained], config.clip_norm or math.inf)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                raise NumericsError(
                    f"loss {loss.item()} and gradient norm {norm.item()} at step {step}: lower lr (now {config.lr}), "
                    "lengthen the warm-up, or set clip_norm."
                )
            optimiser.step()
            step += 1
            if log is not None:
                log({"event": "step", "step": step, "loss": loss.item(), "lr": rate, "grad_norm": norm.item()})
            if step % config.validate_every == 0 or step == config.steps:
                checks.append(Check(step, _validate(encoder, head, config, labelled, validation)))
                if log is not None:
                    log({"event": "validation", "step": step, "scores": checks[-1].scores})
                if checks[-1] is _best(checks, config):
                    best = {"encoder": _copy(encoder) if config.mode == "full" else {}, "head": _copy(head)}
    if step != config.steps:
        raise DataError(f"expected {config.steps} training batches, got {step}: the loader must go on over epochs.")
    if config.mode == "full":
        encoder.load_state_dict(best["encoder"])
    head.load_state_dict(best["head"])
    encoder.eval()
    head.eval()
    return Finetuned(_best(checks, config), tuple(checks))


@torch.no_grad()
def examine(
    encoder: nn.Module,
    head: nn.Module,
    batches: Iterable[Batch | Example],
    labelled: Targets,
    split: Split,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Examined:
    """Answer for every labelled row of a split, each once; both modules end in evaluation mode.

    Raises:
        DataError: a batch with rows of another split, missing or repeated rows.
    """
    encoder.eval()
    head.eval()
    device = next(head.parameters()).device
    rows, parts = [], []
    for given in batches:
        truth, batch = labelled.of(given, split), batch_of(given)
        answer = _answer(encoder, head, batch.to(device), precision)
        parts.append(labelled.summary(answer, truth.to(device)).cpu())
        rows.append(batch.row.cpu())
    found = torch.cat(rows).numpy() if rows else np.zeros(0, dtype=np.int64)
    expected = labelled.rows(split).numpy()
    if not np.array_equal(np.sort(found), expected):
        raise DataError(
            f"expected each of the {len(expected)} {split} rows once, got {len(found)} images of "
            f"{len(np.unique(found))} rows."
        )
    return Examined(found, torch.cat(parts).numpy())


@torch.no_grad()
def predict(
    encoder: nn.Module, head: nn.Module, batches: Iterable[Batch], *, precision: Literal["fp32", "bf16"] = "fp32"
) -> Predictions:
    """Give class probabilities of all images of the batches, in their order; both modules end in evaluation mode."""
    encoder.eval()
    head.eval()
    device = next(head.parameters()).device
    rows, parts = [], []
    for batch in batches:
        parts.append(_answer(encoder, head, batch.to(device), precision).double().softmax(1).cpu())
        rows.append(batch.row.cpu())
    if not rows:
        raise DataError("expected at least one batch to predict, got none.")
    return Predictions(torch.cat(rows).numpy(), torch.cat(parts).numpy())


def _train_mode(encoder: nn.Module, head: nn.Module, config: Finetune) -> None:
    encoder.train(config.mode == "full")  # a frozen encoder drops no paths and keeps its running statistics
    head.train()


def _forward(encoder: nn.Module, head: nn.Module, batch: Batch, config: Finetune, *, learn: bool) -> Tensor:
    with torch.set_grad_enabled(learn):
        features = _features(encoder, batch, config.precision)
    answer: Tensor = head(features)
    return answer


def _answer(encoder: nn.Module, head: nn.Module, batch: Batch, precision: str) -> Tensor:
    answer: Tensor = head(_features(encoder, batch, precision))
    return answer


def _features(encoder: nn.Module, batch: Batch, precision: str) -> Any:
    """Encode; vectors or maps, as float32."""
    with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return encoder(batch.normalised()).float()


def _validate(
    encoder: nn.Module,
    head: nn.Module,
    config: Finetune,
    labelled: Targets,
    validation: Callable[[], Iterable[Batch | Example]],
) -> dict[str, float]:
    found = examine(encoder, head, validation(), labelled, "validation", precision=config.precision)
    return labelled.scores(found.rows, found.summary)


def _best(checks: list[Check], config: Finetune) -> Check:
    return max(checks, key=lambda check: check.scores[config.select])  # max keeps the first of equals


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generators that dropout and dropped paths use, and put them back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key(seed, "finetune") & (2**63 - 1))
        yield
