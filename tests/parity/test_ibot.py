"""iBOT against bytedance/ibot: tokens, class attention, resampled positions, losses and centres."""

from __future__ import annotations

import pytest
import torch

from core.contract import Contract
from core.encoders.vit import ViTSpec
from core.layouts.ibot import encoder_weights, mask_token
from core.losses import masked_mean
from core.losses.distillation import Centre, distilled, per_image, sharpened, warmed
from core.plan import Plan
from tests.parity.fixture import Fixture, make_batch, make_input, placed

pytestmark = pytest.mark.parity


def _built(parity, size):
    fixture = Fixture(parity / "ibot_vit")
    c = fixture.config
    entry = make_input("image", 3, (c["patch_size"],) * 2, (size, size))
    spec = ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=c["embed_dim"],
        depth=c["depth"],
        heads=c["num_heads"],
        mlp_ratio=c["mlp_ratio"],
        tables={entry.name: entry.grid().tokens},
        train_tables=True,
    )
    encoder = spec.build()
    placement = placed(encoder, encoder_weights(fixture.weights, entry))
    assert len(placement.placed) == len(fixture.weights) - 1 + 1  # theirs without the mask token, and the nodata vector
    return fixture, encoder, entry


def _all(tokens):
    return torch.cat([tokens.prefix, tokens.value], dim=1)


def test_tokens_with_the_mask_token(parity):
    fixture, encoder, entry = _built(parity, 64)
    hide = fixture.io["in.mask"].flatten(1)
    batch = make_batch(fixture.io["in.imgs"], entry)
    tokens = encoder(batch, Plan(see=~hide, hide=hide), mask_token=mask_token(fixture.weights))
    fixture.close(_all(tokens), "out.tokens_masked")


def test_tokens_levels_and_class_attention(parity):
    fixture, encoder, entry = _built(parity, 64)
    tokens = encoder(make_batch(fixture.io["in.imgs"], entry), levels=(1, 2), attention=True)
    fixture.close(_all(tokens), "out.tokens_no_mask")
    fixture.close(tokens.attention, "out.cls_attention_last")
    for level in (1, 2):  # theirs are normed
        fixture.close(encoder.norm(_all(tokens.levels[level])), f"out.intermediate_{level - 1}")


def test_a_smaller_crop_has_positions_resampled_by_their_factor(parity):
    fixture, encoder, entry = _built(parity, 40)
    tokens = encoder(make_batch(fixture.io["in.imgs_small"], entry))
    fixture.close(_all(tokens), "out.tokens_small_crop")


@pytest.mark.parametrize("epoch", [0, 5])
def test_losses_and_centres(parity, epoch):
    """Class tokens across crops, the small crop among the students; masked patches within a crop; then the centres."""
    fixture = Fixture(parity / "ibot_loss")
    io, c = fixture.io, fixture.config
    centres = {}
    for name, key in (("class", "center"), ("patch", "center2")):
        centres[name] = Centre(c["out_dim"], c["center_momentum"])
        centres[name].value.copy_(fixture.weights[key].flatten())
    # their schedule has three epochs of rise: 0.04, 0.055, 0.07
    heat = warmed(torch.tensor(epoch / 100), 0.04, 0.07, 0.02)

    students = [*io["in.student_cls"].chunk(2), io["in.student_local_cls"]]
    teachers = [sharpened(logits, centres["class"].value, heat) for logits in io["in.teacher_cls"].chunk(2)]
    pairs = [(q, v) for q in range(2) for v in range(3) if q != v]
    error = torch.cat([distilled(students[v], teachers[q], c["student_temp"]) for q, v in pairs])
    of_class = masked_mean(error, torch.ones_like(error, dtype=torch.bool))

    hide = io["in.mask"].flatten(0, 1).flatten(1)
    teacher = sharpened(io["in.teacher_patch"], centres["patch"].value, heat)
    error = distilled(io["in.student_patch"], teacher, c["student_temp"])
    of_patch = masked_mean(error[..., 0], per_image(hide))

    fixture.close(of_class, f"out.loss_cls_ep{epoch}")
    fixture.close(of_patch, f"out.loss_patch_ep{epoch}")
    fixture.close(of_class + of_patch, f"out.loss_ep{epoch}")
    for name, key, logits in (("class", "center", io["in.teacher_cls"]), ("patch", "center2", io["in.teacher_patch"])):
        rows = logits.flatten(0, -2)
        centres[name].note(rows.sum(0), torch.tensor(len(rows)), torch.zeros(()))
        centres[name].update()
        fixture.close(centres[name].value, io[f"out.{key}_after_ep{epoch}"].flatten())
