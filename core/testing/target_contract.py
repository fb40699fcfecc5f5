"""What every target promises: its shape, finite numbers, and no number of weight that rests on missing data, in 2D and 3D.

A test class gives the fixtures `target` and `entry` and inherits the exam; see tests/contracts/test_targets.py.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core import registry
from core.batch import Batch, valid_share
from core.contract import Input
from core.groups import by_group
from core.shapes import Grid
from core.targets.base import Target
from core.targets.codebook import Codebook, fit_codebook
from core.targets.indices import Indices
from core.testing.samples import grouped, ragged_batch


class TargetContract:
    """The exam."""

    def test_gives_one_vector_per_token(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        value, weight = target(batch, grid)
        assert value.shape == weight.shape == (len(batch), grid.num_tokens, width_of(target, entry))
        assert value.dtype == torch.float32
        assert weight.dtype in (torch.float32, torch.bool)
        assert bool((weight >= 0).all())
        assert bool((weight[0] > 0).any()), "a whole image has nothing to predict"
        assert not value.requires_grad

    def test_is_finite_on_missing_data_and_on_a_constant(self, target: Target, entry: Input) -> None:
        batch = clean_batch(target, entry)
        flat = replace(batch, image=torch.where(batch.valid, 0.7, 0.0))
        for given in (batch, flat):
            value, weight = target(given, entry.grid())
            assert bool(value.isfinite().all())
            assert bool(weight.to(torch.float32).isfinite().all())

    @pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
    def test_missing_voxels_change_nothing_of_weight(self, target: Target, entry: Input, content: float) -> None:
        raw = raw_batch(target, entry)
        filled = replace(raw, image=torch.where(raw.valid, raw.image, content))
        self._same(target, entry, prepared(raw, entry), prepared(filled, entry))

    def test_validity_is_read_from_the_batch_and_not_from_zeros(self, target: Target, entry: Input) -> None:
        batch = clean_batch(target, entry)
        self._same(target, entry, batch, replace(batch, image=torch.where(batch.valid, batch.image, 1e4)))

    def test_a_token_without_data_has_no_weight(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        share = valid_share(
            batch, Grid.of(batch.size, tuple(s // t for s, t in zip(batch.size, grid.tokens, strict=True)))
        )
        _, weight = target(batch, grid)
        assert bool((share == 0).any())
        assert bool((weight[share == 0] == 0).all())

    def test_bands_count_by_name(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        order = list(reversed(range(len(batch.bands))))
        shuffled = batch.aligned(tuple(batch.bands[i] for i in order))
        value, weight = target(batch, grid)
        together = Grid(grid.tokens, grid.patch, (entry.bands,))
        again, other = by_group(target, shuffled, together)
        assert torch.equal(value, again)
        assert torch.equal(weight, other)

    def test_batch_mates_change_nothing(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        value, weight = target(batch, grid)
        for sample in range(len(batch)):
            alone, own = target(batch.take([sample]), grid)
            assert torch.equal(own[0] > 0, weight[sample] > 0)
            torch.testing.assert_close(alone[0] * own[0], value[sample] * weight[sample], rtol=1e-5, atol=1e-5)

    def test_band_groups_lie_side_by_side(self, target: Target, entry: Input) -> None:
        split = grouped(entry)
        batch, grid = clean_batch(target, split), split.grid()
        value, weight = by_group(target, batch, grid)
        assert value.shape == weight.shape == (len(batch), grid.num_tokens, width_of(target, split))
        first, _ = target(batch.aligned(split.groups[0]), grid.plain)
        assert torch.equal(value[:, : grid.num_places, : first.shape[2]], first)
        assert bool(value.isfinite().all())

    def test_autocast_changes_nothing(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        value, _ = target(batch, grid)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again, _ = target(batch, grid)
        assert torch.equal(value, again)

    def test_leaves_the_batch_as_it_is(self, target: Target, entry: Input) -> None:
        batch = clean_batch(target, entry)
        image, valid = batch.image.clone(), batch.valid.clone()
        target(batch, entry.grid())
        assert torch.equal(batch.image, image)
        assert torch.equal(batch.valid, valid)

    def test_draws_an_image_or_none(self, target: Target, entry: Input) -> None:
        batch, grid = clean_batch(target, entry), entry.grid()
        value, _ = target(batch, grid)
        guess = torch.randn(
            len(batch), grid.num_tokens, target.num_values(entry), generator=torch.Generator().manual_seed(0)
        )
        for numbers in (value, guess):
            image = target.picture(numbers, batch, grid)
            assert image is None or image.shape == (len(batch), image.shape[1], *batch.size)
            assert image is None or bool(image.isfinite().all())

    @staticmethod
    def _same(target: Target, entry: Input, one: Batch, two: Batch) -> None:
        (value, weight), (again, other) = (target(batch, entry.grid()) for batch in (one, two))
        assert torch.equal(weight, other)
        zero = torch.zeros_like(value)
        assert torch.equal(torch.where(weight > 0, value, zero), torch.where(other > 0, again, zero))


def raw_batch(target: Target, entry: Input) -> Batch:
    """Make the four ragged samples that a target is shown, as they leave the loader, and finer where it wants them so."""
    fine = {name: tuple(n * target.detail for n in getattr(entry, name)) for name in ("size", "patch")}
    return ragged_batch(replace(entry, **fine))  # type: ignore[arg-type]


def prepared(batch: Batch, entry: Input) -> Batch:
    """Do to a batch what an encoder does before targets see it."""
    return batch.aligned(entry.bands).normalised()


def clean_batch(target: Target, entry: Input) -> Batch:
    """Make the ragged samples, prepared."""
    return prepared(raw_batch(target, entry), entry)


def width_of(target: Target, entry: Input) -> int:
    """Say how many numbers a target's value has per token: as many as are predicted, or one code."""
    return 1 if target.is_code else target.num_values(entry)


def options_of(part: type[Target]) -> list[tuple[str, object]]:
    """List every choice other than the default of a target's named options: its `Literal` and bool fields."""
    hints, found = get_type_hints(part), []
    for option in fields(part):  # type: ignore[arg-type]
        hint = hints[option.name]
        choices = get_args(hint) if get_origin(hint) is Literal else (True, False) if hint is bool else ()
        found += [(option.name, choice) for choice in choices if choice != option.default]
    return found


def made(name: str, entry: Input, folder: Path, **options: object) -> Target:
    """Make a target of the folder with its defaults and the given options, for an input."""
    part = registry.get("targets", name)
    needed: dict[str, object] = {"path": str(_codebook(entry, folder))} if part is Codebook else {}
    if part is Indices:
        needed = {"radiometric": True}
    target: Target = part(**(needed | options))
    return target


def _codebook(entry: Input, folder: Path) -> Path:
    path = folder / f"{entry.name}.safetensors"
    if not path.exists():
        books: dict[str, Tensor] = {}
        for kind in (entry, grouped(entry)):
            books |= fit_codebook([ragged_batch(kind)], kind, size=4, seed=0, passes=2)
        save_file(books, path)
    return path
