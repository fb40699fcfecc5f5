"""A teacher that knows nothing at first and is replaced by its student at set times; the student then starts anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.errors import ConfigError
from core.plan import Plan
from core.rng import key
from core.teachers._weights import copy_weights, renew, still_copy
from core.teachers.base import Teacher, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class RandomStart(TeacherSpec):
    """Begin with the student's own random weights; at each restart become the student (dBOT, Liu et al. 2022, 2209.03917).

    The student's fresh weights of every stage follow from the run's seed and the number of the stage alone.

    Deviations: none.

    Attributes:
        restarts: shares of the training, rising, above 0 and below 1, after which the teacher is replaced; none = it
            stays random. The first step that ends at or after a share is the last one of its stage. The paper's 800 of
            1600 epochs is 0.5.
    """

    restarts: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        ends = (0.0, *self.restarts, 1.0)
        if any(not one < two for one, two in itertools.pairwise(ends)):
            raise ConfigError(
                f"expected restarts at rising shares of the training, above 0 and below 1, got {self.restarts}."
            )

    def build(self, student: Backbone) -> RandomStartTeacher:
        """Begin with the student's weights; call it before anything is loaded into the student."""
        return RandomStartTeacher(self, student)


class RandomStartTeacher(Teacher):
    """The module; see `RandomStart`.

    Attributes:
        stage: int64 scalar, restarts so far; stored with the weights.
        seed: int64 scalar, drawn at build time from the generator that drew the weights; stored with them.
        fresh: bool scalar, the student has not been updated since its last restart; stored with the weights.
    """

    stage: Tensor
    seed: Tensor
    fresh: Tensor

    def __init__(self, spec: RandomStart, student: Backbone) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = still_copy(student)
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.randint(1 << 62, ()))
        self.register_buffer("fresh", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(
        self, batch: Batch, plan: Plan | None = None, *, levels: tuple[int, ...] = (), attention: bool = False
    ) -> Tokens:
        """Encode a batch that the student prepared, without gradient."""
        tokens: Tokens = self.encoder(batch, plan, levels=levels, attention=attention)
        return tokens

    def follow(self, student: Backbone, progress: Tensor) -> bool:
        """Where a restart is due, take over the student's weights, give it fresh ones, and say True."""
        due = (progress.new_tensor(self.spec.restarts) <= progress).sum()
        self.fresh.copy_(due > self.stage)
        if not bool(self.fresh):
            return False
        copy_weights(self.encoder, student)
        self.stage.copy_(due)
        self.renew(student, student.spec.build, "student")
        return True

    def renew(self, module: nn.Module, build: Callable[[], nn.Module], name: str) -> None:
        """Give a module, in place, the weights that `build` draws for this stage; another name is another draw."""
        renew(module, build, key(int(self.seed), name, int(self.stage)))

    def train(self, mode: bool = True) -> RandomStartTeacher:
        """Stay in evaluation mode."""
        return super().train(False)
