"""Weights find their place, or one error names every key that does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.errors import CheckpointError
from core.weights import Placement, build_with, check, file_sha256, place, read_weights, write_weights


def test_all_problems_in_one_error():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weights = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        place(module, weights, source="here.safetensors")
    text = str(caught.value)
    assert text.startswith("here.safetensors: ")
    for part in ("missing: 1.bias, 1.weight", "unexpected: extra", "0.bias: file (4,), module (3,)"):
        assert part in text


def test_a_wholly_other_module_is_told_in_a_few_names():
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    weights = {key: torch.zeros(3) for key in module.state_dict()}
    with pytest.raises(
        CheckpointError, match=r"reshaped: 0\.bias: file \(3,\), module \(2,\), .* and 28 more\.$"
    ) as told:
        check(module, weights, source="x")
    assert str(told.value).count("file (3,)") == 12


def test_weights_without_memory_leave_the_module_without():
    weights = {key: value.to("meta") for key, value in nn.Linear(2, 3).state_dict().items()}
    module, report = build_with(lambda: nn.Linear(2, 3), weights, source="x")
    assert all(value.is_meta for value in module.state_dict().values())
    assert report.placed == ("bias", "weight")


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


class Plain(nn.Module):
    """A parameter that is trained, one that is not, and what a state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.table = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("counted", torch.zeros(2, dtype=torch.int64))


class Cached(Plain):
    """And a tensor of its own making, which no weights replace."""

    def __init__(self, how: str) -> None:
        super().__init__()
        if how == "buffer":
            self.register_buffer("steps", torch.arange(3.0), persistent=False)
        else:
            self.steps = torch.arange(3.0)


def filling(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: torch.full(value.shape, 7.25) for key, value in module.state_dict().items()}


def test_a_module_is_built_around_its_weights_without_drawing_fresh_ones():
    weights = filling(Plain())
    weights["linear.weight"] = weights["linear.weight"].bfloat16()
    before = torch.get_rng_state()
    module, report = build_with(Plain, weights, source="x")
    assert torch.equal(torch.get_rng_state(), before)
    assert report == Placement(("counted", "linear.bias", "linear.weight", "table"))
    assert {key: value.dtype for key, value in module.state_dict().items()} == {
        key: value.dtype for key, value in Plain().state_dict().items()
    }
    assert bool((module.linear.weight == 7.25).all())
    assert module.counted.tolist() == [7, 7]
    assert (module.linear.weight.requires_grad, module.table.requires_grad) == (True, False)
    weights["table"].zero_()
    assert bool((module.table == 7.25).all()), "the module must own its memory"


@pytest.mark.parametrize("how", ["buffer", "attribute"])
def test_tensors_of_a_modules_own_making_survive(how):
    module, _ = build_with(lambda: Cached(how), filling(Cached(how)), source="x")
    assert module.steps.tolist() == [0.0, 1.0, 2.0]
    assert bool((module.table == 7.25).all())


def test_building_and_checking_refuse_what_placing_refuses():
    weights = filling(Plain())
    del weights["table"]
    for attempt in (
        lambda: build_with(Plain, weights, source="x"),
        lambda: check(Plain(), weights, source="x"),
        lambda: place(Plain(), weights, source="x"),
    ):
        with pytest.raises(CheckpointError, match=r"x: expected weights for Plain, but missing: table\.$"):
            attempt()


def test_checking_changes_nothing():
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    check(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, source="x")
    assert torch.equal(module.weight, before)


def test_the_report_reads_well():
    plain = Placement(("a", "b"), missing=("c",))
    assert str(plain) == "placed 2, missing ['c'], unexpected []"
    full = Placement(("a",), dropped=("d",), adapted=("bands left out",), sha256="ab", source_dtype="bfloat16")
    assert str(full).splitlines()[1:] == ["dropped by rule 1, from bfloat16, sha256 ab", "adapted: bands left out"]


def test_sha256_is_the_one_that_hubs_tell(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_tensors_that_share_memory_are_written_whole(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    write_weights(tmp_path / "x.safetensors", {"a": whole, "b": whole.T, "c": whole[0]})
    found = read_weights(tmp_path / "x.safetensors")
    assert found["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["c"].tolist() == [0, 1, 2]
