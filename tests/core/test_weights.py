"""Weights find their place, or one error names every key that does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import CheckpointError
from core.weights import place, read_weights


def test_all_problems_in_one_error():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weights = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        place(module, weights, source="here.safetensors")
    text = str(caught.value)
    assert text.startswith("here.safetensors: ")
    for part in ("missing: 1.bias, 1.weight", "unexpected: extra", "0.bias: file (4,), module (3,)"):
        assert part in text


def test_named_exceptions_are_reported():
    module = nn.Linear(2, 3)
    before = module.bias.clone()
    weights = {"weight": torch.ones(3, 2), "head.weight": torch.zeros(1)}
    report = place(module, weights, source="x", allow_missing=("bias",), allow_unexpected=("head.",))
    assert report.placed == ("weight",)
    assert report.missing == ("bias",)
    assert report.unexpected == ("head.weight",)
    assert bool((module.weight == 1).all())
    assert torch.equal(module.bias, before)


def test_nothing_is_touched_when_something_does_not_fit():
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    with pytest.raises(CheckpointError):
        place(module, {"weight": torch.ones(3, 2)}, source="x")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected a whole safetensors file"):
        read_weights(path)
