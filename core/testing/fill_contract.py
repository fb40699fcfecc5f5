"""What every fill keeps, in 2D and 3D, with and without band groups, for masks over tokens and over voxels.

A test class gives the fixtures `name` and `entry` and inherits the exam; see tests/contracts/test_fills.py.
"""

from __future__ import annotations

import math
import os
import typing
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core import registry
from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.fills._visible import visible_voxels
from core.fills.base import Fill
from core.maskers.random import Random
from core.maskers.voxel_blocks import VoxelBlocks
from core.plan import Plan
from core.shapes import Grid
from core.targets.codebook import fit_codebook
from core.testing.samples import _folder, grouped, ragged_batch
from core.voxel_masks import to_voxels

ABILITIES = set(typing.get_args(Ability))
BY_DESIGN = {"codeword", "projection"}  # show the encoder something of what is hidden, and say so
CHANGES_ALL = {"projection"}  # changes what is seen as well
OF_OTHERS = {"other_sample"}  # depends on the other samples of the batch, and says so


class FillContract:
    """The exam."""

    def test_names_an_ability(self, name: str, entry: Input) -> None:
        assert made(name, entry).ability in ABILITIES

    def test_suits_the_inputs_that_it_can_fill(self, name: str, entry: Input) -> None:
        for own in (entry, grouped(entry)):
            made(name, own).check(own)

    def test_only_a_dense_fill_changes_the_image(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            changed = not torch.equal(case.given().image, case.batch.image)
            assert changed == (case.fill.ability == "dense"), case.kind

    def test_all_but_the_image_stays(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            given = case.given()
            assert (given.image.shape, given.image.dtype) == (case.batch.image.shape, case.batch.image.dtype)
            assert torch.equal(given.valid, case.batch.valid)
            for field in fields(Batch):
                if field.name != "image":
                    assert getattr(given, field.name) is getattr(case.batch, field.name)

    def test_what_is_seen_and_what_is_missing_stays(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            given, kept = case.given().image, ~case.replaced()
            assert torch.equal(given[kept], case.batch.image[kept]), case.kind
            assert bool(torch.isfinite(given[case.batch.valid]).all())

    def test_hidden_voxels_change(self, name: str, entry: Input) -> None:
        for case in dense(name, entry):
            replaced = case.replaced()
            moved = (case.given().image != case.batch.image)[replaced]
            assert int(replaced.sum()) > 1000
            assert float(moved.float().mean()) > 0.99, case.kind

    def test_hidden_content_never_reaches_the_image(self, name: str, entry: Input) -> None:
        for case in dense(name, entry):
            image = case.batch.image.clone().requires_grad_()
            given = replace(case, batch=replace(case.batch, image=image)).given().image
            hidden = case.hidden()
            # where it is seen, an image stays itself; a zero weight would hide a dependence on it, a random one does not
            weight = torch.randn(given.shape, generator=torch.Generator().manual_seed(3))
            (given * weight)[case.batch.valid].sum().backward()
            assert image.grad is not None
            reached = image.grad[hidden].abs()
            if name in BY_DESIGN:
                assert name == "codeword" or float(reached.max()) > 0.0  # the choice of a codeword has no gradient
            else:
                assert bool((reached == 0.0).all()), case.kind
            assert bool(torch.isfinite(image.grad).all())

    def test_hidden_content_decides_nothing(self, name: str, entry: Input) -> None:
        """Other hidden content, not a small change of it: a choice, such as the nearest, has no gradient."""
        for case in dense(name, entry):
            other = torch.where(case.hidden(), torch.randn(case.batch.image.shape) * 5.0, case.batch.image)
            again = replace(case, batch=replace(case.batch, image=other)).given().image
            alike = torch.equal(again[case.batch.valid], case.given().image[case.batch.valid])
            assert alike == (name not in BY_DESIGN), case.kind

    @pytest.mark.parametrize("content", [1e4, math.nan, math.inf])
    def test_content_of_missing_voxels_changes_nothing(self, name: str, entry: Input, content: float) -> None:
        for case in cases(name, entry):
            batch = replace(case.batch, image=torch.where(case.batch.valid, case.batch.image, content))
            again = replace(case, batch=batch).given().image
            assert torch.equal(again[case.batch.valid], case.given().image[case.batch.valid]), case.kind

    def test_the_same_keys_give_the_same_image(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            assert torch.equal(case.given().image, case.given().image)

    def test_autocast_changes_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            with torch.autocast("cpu", torch.bfloat16):
                half = case.given().image
            assert torch.equal(half, case.given().image), case.kind

    def test_batch_mates_change_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            together = case.given().image
            for sample in range(3):
                alone = case.of([sample]).given().image[0]
                if name in OF_OTHERS:
                    assert not torch.equal(alone, together[sample])
                else:
                    torch.testing.assert_close(alone, together[sample], rtol=1e-5, atol=1e-5)

    def test_the_order_of_the_batch_changes_nothing(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            rows = [2, 0, 3, 1]
            torch.testing.assert_close(case.of(rows).given().image, case.given().image[rows], rtol=1e-5, atol=1e-5)

    def test_a_sample_without_data_stays_as_it_is(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            assert torch.equal(case.given().image[3], case.batch.image[3])

    def test_where_nothing_is_hidden_nothing_is_replaced(self, name: str, entry: Input) -> None:
        for case in cases(name, entry):
            plan = Plan(see=case.plan.see | case.plan.hide, hide=torch.zeros_like(case.plan.hide))
            same = torch.equal(replace(case, plan=plan).given().image, case.batch.image)
            assert same == (name not in CHANGES_ALL), case.kind


@dataclass(frozen=True)
class Case:
    """A fill, and what it is to fill.

    Attributes:
        kind: `plain` or `grouped` (bands), `tokens` or `voxels` (mask).
        fill: built.
        grid: of the input.
        batch: prepared.
        plan: what is hidden.
    """

    kind: str
    fill: Fill
    grid: Grid
    batch: Batch
    plan: Plan

    def given(self) -> Batch:
        """What the encoder is given."""
        return self.fill(self.batch, self.plan, self.grid, self.batch.rng)

    def of(self, rows: list[int]) -> Case:
        """The same for some samples."""
        voxels = None if self.plan.voxels is None else self.plan.voxels[rows]
        plan = Plan(self.plan.see[rows], self.plan.hide[rows], voxels=voxels)
        return replace(self, batch=self.batch.take(rows), plan=plan)

    def hidden(self) -> Tensor:
        """Measured voxels that are hidden, (B, C, *S)."""
        tokens = to_voxels(self.plan.hide, self.grid, self.batch.bands)
        return (tokens if self.plan.voxels is None else self.plan.voxels) & self.batch.valid

    def replaced(self) -> Tensor:
        """Measured voxels that the fill may change, (B, C, *S)."""
        if registry.name_of(self.fill) in CHANGES_ALL:
            return to_voxels(self.plan.see | self.plan.hide, self.grid, self.batch.bands) & self.batch.valid
        assert not bool((self.hidden() & visible_voxels(self.batch, self.plan, self.grid)).any())
        return self.hidden()


def made(name: str, entry: Input) -> Fill:
    """Build any fill of the folder; a codebook is fitted for those that need one."""
    part = registry.get("fills", name)
    required = [f.name for f in fields(part) if f.default is MISSING and f.default_factory is MISSING]
    given: dict[str, Any] = {field: {"codebook": _codebook}[field](entry) for field in required}
    fill: Fill = part(**given)
    return fill


@cache
def cases(name: str, entry: Input) -> tuple[Case, ...]:
    """Lay a fill over an input, with its bands as they are and in groups, with masks over tokens and over voxels."""
    found = []
    for bands, own in (("plain", entry), ("grouped", grouped(entry))):
        batch, grid = ragged_batch(own).normalised(), own.grid()
        for mask, masker in (("tokens", Random(ratio=0.6)), ("voxels", VoxelBlocks(ratio=0.6))):
            plan = masker(batch, grid, batch.rng)
            found.append(Case(f"{bands}, {mask}", made(name, entry), grid, batch, plan))
    return tuple(found)


def dense(name: str, entry: Input) -> tuple[Case, ...]:
    """Give the cases of a fill that changes the image; none of one that leaves it to the encoder."""
    return tuple(case for case in cases(name, entry) if case.fill.ability == "dense")


@cache
def _codebook(entry: Input) -> str:
    """Fit codebooks for an input with and without groups, in one file."""
    file = _folder() / f"codebook-{entry.name}-{os.getpid()}.safetensors"
    batches = [ragged_batch(entry, seed=5)]  # other patches than those that are filled
    books = [fit_codebook(batches, own, size=8, seed=0, passes=2) for own in (entry, grouped(entry))]
    save_file(books[0] | books[1], file)
    return str(file)
