"""Supervised classification on top of an encoder: a linear head alone, or everything with layer-wise decaying steps.

The best check is chosen on the validation split alone. There is no way to hand test images in: every batch's rows are
looked up in the declared split, and a row of another split is an error. Score the test images afterwards, with
`predict`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from core.batch import Batch
from core.engine.optim import layer_groups, set_learning_rate
from core.engine.schedule import learning_rate
from core.errors import ConfigError, DataError, NumericsError
from core.evaluate.metrics import METRICS
from core.rng import key


class _Spec(Protocol):
    depth: int


class _Trunk(Protocol):
    spec: _Spec


Split = Literal["train", "validation", "test"]
Log = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How to train.

    Attributes:
        mode: `linear`: the encoder stays in evaluation mode and unchanged; `full`: it is trained as well.
        steps: optimiser steps.
        lr: peak learning rate, absolute, of the head; with `layer_decay` the encoder's blocks have less.
        warmup_steps: of linear rise to `lr`; half a cosine to 0 follows.
        validate_every: steps between checks on the validation split; the last step is always checked.
        select: the validation score that decides which check is kept; of equal ones, the earliest.
        weight_decay: of matrices; vectors have none.
        betas: of AdamW.
        layer_decay: `full` only: factor on the learning rate per block away from the head
            (Clark et al. 2020, arXiv 2003.10555; Bao et al. 2022, arXiv 2106.08254).
        label_smoothing: probability spread evenly over the classes.
        balanced: weigh each class inversely to its number of training images.
        clip_norm: largest gradient norm.
        precision: of the encoder's forward and backward pass; the head and the loss are always float32.
        seed: of dropped paths and dropout.
    """

    mode: Literal["linear", "full"]
    steps: int
    lr: float
    warmup_steps: int
    validate_every: int
    select: Literal["balanced accuracy", "AUROC", "quadratic kappa"] = "AUROC"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    balanced: bool = False
    clip_norm: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.warmup_steps < self.steps or self.validate_every < 1 or self.lr <= 0:
            raise ConfigError(
                "expected steps >= 1, 0 <= warmup_steps < steps, validate_every >= 1 and lr > 0, "
                f"got {self.steps}, {self.warmup_steps}, {self.validate_every} and {self.lr}."
            )
        if not 0 < self.layer_decay <= 1 or not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"expected layer_decay in (0, 1] and label_smoothing in [0, 1), got {self.layer_decay} and "
                f"{self.label_smoothing}."
            )
        if self.mode == "linear" and self.layer_decay != 1:
            raise ConfigError(
                f"layer_decay={self.layer_decay} has no effect on a frozen encoder: leave it out, or use mode 'full'."
            )


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels, groups and split of every row of the manifest, looked up by `Batch.row`.

    Attributes:
        codes: (rows,) int64 class numbers 0..K-1, in order where classes have one; -1 = no label.
        names: the K class names.
        groups: patient, scene or slide of each row; a group lies in one split.
        split: of each row.
    """

    codes: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]
    split: tuple[Split, ...]

    def __post_init__(self) -> None:
        if not len(self.codes) == len(self.groups) == len(self.split):
            raise DataError(
                "expected one label, group and split per row, "
                f"got {len(self.codes)}, {len(self.groups)}, {len(self.split)}."
            )
        first: dict[str, Split] = {}
        for group, split in zip(self.groups, self.split, strict=True):
            if first.setdefault(group, split) != split:
                raise DataError(
                    f"group '{group}' is in split '{first[group]}' and in split '{split}': "
                    "put every image of a patient, scene or slide into one split."
                )
        missing = [self.names[k] for k in range(len(self.names)) if not self.count("train")[k]]
        if missing:
            raise DataError(f"expected training images of every class, got none of {missing}: change the split.")
        if int((self.count("validation") > 0).sum()) < 2:
            raise DataError(
                "expected validation images of at least 2 classes, to choose the best check by: change the split."
            )

    def rows(self, split: Split) -> Tensor:
        """Give the labelled rows of a split, ascending."""
        inside = torch.tensor([s == split for s in self.split], dtype=torch.bool)
        return torch.nonzero(inside & (self.codes >= 0)).flatten()

    def count(self, split: Split) -> Tensor:
        """Count the images of each class in a split, (K,)."""
        return torch.bincount(self.codes[self.rows(split)], minlength=len(self.names))

    def targets(self, batch: Batch, split: Split) -> Tensor:
        """Look up the batch's class numbers, (B,).

        Raises:
            DataError: a row of another split, or without a label.
        """
        for row in batch.row.tolist():
            if self.split[row] != split or self.codes[row] < 0:
                state = "has no label" if self.codes[row] < 0 else f"belongs to split '{self.split[row]}'"
                raise DataError(
                    f"row {row} (group '{self.groups[row]}') {state}, but came in a batch for '{split}': "
                    "select the rows of one split before loading."
                )
        return self.codes[batch.row.cpu()]


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
    labelled: Labelled,
    train: Callable[[int, int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    log: Log | None = None,
) -> Finetuned:
    """Train head (and encoder) in place; both end in evaluation mode with the weights of the best validation check.

    Runs on the device of the head's parameters. The same inputs give the same weights on a CPU, whatever torch's
    generator was; that generator is left as it was found.

    Args:
        encoder: a batch in its value space -> (B, D): a loaded `Encoder`, or a module of the caller's. `mode="full"`
            reads `spec.depth` of its `backbone`, or its own, for the layer decay.
        head: (B, D) -> (B, K).
        config: how.
        labelled: labels, groups and split by manifest row.
        train: (start, stop) -> the training batches of those steps, as `TileLoader.batches` gives.
        validation: the validation images, each once.
        log: receives one mapping per step and per check.

    Raises:
        DataError: a batch with rows of another split, missing or repeated validation rows, or too few training batches.
        NumericsError: the loss or gradient stopped being finite.
    """
    device = next(head.parameters()).device
    trained = list(head.named_parameters(prefix="head"))
    depth = 0
    if config.mode == "full":
        trained = [*encoder.named_parameters(), *trained]
        depth = cast(_Trunk, getattr(encoder, "backbone", encoder)).spec.depth
    groups = layer_groups(trained, depth, config.layer_decay, config.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)
    count = labelled.count("train")
    weight = (count.sum() / (len(count) * count)).to(device, torch.float32) if config.balanced else None

    checks: list[Check] = []
    best: dict[str, dict[str, Tensor]] = {}
    step = 0
    with _own_randomness(device, config.seed):
        for batch in train(0, config.steps):
            targets = labelled.targets(batch, "train").to(device)
            _train_mode(encoder, head, config)
            logits = _forward(encoder, head, batch.to(device), config, learn=config.mode == "full")
            loss = F.cross_entropy(logits, targets, weight=weight, label_smoothing=config.label_smoothing)
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
def predict(
    encoder: nn.Module, head: nn.Module, batches: Iterable[Batch], *, precision: Literal["fp32", "bf16"] = "fp32"
) -> Predictions:
    """Give class probabilities of all images of the batches, in their order; both modules end in evaluation mode."""
    encoder.eval()
    head.eval()
    device = next(head.parameters()).device
    rows, parts = [], []
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            features = encoder(batch.to(device).normalised())
        parts.append(head(features.float()).double().softmax(1).cpu())
        rows.append(batch.row.cpu())
    if not rows:
        raise DataError("expected at least one batch to predict, got none.")
    return Predictions(torch.cat(rows).numpy(), torch.cat(parts).numpy())


def _train_mode(encoder: nn.Module, head: nn.Module, config: Finetune) -> None:
    encoder.train(config.mode == "full")  # a frozen encoder drops no paths and keeps its running statistics
    head.train()


def _forward(encoder: nn.Module, head: nn.Module, batch: Batch, config: Finetune, *, learn: bool) -> Tensor:
    with (
        torch.set_grad_enabled(learn),
        torch.autocast(batch.image.device.type, torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        features = encoder(batch.normalised())
    logits: Tensor = head(features.float())
    return logits


def _validate(
    encoder: nn.Module,
    head: nn.Module,
    config: Finetune,
    labelled: Labelled,
    validation: Callable[[], Iterable[Batch]],
) -> dict[str, float]:
    def checked() -> Iterator[Batch]:
        for batch in validation():
            labelled.targets(batch, "validation")
            yield batch

    found = predict(encoder, head, checked(), precision=config.precision)
    expected = labelled.rows("validation").numpy()
    if not np.array_equal(np.sort(found.rows), expected):
        raise DataError(
            f"expected each of the {len(expected)} validation rows once, got {len(found.rows)} images of "
            f"{len(np.unique(found.rows))} rows."
        )
    codes = labelled.codes[torch.from_numpy(found.rows)].numpy()
    once = np.ones((1, len(codes)))
    return {name: float(metric(codes, found.probabilities, once)[0]) for name, metric in METRICS.items()}


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
