"""The student's own moving average, which changes slowly enough to be a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.errors import ConfigError
from core.plan import Plan
from core.teachers._weights import average, still_copy
from core.teachers.base import Teacher, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class Ema(TeacherSpec):
    """Average the student over its past: teacher = m * teacher + (1 - m) * student after each update.

    Source: Tarvainen & Valpola 2017, arXiv 1703.01780; momentum that rises by a half cosine, Grill et al. 2020,
    arXiv 2006.07733, 3.3. Deviations: a step that was skipped moves nothing; buffers are copied.

    Attributes:
        start: momentum m at the beginning of the training, 0 to 1.
        end: momentum at the share `until` of the training, and after it.
        schedule: how m goes from `start` to `end`: half a cosine, or a line.
        until: share of the training, above 0, at which `end` is reached.
    """

    start: float = 0.996
    end: float = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ConfigError(
                f"expected a momentum that rises within 0 to 1, got start {self.start} and end {self.end}."
            )
        if not 0.0 < self.until <= 1.0:
            raise ConfigError(
                f"expected a share of the training above 0 and up to 1 for 'until', got {self.until}; "
                "for a momentum that never changes give the same start and end."
            )

    def share(self, progress: Tensor) -> Tensor:
        """Say how much of the student enters, 1 - m, at a share of the training (scalar), float32 scalar."""
        done = (progress.to(torch.float32) / self.until).clamp(max=1.0)
        left = (1.0 + torch.cos(done * torch.pi)) / 2.0 if self.schedule == "cosine" else 1.0 - done
        return (1.0 - self.end) + (self.end - self.start) * left  # 1 - m itself would lose digits near m = 1

    def build(self, student: Backbone) -> EmaTeacher:
        """Begin with the student as it is."""
        return EmaTeacher(self, student)


class EmaTeacher(Teacher):
    """The module; see `Ema`."""

    def __init__(self, spec: Ema, student: Backbone) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = still_copy(student)

    @torch.no_grad()
    def observe(
        self, batch: Batch, plan: Plan | None = None, *, levels: tuple[int, ...] = (), attention: bool = False
    ) -> Tokens:
        """Encode a batch that the student prepared, without gradient."""
        tokens: Tokens = self.encoder(batch, plan, levels=levels, attention=attention)
        return tokens

    def follow(self, student: Backbone, progress: Tensor) -> bool:
        """Move towards the student by `spec.share(progress)`; the student is never restarted."""
        average(self.encoder, student, self.spec.share(progress))
        return False

    def train(self, mode: bool = True) -> EmaTeacher:
        """Stay in evaluation mode."""
        return super().train(False)
