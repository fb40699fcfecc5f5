"""What a pretraining run is, as frozen dataclasses: all that decides results is hashed, `how` must not and is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.config import Tree, digest, to_dict
from core.contract import Tiles
from core.errors import ConfigError
from core.recipes.base import RecipeSpec
from core.registry import name_of
from core.teachers.random_start import RandomStart


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One kind of batch.

    Attributes:
        input: name of the encoder's input that it feeds, such as `photograph`.
        batch_size: samples of the global batch, over all processes and accumulated slices.
        turns: batches in a row before the next stream has its turn.
        scale: share of the image's area that a resized crop covers, smallest and largest.
        flips: per axis (array order), whether a crop may be mirrored along it.
        crop: `resized`: any part of a 2D image, brought to the input's size; `native`: a window at the file's own spacing;
            `auto`: native for volumes and for inputs in m or mm, resized for inputs in px.
        tiles: how many crops an image gives in an epoch, and where.
    """

    input: str
    batch_size: int
    turns: int = 1
    scale: tuple[float, float] = (0.2, 1.0)
    flips: tuple[bool, ...] = ()
    crop: Literal["auto", "resized", "native"] = "auto"
    tiles: Tiles = Tiles()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.turns < 1:
            raise ConfigError(
                f"stream '{self.input}': expected batch_size and turns of at least 1, "
                f"got {self.batch_size} and {self.turns}."
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(
                f"stream '{self.input}': expected a scale of 0 < smallest <= largest <= 1, got {self.scale}."
            )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where images come from and how they are dealt.

    Attributes:
        paths: folders, files or lists (CSV, Parquet); none = the domain's embedded sample set.
        streams: the kinds of batch, which take turns.
        group: a list's column that names patients or scenes; none = its own `group` column, else every image for itself.
        held_out: share of the groups kept away from training for the fixed-mask validation loss, 0 to below 1.
        options: options of readers, such as `nifti.affine=sform` for volumes whose header contradicts itself.
        allow_outside: accept lists and links that lead out of the folder that they are in.
        bad_samples: what becomes of a training image that cannot be read during the run: `raise`: the run ends and names
            it; `quarantine`: another takes its place, the same one on every machine, and `quarantine.jsonl` tells.
        bad_budget: share of the run's samples that may be replaced before it ends after all; five always may.
        report: a list's column of reports, for recipes that read text; none = images alone.
        report_form: what a field of it holds: `text`, or `words`: a list of texts, as JSON or Python writes it.
        report_template: what a report is put into, at `{}`: `a fundus photograph of {}`.
    """

    paths: tuple[str, ...] = ()
    streams: tuple[Stream, ...]
    group: str | None = None
    held_out: float = 0.1
    options: tuple[str, ...] = ()
    allow_outside: bool = False
    bad_samples: Literal["raise", "quarantine"] = "raise"
    bad_budget: float = 0.001
    report: str | None = None
    report_form: Literal["text", "words"] = "text"
    report_template: str = "{}"

    def __post_init__(self) -> None:
        names = [stream.input for stream in self.streams]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"expected at least one stream and one stream per input, got {names}.")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"option 'data.held_out': expected a share from 0 to below 1, got {self.held_out}.")
        if not 0 <= self.bad_budget <= 1:
            raise ConfigError(f"option 'data.bad_budget': expected a share from 0 to 1, got {self.bad_budget}.")
        if self.report is None and (self.report_form, self.report_template) != ("text", "{}"):
            raise ConfigError(
                "options 'data.report_form' and 'data.report_template' have no effect without 'data.report', the column "
                "of reports: name it, or leave them out."
            )
        if self.report_template.count("{}") != 1:
            raise ConfigError(
                f"option 'data.report_template': expected one '{{}}' for the report, got '{self.report_template}'."
            )

    def check_reports(self, recipe: RecipeSpec) -> None:
        """Refuse reports that nothing reads, and a recipe that reads reports where there are none.

        Raises:
            ConfigError: says what to type instead.
        """
        name, reads = name_of(recipe), hasattr(recipe, "text")
        if self.report is not None and not reads:
            raise ConfigError(
                f"option 'data.report' has no effect with recipe '{name}', which reads no text: leave it out, or choose "
                "--recipe mrm."
            )
        if self.report is None and reads:
            raise ConfigError(
                f"recipe '{name}' reads a report beside each image: name the list's column of reports with --data.report "
                "COLUMN, or choose --recipe mae."
            )


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its schedule.

    Attributes:
        lr: peak learning rate for the global batch as it is; nothing rescales it.
        weight_decay: decoupled decay of matrices; biases, norms, tokens and position tables have none.
        betas: decay of the running mean of the gradient and of its square.
        warmup_steps: steps of linear rise from 0 to `lr`.
        final_lr_share: share of `lr` at which the cosine ends.
        clip_norm: largest L2 norm of the whole gradient; none = no clipping.
        accumulate: slices into which each process cuts its share of a batch to save memory; the step stays one step.
    """

    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 0
    final_lr_share: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"option 'optim.lr': expected a learning rate above 0, got {self.lr}.")
        if self.weight_decay < 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"expected weight_decay >= 0 and betas in [0, 1), got {self.weight_decay} and {self.betas}."
            )
        if self.warmup_steps < 0 or not 0 <= self.final_lr_share <= 1:
            raise ConfigError(
                "expected optim.warmup_steps >= 0 and optim.final_lr_share in [0, 1], "
                f"got {self.warmup_steps} and {self.final_lr_share}."
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"option 'optim.clip_norm': expected a norm above 0, or none, got {self.clip_norm}.")
        if self.accumulate < 1:
            raise ConfigError(f"option 'optim.accumulate': expected at least 1 slice, got {self.accumulate}.")


