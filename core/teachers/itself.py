"""The student as its own teacher: what it makes of another view of the image, without gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.plan import Plan
from core.teachers.base import Teacher, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class Itself(TeacherSpec):
    """Ask the student, without gradient (the alignment targets of CAE, Chen et al. 2022, arXiv 2202.03026, 3.1).

    Deviations: it is in evaluation mode while it is asked, so that dropped paths do not make targets noisy.
    """

    def build(self, student: Backbone) -> ItselfTeacher:
        """Wrap the student; no weight is copied."""
        return ItselfTeacher(student)


class ItselfTeacher(Teacher):
    """The module; see `Itself`. It has no weights of its own, and its `encoder` goes on learning."""

    def __init__(self, student: Backbone) -> None:
        super().__init__()
        object.__setattr__(self, "encoder", student)  # a submodule would list the student's weights a second time

    @torch.no_grad()
    def observe(
        self, batch: Batch, plan: Plan | None = None, *, levels: tuple[int, ...] = (), attention: bool = False
    ) -> Tokens:
        """Encode a prepared batch with the student as it is now, without gradient."""
        training = self.encoder.training
        self.encoder.eval()
        try:
            tokens: Tokens = self.encoder(batch, plan, levels=levels, attention=attention)
        finally:
            self.encoder.train(training)
        return tokens

    def follow(self, student: Backbone, progress: Tensor) -> bool:
        """Do nothing: it is the student."""
        return False

    def train(self, mode: bool = True) -> ItselfTeacher:
        """Stay in evaluation mode."""
        return super().train(False)
