from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from core.errors import ConfigError
from core.heads._maps import Maps
from core.heads.segment import Segment


def test_is_one_affine_map_at_each_token_enlarged_linearly() -> None:
    head = Segment(num_classes=3).build(6)
    tokens = torch.randn(2, 6, 3, 4)
    logits = torch.einsum("bdyx,kd->bkyx", tokens, head.linear.weight)
    found = head(Maps((tokens,), (24, 32)))
    torch.testing.assert_close(found, F.interpolate(logits, size=(24, 32), mode="bilinear"))
    # the middle of four tokens' centres is their mean
    torch.testing.assert_close(
        found[:, :, 7:9, 7:9].mean((2, 3)), logits[:, :, :2, :2].mean((2, 3)), atol=1e-5, rtol=1e-5
    )


def test_volumes_are_enlarged_along_all_axes() -> None:
    head = Segment(num_classes=2).build(5, ndim=3)
    tokens = torch.randn(1, 5, 2, 3, 3)
    logits = torch.einsum("bdzyx,kd->bkzyx", tokens, head.linear.weight)
    found = head(Maps((tokens,), (4, 12, 12)))
    torch.testing.assert_close(found, F.interpolate(logits, size=(4, 12, 12), mode="trilinear"))


def test_batch_norm_removes_scale_and_offset_of_the_features() -> None:
    head = Segment(num_classes=3, batch_norm=True).build(6)
    tokens = torch.randn(4, 6, 5, 5)
    maps = Maps((tokens,), (5, 5))
    torch.testing.assert_close(head(Maps((50 * tokens + 3,), (5, 5))), head(maps), atol=1e-4, rtol=1e-3)


def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes"):
        Segment(num_classes=1)
