"""HPM against its release: both decoders, both learning losses, gradients, the teacher's full pass, the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from core.layouts.hpm import recipe_weights
from core.losses.ranking import pairwise_ranking, standardised_loss
from core.maskers.base import Masker
from core.maskers.hard_patches import HardPatches
from core.plan import NO_GUIDE, Guide, Plan
from core.recipes.hpm import Hpm
from core.targets.pixels import Pixels
from tests.parity.fixture import (
    Fixture,
    grad_norms,
    make_batch,
    make_input,
    placed,
    transformer_spec,
    vit_spec,
)

pytestmark = pytest.mark.parity


@dataclass(frozen=True, kw_only=True, eq=False)
class TheirMask(Masker):
    """The reference's mask in place of ours."""

    hidden: Tensor
    ratio: float = 0.75

    def check(self, grid, spacing) -> None:
        pass

    def __call__(self, batch, grid, rng, guide=NO_GUIDE) -> Plan:
        return Plan(see=~self.hidden, hide=self.hidden)


@pytest.fixture
def built(parity):
    fixture = Fixture(parity / "hpm_loss_predictor")
    c = fixture.config
    entry = make_input("image", c["in_chans"], (c["patch_size"],) * 2, (c["img_size"],) * 2)
    encoder = vit_spec(c, entry)
    predictor = transformer_spec(c, entry)
    masker = TheirMask(hidden=fixture.io["in.mask"])
    recipe = Hpm(encoder=encoder, predictor=predictor, masker=masker, target=Pixels(normalise="joint")).build()
    placed(recipe, recipe_weights(fixture.weights, entry))
    return fixture, recipe, make_batch(fixture.io["in.imgs"], entry)


def _theirs_in_raster(fixture: Fixture, name: str) -> Tensor:
    """Put their order, seen tokens then hidden ones, back in raster order."""
    value = fixture.io[name]
    order = torch.argsort(fixture.io["in.mask"].to(torch.uint8), dim=1, stable=True)
    return torch.empty_like(value).scatter_(
        1, order.reshape(*order.shape, *(1,) * (value.ndim - 2)).expand_as(value), value
    )


def test_both_decoders(built):
    fixture, recipe, batch = built
    plan = recipe.masker(batch, None, None)
    tokens = recipe.encoder(batch, plan)
    fixture.close(torch.cat([tokens.prefix, tokens.value], 1), "out.features")
    pixels = _theirs_in_raster(fixture, "out.pix_pred").unflatten(2, (-1, 3)).transpose(2, 3).flatten(2)
    fixture.close(recipe.predictors["image"](tokens, plan, batch), pixels)
    fixture.close(
        recipe.predictors["ranking"](tokens, plan, batch)[..., 0], _theirs_in_raster(fixture, "out.loss_pred")
    )


def test_the_teacher_reads_the_whole_image(built):
    fixture, recipe, batch = built
    fixture.close(recipe.hardness(batch, batch.grid((4, 4))), "out.loss_pred_no_mask")


def test_losses_and_gradients(built):
    fixture, recipe, batch = built
    output = recipe(batch, batch.rng)
    fixture.close(output.terms["image"], "out.loss_mean")
    fixture.close(output.terms["ranking"], "out.learning_loss_relative")
    fixture.close(output.loss, fixture.io["out.loss_mean"] + fixture.io["out.learning_loss_relative"])

    output.loss.backward()
    ours = dict(recipe.named_parameters())
    # one key of theirs may stand for two of ours (input layer and mask token of both decoders): gradients add up
    marked = recipe_weights(
        {key: torch.full_like(v, i) for i, (key, v) in enumerate(fixture.weights.items())}, _entry(recipe)
    )
    keys, compared = list(fixture.weights), 0
    for key, norm in fixture.grad_norms().items():
        homes = [
            name
            for name, value in marked.items()
            if keys[int(value.flatten()[0])] == key and not name.startswith("teacher") and not name.endswith("nodata")
        ]
        if not all(ours[name].requires_grad for name in homes):  # only shifts every score: theirs is rounding noise
            assert norm < 1e-7
            continue
        norm_of_ours = grad_norms(sum(ours[name].grad for name in homes))
        if key.startswith("decoder_pred_losspred"):  # their P rows each get a P-th of the gradient of our one
            norm_of_ours /= fixture.weights[key].shape[0] ** 0.5
        assert norm_of_ours == pytest.approx(norm, rel=1e-3), key
        compared += 1
    assert compared == 62
    assert all(parameter.grad is None for name, parameter in ours.items() if name.startswith("teacher"))


def _entry(recipe):
    return recipe.encoder.contract.inputs[0]


def test_learning_losses(built):
    fixture, *_ = built
    hidden = fixture.io["in.mask"]
    loss = torch.zeros(2, 64)
    loss[hidden] = fixture.io["out.loss_matrix"].flatten()
    guess = _theirs_in_raster(fixture, "out.loss_pred")
    fixture.close(pairwise_ranking(guess, loss, hidden), "out.learning_loss_relative")
    fixture.close(standardised_loss(guess, loss, hidden), "out.learning_loss_absolute")


@dataclass
class Shuffled:
    """The order of the reference's numpy shuffle as our noise."""

    noise: Tensor

    def split(self, stream: str) -> Shuffled:
        return self

    def uniform(self, *shape: int) -> Tensor:
        return self.noise


@pytest.mark.parametrize("epoch", [19, 199])
def test_the_mask_of_an_epoch(built, epoch):
    """Theirs: the hardest, then the last of a shuffle of the rest; ours: the hardest, then the highest noise."""
    fixture, _, batch = built
    predicted, progress = fixture.io["in.loss_pred_full"], (epoch + 1) / 200
    certain, generator = int(48 * 0.5 * progress), np.random.RandomState(2)
    noise = torch.zeros(2, 64)
    for sample, order in enumerate(predicted.argsort(dim=1)):
        rest = order[: 64 - certain].sort().values.numpy().copy()
        generator.shuffle(rest)
        noise[sample, torch.from_numpy(rest)] = torch.arange(len(rest)) / 64
    guide = Guide(hint=predicted, progress=torch.tensor(progress))
    plan = HardPatches()(batch, batch.grid((4, 4)), Shuffled(noise), guide)
    assert torch.equal(plan.hide.float(), fixture.io[f"out.generated_mask_epoch{epoch}_of200"])