@dataclass(frozen=True, kw_only=True)
class How:
    """How a run is carried out; nothing here is meant to change what is learnt.

    Attributes:
        device: `auto` = CUDA where there is one, else the CPU; or `cpu`, `cuda`, `cuda:1`.
        workers: how many read images for a training process; 0 = one thread of it.
        worker_kind: `process`: nearly twice as fast with two as with one; `thread`: they share one cache of decoded images,
            for several crops per visit of files that are decoded whole.
        batch_timeout_s: how long reading one batch may take before the run ends and names its files.
        precision: `auto` = bf16 autocast on CUDA where the card has it, fp32 elsewhere.
        compile: let torch.compile fuse the recipe; the first steps take minutes.
        shard: `full`: each process holds a part of every weight, gradient and moment (FSDP2), and checkpoints are written
            in parts; for what does not fit one card. `none`: each holds all.
        checkpoint_activations: blocks keep their inputs alone and run again in the backward pass: much less memory, a
            third more compute, the same numbers.
        save_every: steps between checkpoints; the last step is always saved.
        log_every: steps between printed lines when there is no terminal; metrics.jsonl has every step.
        validate_every: steps between passes over the held-out images; before the first step and at the last one too.
        tensorboard: also write TensorBoard events; needs the extra `tensorboard`.
    """

    device: str = "auto"
    workers: int = 0
    worker_kind: Literal["thread", "process"] = "process"
    batch_timeout_s: float = 300.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    shard: Literal["none", "full"] = "none"
    checkpoint_activations: bool = False
    save_every: int = 500
    log_every: int = 50
    validate_every: int = 500
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if min(self.save_every, self.log_every, self.validate_every) < 1 or self.workers < 0:
            raise ConfigError(
                "expected how.save_every, how.log_every and how.validate_every of at least 1 and how.workers >= 0, got "
                f"{self.save_every}, {self.log_every}, {self.validate_every} and {self.workers}."
            )
        if not self.batch_timeout_s > 0:
            raise ConfigError(f"option 'how.batch_timeout_s': expected seconds above 0, got {self.batch_timeout_s}.")


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """A pretraining run.

    Attributes:
        recipe: the method with its encoder and other parts.
        data: images, streams and the held-out share.
        optim: optimiser and schedule.
        steps: optimiser steps of the whole run.
        seed: decides weights, order, crops and masks.
        how: devices, precision, logging; not part of the run's identity.
    """

    recipe: RecipeSpec
    data: Data
    optim: Optim
    steps: int
    seed: int = 0
    how: How = How()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"option 'steps': expected at least 1 step, got {self.steps}.")
        if self.optim.warmup_steps >= self.steps:
            raise ConfigError(
                f"option 'optim.warmup_steps': expected fewer than the {self.steps} steps of the run, "
                f"got {self.optim.warmup_steps}."
            )
        if self.how.shard == "full" and isinstance(getattr(self.recipe, "teacher", None), RandomStart):
            raise ConfigError(
                "option 'how.shard': expected none with the teacher 'random_start', which draws whole weights anew at each "
                "restart, got full: leave it out, or choose another recipe."
            )
        known = [entry.name for entry in self.recipe.encoder.contract.inputs]
        for stream in self.data.streams:
            if stream.input not in known:
                raise ConfigError(f"stream '{stream.input}': expected an input of the encoder, one of {known}.")
            if stream.batch_size % self.optim.accumulate:
                raise ConfigError(
                    f"stream '{stream.input}': expected a batch_size that optim.accumulate, "
                    f"{self.optim.accumulate}, divides, got {stream.batch_size}."
                )


def what(config: object) -> Tree:
    """Give the half of a run's config that decides its results, as a plain tree: everything but `how`."""
    return {name: value for name, value in to_dict(config).items() if name != "how"}


def run_id(config: object) -> str:
    """Hash that half into 16 hex digits."""
    return digest(what(config))
