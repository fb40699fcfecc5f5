"""A stored encoder as a teacher: what it may differ in, what it is shown, and that nothing moves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.checkpoint import export_encoder
from core.contract import Contract, Normalisation
from core.errors import ConfigError, MissingDataError
from core.plan import Plan
from core.teachers.frozen import Frozen
from core.testing.samples import CUBE, SCENE, VOLUME, encoder_spec, grouped, narrowed, ragged_batch

RGB = narrowed(SCENE, "rgb", ("red", "green", "blue"))
FIXED = replace(SCENE, normalisation=Normalisation(method="fixed", mean=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), std=(1.0,) * 6))
BY_IMAGE = replace(SCENE, normalisation=Normalisation(method="per_image"))


def stored(folder, *entries):
    backbone = replace(encoder_spec(), contract=Contract(inputs=entries)).build()
    return Frozen(path=str(export_encoder(backbone, folder / "teacher"))), backbone


def student(*entries):
    return replace(encoder_spec(), contract=Contract(inputs=entries)).build()


def test_it_answers_as_the_stored_encoder(tmp_path):
    spec, backbone = stored(tmp_path, SCENE, VOLUME)
    learner = student(SCENE)
    batch, _ = learner.prepare(ragged_batch(SCENE))
    assert torch.equal(spec.build(learner).observe(batch).value, backbone.eval()(batch).value)


def test_training_the_student_leaves_it_bitwise_unchanged(tmp_path):
    spec, _ = stored(tmp_path, SCENE)
    learner = student(SCENE)
    teacher = spec.build(learner)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.AdamW([*learner.parameters(), *teacher.parameters()], lr=0.1)
    batch, _ = learner.prepare(ragged_batch(SCENE))
    for step in range(2):
        optimizer.zero_grad()
        (learner(batch).value - teacher.observe(batch).value).square().mean().backward()
        optimizer.step()
        assert teacher.follow(learner, torch.tensor(step / 2)) is False
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())


def test_fewer_bands_are_found_by_name(tmp_path):
    spec, backbone = stored(tmp_path, RGB)
    learner = student(SCENE)
    batch, _ = learner.prepare(ragged_batch(SCENE))
    expected = backbone.eval()(batch.aligned(("red", "green", "blue")))
    found = spec.build(learner).observe(batch)
    assert torch.equal(found.value, expected.value)


def test_a_token_that_is_missing_in_the_teachers_bands_is_left_out(tmp_path):
    spec, backbone = stored(tmp_path, RGB)
    learner = student(SCENE)
    image = ragged_batch(SCENE).take([0])
    valid = image.valid.clone()
    valid[:, :3, :8, :8] = False  # the first token has no colour, but nir and both swir
    batch, _ = learner.prepare(replace(image, valid=valid))
    see = torch.zeros(1, 24, dtype=torch.bool)
    see[0, :6] = True
    teacher = spec.build(learner)
    tokens = teacher.observe(batch, Plan(see=see, hide=~see), levels=(1,), attention=True)
    assert tokens.ok is not None
    assert tokens.ok[0].nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
    own = batch.aligned(("red", "green", "blue"))
    expected = backbone.eval()(own, Plan(see=tokens.ok, hide=~see), levels=(1,), attention=True)
    assert torch.equal(tokens.value[0, 1:6], expected.value[0])
    assert torch.equal(tokens.levels[1].value[0, 1:6], expected.levels[1].value[0])
    assert torch.equal(tokens.attention[0, :, 1:6], expected.attention[0])
    assert bool((tokens.value[0, 6:] == 0).all())


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            replace(SCENE, patch=(16, 16)),
            SCENE,
            r"expected the patch of the student's input 'scene', \(8, 8\), got \(16",
        ),
        (replace(SCENE, unit="px"), SCENE, "expected the unit of the student's input 'scene', m, got px"),
        (grouped(SCENE), SCENE, "expected the band groups"),
        (BY_IMAGE, FIXED, "expected the normalisation"),
        (
            FIXED,
            replace(FIXED, normalisation=Normalisation(method="fixed", mean=(0.1,) * 6, std=(1.0,) * 6)),
            "expected the normalisation",
        ),
        (VOLUME, SCENE, "cannot read the student's input 'scene': expected an image that this encoder reads"),
        (CUBE, SCENE, "cannot read the student's input 'scene'"),
    ],
)
def test_a_teacher_of_other_images_is_refused_when_it_is_built(tmp_path, theirs, ours, message):
    spec, _ = stored(tmp_path, theirs)
    with pytest.raises(ConfigError, match=message):
        spec.build(student(ours))


def test_fixed_normalisation_is_compared_band_by_band(tmp_path):
    """The teacher lists three of the student's bands in another order, with the same numbers for each."""
    space = Normalisation(method="fixed", mean=(0.3, 0.2, 0.1), std=(1.0,) * 3)
    spec, _ = stored(tmp_path, replace(RGB, normalisation=space))
    assert spec.build(student(FIXED)).encoder.contract.inputs[0].bands == RGB.bands


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(MissingDataError, match="expected a run folder"):
        Frozen(path=str(tmp_path / "gone")).build(student(SCENE))
