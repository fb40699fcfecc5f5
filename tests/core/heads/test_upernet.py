from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from core.contract import Contract
from core.encoders.load import Encoder
from core.encoders.swinv2 import SwinV2Spec
from core.encoders.vit import ViTSpec
from core.errors import ConfigError
from core.heads._maps import Maps, level_factors, spread_levels
from core.heads.load import Model
from core.heads.upernet import UPerNet
from core.testing.samples import SCENE, ragged_batch
from core.weights import Placement

CONTRACT = Contract(inputs=(SCENE,))


def encoder(spec: ViTSpec | SwinV2Spec) -> Encoder:
    torch.manual_seed(0)
    return Encoder(spec.build(), pool="mean", report=Placement(()))


def test_a_plain_transformer_is_read_at_four_levels_as_a_pyramid() -> None:
    deep = ViTSpec(contract=CONTRACT, width=16, depth=12, heads=2)
    model = Model(encoder(deep), UPerNet(num_classes=2, width=8), task="segment", classes=("a", "b"))
    assert model.spec == UPerNet(num_classes=2, width=8, levels=(3, 6, 9, 12), factors=(4.0, 2.0, 1.0, 0.5))


def test_stages_that_merge_tokens_are_read_as_they_come() -> None:
    staged = SwinV2Spec(contract=CONTRACT, width=16, depths=(1, 1, 1), heads=(2, 2, 2), window=(2, 2))
    model = Model(encoder(staged), UPerNet(num_classes=2, width=8), task="segment", classes=("a", "b"))
    assert model.spec == UPerNet(num_classes=2, width=8, levels=(1, 2, 3), factors=(1.0, 1.0, 1.0))
    assert [norm.num_channels for norm in model.head.norms] == [16, 32, 64]


def test_levels_are_chosen_by_hand_too() -> None:
    backbone = ViTSpec(contract=CONTRACT, width=16, depth=5, heads=2).build()
    assert spread_levels(backbone) == (1, 2, 4, 5)
    assert level_factors(backbone, (2, 5)) == (1.0, 0.5)
    assert level_factors(backbone, (5,)) == (1.0,)
    model = Model(
        encoder(backbone.spec), UPerNet(num_classes=2, width=8, levels=(2, 5)), task="segment", classes=("a", "b")
    )
    assert model.features.levels == (2, 5)
    assert model(ragged_batch(SCENE)).shape == (4, 2, *SCENE.size)


def test_pooled_context_reaches_every_voxel_and_details_stay_where_they_are() -> None:
    torch.manual_seed(0)
    head = UPerNet(num_classes=2, width=8, factors=(1.0, 1.0), levels=(1, 2)).build(6, 6)
    fine, coarse = torch.randn(1, 6, 16, 16), torch.randn(1, 6, 4, 4)
    before = head(Maps((fine, coarse), (16, 16)))
    moved = coarse.clone()
    moved[..., 0, 0] += 3.0
    far = (head(Maps((fine, moved), (16, 16))) - before)[..., 12:, 12:]
    assert float(far.detach().abs().min()) > 0


def test_a_finer_level_is_joined_with_the_coarser_one_before_both_are_fused() -> None:
    torch.manual_seed(0)
    head = UPerNet(num_classes=2, width=8, factors=(1.0, 1.0), levels=(1, 2)).build(6, 6)
    fine, coarse = torch.randn(1, 6, 8, 8), torch.randn(1, 6, 4, 4)
    seen: dict[str, torch.Tensor] = {}
    head.context.register_forward_hook(lambda module, given, answer: seen.update(context=answer))
    head.smooth[0].register_forward_hook(lambda module, given, answer: seen.update(joined=given[0]))
    head(Maps((fine, coarse), (16, 16)))
    enlarged = F.interpolate(seen["context"], size=(8, 8), mode="bilinear")
    torch.testing.assert_close(seen["joined"], head.laterals[0](head.norms[0](fine)) + enlarged)


def test_a_cell_of_the_context_is_the_mean_of_its_tokens() -> None:
    head = UPerNet(num_classes=2, width=8, pools=(2,), factors=(1.0,), levels=(1,)).build(3)
    seen = []
    head.pools[0].register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    value = torch.randn(1, 3, 6, 6)
    head(Maps((value,), (6, 6)))
    normed = head.norms[0](value)
    torch.testing.assert_close(seen[0], F.avg_pool2d(normed, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": (3, 2)}, "levels that ascend from 1"),
        ({"levels": (0, 2)}, "levels that ascend from 1"),
        ({"levels": (1, 2), "factors": (1.0,)}, "one factor above 0 for each of the levels"),
        ({"pools": (0,)}, "pools of at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(given: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UPerNet(num_classes=2, **given)
