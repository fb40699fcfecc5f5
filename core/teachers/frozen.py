"""An encoder that was trained before and does not change: one of our own runs, or an encoder folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.bands import BandNames
from core.batch import Batch, valid_tokens
from core.contract import Input
from core.encoders.base import Backbone, Tokens
from core.encoders.load import load_encoder
from core.errors import BandError, ConfigError
from core.plan import Plan, spread
from core.teachers._weights import still
from core.teachers.base import Teacher, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class Frozen(TeacherSpec):
    """Load a stored encoder and leave it as it is; it may read fewer bands than the student, found by name.

    A run that is resumed needs the folder again; the weights are those of its checkpoint.

    Attributes:
        path: a run folder, or its `encoder` folder.
    """

    path: str

    def build(self, student: Backbone) -> FrozenTeacher:
        """Load it.

        Raises:
            ConfigError: for an input of the student it has none of the same rank, patch, unit, groups, normalisation and
                tokens with no other bands.
            MissingDataError: there is no encoder at the path.
            CheckpointError: its weights do not verify.
        """
        encoder = load_encoder(self.path).backbone
        for entry in student.contract.inputs:
            _check(self.path, encoder, student, entry)
        return FrozenTeacher(encoder)


class FrozenTeacher(Teacher):
    """The module; see `Frozen`."""

    def __init__(self, encoder: Backbone) -> None:
        super().__init__()
        self.encoder = still(encoder)

    @torch.no_grad()
    def observe(
        self, batch: Batch, plan: Plan | None = None, *, levels: tuple[int, ...] = (), attention: bool = False
    ) -> Tokens:
        """Encode a batch that the student prepared, without gradient.

        With a plan and fewer bands than the student's, a token may be measured in the student's bands and missing in
        these: it is left out, and the tokens come back on the full grid, those that were seen `ok`.
        """
        own, entry = self.encoder.prepare(batch)
        if plan is None or len(own.bands) == len(batch.bands):
            return self._encode(own, plan, levels, attention)
        measured = valid_tokens(own, entry.grid(own.size))
        plan = replace(plan, see=plan.see & measured, hide=plan.hide & measured)
        return _laid_out(self._encode(own, plan, levels, attention), plan.see)

    def _encode(self, batch: Batch, plan: Plan | None, levels: tuple[int, ...], attention: bool) -> Tokens:
        tokens: Tokens = self.encoder(batch, plan, levels=levels, attention=attention)
        return tokens

    def follow(self, student: Backbone, progress: Tensor) -> bool:
        """Stay as it is."""
        return False

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode."""
        return super().train(False)


def _laid_out(tokens: Tokens, see: Tensor) -> Tokens:
    """Put the tokens of what was seen (B, N) on the full grid, 0 elsewhere."""
    if tokens.full_grid:
        return tokens
    zero = tokens.value.new_zeros(())
    attention = tokens.attention
    if attention is not None:
        attention = spread(attention.transpose(1, 2), see, attention.new_zeros(())).transpose(1, 2)
    levels = {number: _laid_out(level, see) for number, level in tokens.levels.items()}
    value = spread(tokens.value, see, zero)
    return replace(tokens, value=value, ok=see, full_grid=True, levels=levels, attention=attention)


def _check(path: str, teacher: Backbone, student: Backbone, entry: Input) -> None:
    """Refuse a teacher that would see something else than the student does.

    Raises:
        ConfigError: names the first thing that differs.
    """
    try:
        own = teacher.contract.input_for(entry.ndim, entry.bands)
    except BandError as error:
        raise ConfigError(f"teacher {path} cannot read the student's input '{entry.name}': {error}") from error

    def ends(encoder: Backbone, kind: Input) -> tuple[int, ...]:
        return encoder.level_grid(encoder.num_levels, kind.grid(entry.size)).tokens

    facts: dict[str, Callable[[], tuple[object, object]]] = {
        "patch": lambda: (own.patch, entry.patch),
        "unit": lambda: (own.unit, entry.unit),
        "band groups": lambda: (own.groups, entry.groups),
        "normalisation": lambda: (_value_space(own, own.bands), _value_space(entry, own.bands)),
        "tokens": lambda: (ends(teacher, own), ends(student, entry)),
    }
    for name, both in facts.items():
        theirs, ours = both()
        if theirs != ours:
            raise ConfigError(
                f"teacher {path}: expected the {name} of the student's input '{entry.name}', {ours}, got {theirs}: "
                "choose a teacher that was trained on the same kind of image, or describe the input as the teacher's."
            )


def _value_space(entry: Input, bands: BandNames) -> tuple[object, ...]:
    """Name the method, and all numbers of the given bands that it has: mean, deviation, clipping."""
    space = entry.normalisation
    columns = [numbers for numbers in (space.mean, space.std, space.clip) if numbers]
    of_band = dict(zip(entry.bands, zip(*columns, strict=True), strict=True)) if columns else {}
    return (space.method, space.full_scale, *(of_band[band] for band in bands if of_band))
