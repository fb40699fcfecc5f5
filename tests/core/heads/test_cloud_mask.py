from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import ConfigError
from core.heads._maps import Maps
from core.heads.cloud_mask import CloudMask
from core.testing.head_contract import tiny_model
from core.testing.samples import CUBE, ragged_batch


def test_the_published_head_has_the_published_layers() -> None:
    """Counted by hand for features of 4096: kernels of 3 x 3 with biases."""
    with torch.device("meta"):
        head = CloudMask().build(4096)
    widths = (4096, 2048, 512, 256, 128, 64)
    expected = sum(9 * a * b + b for a, b in itertools.pairwise(widths)) + 9 * 64 + 1
    assert sum(p.numel() for p in head.parameters()) == expected
    assert head(Maps((torch.zeros(2, 4096, 4, 4, device="meta"),), (128, 128))).shape == (2, 1, 91, 40)


def test_each_stage_doubles_the_map_before_it_is_fitted_to_the_section() -> None:
    head = CloudMask(widths=(6, 4), dropout=0.0).build(8)
    value = torch.randn(1, 8, 3, 5)
    assert head.stages(value).shape == (1, 4, 12, 20)
    torch.testing.assert_close(
        head(Maps((value,), (24, 40))), F.interpolate(head.last(head.stages(value)), size=(91, 40), mode="bilinear")
    )


def test_dropped_logits_are_of_training_alone() -> None:
    torch.manual_seed(0)
    head = CloudMask(widths=(4,), dropout=0.5).build(6).eval()
    maps = Maps((torch.randn(1, 6, 4, 4),), (32, 32))
    assert torch.equal(head(maps), head(maps))
    assert not torch.equal(head.train()(maps), head(maps))


@pytest.mark.slow
def test_learns_the_sections_of_its_images_by_heart() -> None:
    model = tiny_model("cloud_mask", "swinv2", CUBE)
    model.head = CloudMask(widths=(64, 32, 32, 16), dropout=0.0).build(model.encoder.backbone.num_features)
    batch = ragged_batch(CUBE).take([0, 1])
    rows = torch.linspace(-1, 1, 91)[:, None]
    columns = torch.linspace(-1, 1, 40)[None]
    clouds = torch.stack([(rows - 0.3).square() + columns.square() < 0.3, (rows + columns).abs() < 0.4])[:, None]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        loss = F.binary_cross_entropy_with_logits(model.train()(batch), clouds.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert _iou(model.eval().probabilities(batch) > 0.5, clouds) > 0.9


def _iou(found: Tensor, truth: Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("given", [{"widths": ()}, {"size": (0, 40)}, {"dropout": 1.0}])
def test_sizes_that_do_not_fit_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected widths and a section"):
        CloudMask(**given)  # type: ignore[arg-type]
