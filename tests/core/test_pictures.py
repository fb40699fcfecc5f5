"""Pictures of band groups: each group has its own mask, and what is shown of it follows that mask alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.contract import Contract, Input
from core.encoders.vit import ViTSpec
from core.groups import cut
from core.pictures import Pictures, compose
from core.plan import Plan
from core.predictors.transformer import TransformerSpec
from core.recipes._one_view import draw
from core.recipes.base import Recipe
from core.recipes.fg_mae import FgMae
from core.recipes.mae import Mae
from core.shapes import patchify
from core.targets.hog import Hog
from core.targets.pixels import Pixels
from core.testing.samples import SCENE, ragged_batch

GROUPED = replace(SCENE, groups=(("red", "blue", "green"), ("nir",), ("swir1", "swir2")))
PREDICTOR = TransformerSpec(width=16, depth=1, heads=2)


def vit(entry: Input) -> ViTSpec:
    return ViTSpec(contract=Contract(inputs=(entry,)), width=24, depth=1, heads=2)


def composed() -> tuple[Pictures, Plan]:
    """Every token by chance seen, hidden or neither, in each group apart; the prediction is the truth and 10."""
    batch = ragged_batch(GROUPED)
    fate = torch.randint(3, (4, 3 * 24), generator=torch.Generator().manual_seed(1))
    plan = Plan(see=fate == 0, hide=fate == 1)
    return compose(batch, GROUPED, plan, {"image": (batch.image + 10.0, batch.image)}), plan


def spread(tokens: Tensor, like: Tensor) -> Tensor:
    """A mask (B, 24) at the pixels of an image (B, C, 32, 48)."""
    pixels = tokens.reshape(4, 4, 6).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return pixels[:, None].expand_as(like)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (("green",), [0]),
        (("nir",), [1]),
        (("swir1",), [2]),
        (("swir2", "nir"), [1, 2]),
        (("red", "green", "swir1"), [0, 2]),
        (GROUPED.bands, [0, 1, 2]),
    ],
)
def test_groups_show_their_own_mask_and_no_other(asked: tuple[str, ...], kept: list[int]) -> None:
    pictures, plan = composed()
    part = pictures.of_groups(asked)
    see, hide = (plan_part.unflatten(1, (3, -1))[:, kept] for plan_part in (plan.see, plan.hide))
    names = [band for band in GROUPED.bands if any(band in GROUPED.groups[number] for number in kept)]
    assert list(part.bands) == names
    assert part.groups == tuple(GROUPED.groups[number] for number in kept)
    original = pictures.original[:, [GROUPED.bands.index(band) for band in names]]
    assert torch.equal(part.original, original)
    assert torch.equal(part.mask.flatten(1), hide.any(1))
    assert torch.equal(part.seen, torch.where(spread(see.all(1), original), original, 0.0))
    for number in kept:
        order = [names.index(band) for band in GROUPED.groups[number]]
        own = original[:, order]
        hidden = spread(plan.hide.unflatten(1, (3, -1))[:, number], own)
        assert torch.equal(part.reconstructions["image"][:, order], torch.where(hidden, own + 10.0, own))


def test_all_groups_together_are_what_was_composed() -> None:
    pictures, _ = composed()
    whole = pictures.of_groups(pictures.bands)
    assert torch.equal(whole.mask, pictures.mask)
    assert torch.equal(whole.seen, pictures.seen)
    assert not torch.equal(pictures.of_groups(("nir",)).mask, pictures.mask)


def test_an_input_without_groups_is_one_group() -> None:
    batch = ragged_batch(SCENE)
    pictures = compose(batch, SCENE, Plan(see=torch.ones(4, 24, dtype=torch.bool), hide=torch.zeros(4, 24) > 0), {})
    assert pictures.of_groups(("red",)) is pictures


def test_each_group_is_drawn_from_its_own_tokens() -> None:
    """Values that are the pixels themselves, padded to the largest group, give the image back; the rest is never read."""
    batch, grid = ragged_batch(GROUPED), GROUPED.grid()
    value = cut(batch.image, batch.bands, grid)
    spoilt = value.clone()
    spoilt[:, 24:48, 64:], spoilt[:, 48:, 128:] = torch.nan, torch.nan  # padding of one and of two bands
    image, true = draw("image", Pixels(normalise="none"), spoilt, value, batch, grid)["image"]
    assert torch.equal(image, batch.image)
    assert torch.equal(true, batch.image)


def built(target: Pixels | Hog) -> Recipe:
    torch.manual_seed(0)
    return Mae(encoder=vit(GROUPED), predictor=PREDICTOR, target=target).build()


def test_masked_autoencoders_of_groups_are_drawn() -> None:
    batch = ragged_batch(GROUPED)
    pictures = built(Pixels(normalise="none"))(batch, batch.rng, pictures=True).pictures
    assert pictures is not None
    assert pictures.hidden_by_group is not None
    for number, group in enumerate(GROUPED.groups):
        part = pictures.of_groups(group)
        hidden = pictures.hidden_by_group[:, number].flatten(1)
        painted, true = patchify(part.reconstructions["image"], (8, 8)), patchify(part.original, (8, 8))
        assert torch.equal(painted[~hidden], true[~hidden])
        assert not torch.isclose(painted[hidden], true[hidden]).all(-1).any()
    assert not torch.equal(pictures.hidden_by_group[0, 0], pictures.hidden_by_group[0, 1]), "hidden independently"


def test_maps_of_groups_are_drawn_and_those_without_stay_empty() -> None:
    """The first group's bands form NDVI and NDWI, those of the second form no index."""
    entry = replace(GROUPED, groups=(("blue", "green", "red", "nir"), ("swir1", "swir2")))
    batch = ragged_batch(entry)
    torch.manual_seed(0)
    pictures = FgMae(encoder=vit(entry), predictor=PREDICTOR).build()(batch, batch.rng, pictures=True).pictures
    assert pictures is not None
    assert list(pictures.reconstructions) == ["hog", "indices"]
    for image in pictures.reconstructions.values():
        assert image.shape == batch.image.shape
    first, second = (pictures.of_groups(group) for group in entry.groups)
    assert all(bool(part.targets["hog"].any()) for part in (first, second))
    assert bool(first.targets["indices"].any())
    assert torch.equal(first.targets["indices"][:, 0], first.targets["indices"][:, 3]), "one mean for all bands"
    assert not bool(second.targets["indices"].any())
    assert not bool(second.reconstructions["indices"].any())
