"""The teacher interface: a frozen spec that builds a module, observed once per step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.plan import Plan


class Teacher(nn.Module, ABC):
    """A network that is looked at and never trained.

    Attributes:
        encoder: the network; in evaluation mode whatever `train` says, and no parameter of it wants a gradient.
    """

    encoder: Backbone

    @abstractmethod
    def observe(
        self, batch: Batch, plan: Plan | None = None, *, levels: tuple[int, ...] = (), attention: bool = False
    ) -> Tokens:
        """Encode a batch that the student prepared, without gradient; arguments as `Backbone.forward`."""

    @abstractmethod
    def follow(self, student: Backbone, progress: Tensor) -> bool:
        """Learn from the student after an update; True = the student was restarted and its optimiser must forget."""


class TeacherSpec(ABC):
    """A frozen description of a teacher."""

    part_kind: ClassVar[str] = "teachers"

    @abstractmethod
    def build(self, student: Backbone) -> Teacher:
        """Make it for a student.

        Raises:
            ConfigError: it cannot read what the student reads.
        """
