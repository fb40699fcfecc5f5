"""What a batch knows of its own completeness stays true of the batches that are made from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.batch import Batch
from core.testing.samples import SCENE, ragged_batch

CPU = torch.device("cpu")


def whole(dtype: torch.dtype = torch.float32) -> Batch:
    """A batch without missing data, which has not yet been asked whether it is one."""
    batch = ragged_batch(SCENE)
    return replace(batch, image=batch.image.to(dtype), valid=torch.ones_like(batch.valid))


def known(batch: Batch) -> object:
    """What the batch knows without looking."""
    return batch.__dict__.get("complete")


DERIVED = {
    "take": lambda batch: batch.take([0, 2]),
    "to": lambda batch: batch.to(CPU),
    "aligned": lambda batch: batch.aligned(("nir", "red")),
    "normalised whole numbers": lambda batch: batch.normalised(),
}


@pytest.mark.parametrize("how", DERIVED)
def test_a_batch_of_a_complete_one_is_complete_without_looking(how):
    batch = whole(torch.int16)
    assert known(DERIVED[how](batch)) is None  # nobody has looked at the first one either
    assert batch.complete
    assert known(DERIVED[how](batch)) is True
    assert bool(DERIVED[how](batch).valid.all())


@pytest.mark.parametrize("how", DERIVED)
def test_a_batch_of_an_incomplete_one_is_looked_at_again(how):
    batch = whole(torch.int16)
    batch.valid[1, SCENE.bands.index("blue")] = False  # neither taken nor among the selected bands
    assert not batch.complete
    derived = DERIVED[how](batch)
    assert known(derived) is None
    assert derived.complete == bool(derived.valid.all()) == (how in ("take", "aligned"))


@pytest.mark.parametrize("content", [float("nan"), float("inf")])
def test_real_numbers_that_are_not_finite_make_a_complete_batch_incomplete(content):
    batch = whole()
    batch.image[0, 0, 3, 3] = content
    assert batch.complete
    assert not batch.normalised().complete
    assert whole().normalised().complete
