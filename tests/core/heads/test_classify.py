from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core import registry
from core.config import from_dict, to_dict
from core.errors import ConfigError
from core.heads.base import HeadSpec
from core.heads.classify import Classify


def test_the_folder_knows_the_head_by_its_file_name() -> None:
    assert "classify" in registry.names("heads")
    assert registry.get("heads", "classify") is Classify
    spec = Classify(num_classes=5, batch_norm=True)
    assert from_dict(HeadSpec, to_dict(spec)) == spec


def test_head_is_one_affine_map() -> None:
    head = Classify(num_classes=3, init_std=0.5).build(7)
    features = torch.randn(4, 7)
    expected = features @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), expected)
    assert sorted(head.state_dict()) == ["linear.bias", "linear.weight"]


def test_fresh_head_answers_with_nearly_equal_probabilities() -> None:
    head = Classify(num_classes=4).build(512)
    torch.testing.assert_close(head(torch.randn(8, 512)).softmax(1), torch.full((8, 4), 0.25), atol=1e-3, rtol=0)
    assert (head.linear.bias == 0).all()
    assert head.linear.weight.std().item() == pytest.approx(2e-5, rel=0.1)


def test_batch_norm_removes_scale_and_offset_of_the_features() -> None:
    head = Classify(num_classes=3, batch_norm=True, init_std=0.5).build(6)
    features = torch.randn(32, 6)
    head.train()
    torch.testing.assert_close(head(100 * features + 7), head(features), atol=1e-3, rtol=1e-3)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]


def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes"):
        Classify(num_classes=1)


@pytest.mark.parity
@pytest.mark.parametrize("case", ["mae_vit_finetune_gap", "mae_vit_finetune_cls"])
def test_logits_equal_the_references_head(shared: Path, case: str) -> None:
    io, weights = (load_file(shared / "parity" / case / f"{name}.safetensors") for name in ("io", "weights"))
    head = Classify(num_classes=5).build(48)
    head.load_state_dict({"linear.weight": weights["head.weight"], "linear.bias": weights["head.bias"]})
    torch.testing.assert_close(head(io["out.features"]), io["out.logits"], atol=1e-6, rtol=1e-6)
