"""How a head, and perhaps its encoder, is trained on labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import ConfigError

Select = Literal[
    "balanced accuracy",
    "AUROC",
    "quadratic kappa",
    "mean IoU",
    "mean Dice",
    "balanced pixel accuracy",
    "pixel accuracy",
    "IoU",
    "Dice",
    "R2",
]


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How to train.

    Attributes:
        mode: `linear`: the encoder stays in evaluation mode and unchanged, the head alone learns; `full`: both do.
        steps: optimiser steps.
        lr: peak learning rate, absolute, of the head; with `layer_decay` the encoder's blocks have less.
        warmup_steps: of linear rise to `lr`; half a cosine to 0 follows.
        validate_every: steps between checks on the validation split; the last step is always checked.
        select: the validation score that decides which check is kept; of equal ones, the earliest. It must be one of the
            task's: of classes the first three; of label maps the next four; of a cloud section IoU and Dice; of numbers R2.
        weight_decay: of matrices; vectors have none.
        betas: of AdamW.
        layer_decay: `full` only: factor on the learning rate per block away from the head
            (Clark et al. 2020, arXiv 2003.10555; Bao et al. 2022, arXiv 2106.08254).
        label_smoothing: probability spread evenly over the classes.
        balanced: weigh each class inversely to its number of training images, or pixels.
        clip_norm: largest gradient norm.
        precision: of the encoder's forward and backward pass; the head and the loss are always float32.
        seed: of dropped paths and dropout.
    """

    mode: Literal["linear", "full"]
    steps: int
    lr: float
    warmup_steps: int
    validate_every: int
    select: Select = "AUROC"
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
