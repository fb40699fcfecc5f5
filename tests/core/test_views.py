"""Views: positions stay true, nothing invalid enters, and a sample's view is its own affair."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.config import from_dict, to_dict
from core.contract import Contract, Normalisation
from core.errors import ConfigError
from core.testing.samples import CUBE, INPUTS, SCENE, VOLUME, ragged_batch
from core.views import Augment, make_view

PLAIN = Augment(gain=0.0, shift=0.0)


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


def _view(batch, entry, how=PLAIN, name="view"):
    return make_view(batch, entry, how, batch.rng.split(name))


def _ramps(entry):
    """Images with one band per axis, whose value is the place of the voxel's centre along it, in units of length."""
    entry = replace(entry, bands=tuple("zyx"[-entry.ndim :]), normalisation=Normalisation(method="per_image"))
    batch = ragged_batch(entry)
    places = torch.stack(torch.meshgrid(*(torch.arange(n) + 0.5 for n in entry.size), indexing="ij"))
    image = places * batch.spacing.reshape(4, entry.ndim, *(1,) * entry.ndim)
    return replace(batch, image=image, valid=torch.ones_like(image, dtype=torch.bool), origin=torch.rand(4, entry.ndim))


def test_spacing_and_origin_say_where_each_voxel_comes_from(entry):
    batch = _ramps(entry)
    view = _view(batch, entry)
    assert view.size == batch.size
    assert bool((view.spacing < batch.spacing).all())
    for axis, count in enumerate(entry.size):
        place = torch.arange(count) + 0.5
        expected = (view.origin - batch.origin)[:, axis, None] + place * view.spacing[:, axis, None]
        found = view.image[:, axis].movedim(1 + axis, -1).flatten(1, -2)[:, 0]
        inner = slice(1, -1)  # at the rim of the image the outermost half voxel repeats
        torch.testing.assert_close(found[:, inner], expected[:, inner], rtol=1e-5, atol=1e-3 * entry.spacing[axis])


def test_share_of_the_image_lies_in_the_range_that_was_asked_for(entry):
    batch = ragged_batch(entry)
    many = replace(batch.take([0] * 400), key=torch.arange(400))
    how = Augment(scale=(0.2, 0.6), aspect=1.5)
    view = _view(many, entry, how)
    steps = view.spacing / many.spacing
    free = (steps < 1.0).all(1)  # an axis that is shown whole cannot be longer: the share is smaller then
    share = steps.prod(1)
    assert free.sum() > 300
    assert 0.2 - 1e-5 < float(share[free].min()) < 0.23
    assert 0.57 < float(share[free].max()) < 0.6 + 1e-5
    assert bool((share <= 0.6 + 1e-5).all())
    ratio = (steps.amax(1) / steps.amin(1))[free]
    assert 1.3 < float(ratio.max()) <= 1.5 + 1e-5
    end = (view.origin + view.spacing * torch.tensor(entry.size)) / (many.spacing * torch.tensor(entry.size))
    assert bool((view.origin >= 0).all())
    assert bool((end <= 1 + 1e-5).all())
    assert float(view.origin.min(0).values.max()) < 0.02 * min(
        s * n for s, n in zip(entry.spacing, entry.size, strict=True)
    )


def test_the_whole_image_without_changes_is_the_image(entry):
    batch = ragged_batch(entry).normalised()
    view = _view(batch, entry, Augment(scale=(1.0, 1.0), aspect=1.0, gain=0.0, shift=0.0))
    assert torch.equal(view.image, batch.image)
    assert torch.equal(view.valid, batch.valid)
    assert torch.equal(view.spacing, batch.spacing)


def test_a_series_of_dated_frames_is_refused_and_one_dated_scene_is_not():
    series = ragged_batch(VOLUME)
    with pytest.raises(ConfigError, match="dated series: choose a recipe of one view"):
        _view(replace(series, times=torch.ones(len(series), series.size[0], 3)), VOLUME)
    batch = ragged_batch(SCENE)
    times = torch.arange(3.0 * len(batch)).reshape(len(batch), 1, 3)
    view, plain = _view(replace(batch, times=times), SCENE), _view(batch, SCENE)
    assert torch.equal(view.times, times)
    assert torch.equal(view.image, plain.image)
    assert torch.equal(view.origin, plain.origin)


def test_pixels_keep_their_spacing_and_origin():
    entry = replace(SCENE, unit="px", spacing=(1.0, 1.0))
    batch = replace(ragged_batch(entry), origin=torch.full((4, 2), 7.0))
    view = _view(batch, entry)
    assert torch.equal(view.spacing, batch.spacing)
    assert torch.equal(view.origin, batch.origin)
    assert not torch.equal(view.image, batch.image)


@pytest.mark.parametrize("content", [0.0, 1e4, math.nan, math.inf])
def test_what_stands_at_invalid_voxels_never_enters(entry, content):
    batch = ragged_batch(entry).normalised()
    view = _view(batch, entry, Augment())
    filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
    again = _view(filled, entry, Augment())
    assert torch.equal(again.image, view.image)
    assert torch.equal(again.valid, view.valid)
    assert bool((view.image[~view.valid] == 0.0).all())
    assert bool(torch.isfinite(view.image).all())


def test_a_constant_stays_that_constant_beside_missing_data(entry):
    batch = ragged_batch(entry)
    batch = replace(batch, image=torch.where(batch.valid, 3.0, 0.0))
    view = _view(batch, entry)
    assert 0 < int(view.valid.sum()) < view.valid.numel()
    torch.testing.assert_close(view.image[view.valid], torch.full((int(view.valid.sum()),), 3.0))
    assert not bool(view.valid[3].any())


def test_validity_follows_the_place():
    """Half of the image is missing: the view is valid exactly where its voxels come from the other half."""
    batch = _ramps(SCENE)
    valid = batch.valid.clone()
    valid[..., : SCENE.size[1] // 2] = False
    view = _view(replace(batch, valid=valid), SCENE)
    edge = SCENE.size[1] // 2 * batch.spacing[:, 1]
    start = view.origin[:, 1] - batch.origin[:, 1]
    place = start[:, None] + (torch.arange(SCENE.size[1]) + 0.5) * view.spacing[:, 1, None]
    clear = (place - edge[:, None]).abs() > 0.01 * batch.spacing[:, 1, None]
    expected = (place > edge[:, None])[:, None, None].expand_as(view.valid)
    where = clear[:, None, None].expand_as(view.valid)
    assert torch.equal(view.valid[where], expected[where])
    assert 0.1 < float(view.valid.float().mean()) < 0.9


def test_batch_mates_change_nothing_to_the_bit(entry):
    batch = ragged_batch(entry).normalised()
    together = _view(batch, entry, Augment())
    for sample in range(4):
        alone = _view(batch.take([sample]), entry, Augment())
        assert torch.equal(alone.image[0], together.image[sample])
        assert torch.equal(alone.valid[0], together.valid[sample])
        assert torch.equal(alone.origin[0], together.origin[sample])


def test_views_differ_by_stream_and_by_sample():
    batch = ragged_batch(CUBE)
    one, two = (_view(batch, CUBE, name=name) for name in ("a", "b"))
    assert torch.equal(one.image, _view(batch, CUBE, name="a").image)
    assert not bool((one.spacing == two.spacing).any())
    assert len(one.spacing[:, 0].div(batch.spacing[:, 0]).unique()) == 4


def test_mirrored_only_along_legal_axes():
    how = Augment(scale=(1.0, 1.0), aspect=1.0, gain=0.0, shift=0.0, flips={"volume": (False, False, True)})
    one = ragged_batch(VOLUME).take([0])
    many = replace(one.take([0] * 64), key=torch.arange(64), prior=one.image[:, :1].expand(64, -1, -1, -1, -1))
    view = _view(many, VOLUME, how)
    same = (view.image == many.image).flatten(1).all(1)
    mirrored = (view.image == many.image.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 16 < int(mirrored.sum()) < 48
    assert torch.equal(view.prior, view.image)
    assert torch.equal(view.spacing, many.spacing)
    scene = ragged_batch(SCENE)
    assert torch.equal(_view(scene, SCENE, how).image[0], scene.image[0])


def test_each_band_is_toned_by_its_own_affine_map():
    entry = CUBE
    how = Augment(scale=(1.0, 1.0), aspect=1.0, gain=0.3, shift=0.5)
    batch = ragged_batch(entry).take([0])
    view = _view(batch, entry, how)
    x, y = batch.image[0].flatten(1), view.image[0].flatten(1)
    gain = ((x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))).sum(1) / x.var(1) / (x.shape[1] - 1)
    shift = y.mean(1) - gain * x.mean(1)
    torch.testing.assert_close(y, gain[:, None] * x + shift[:, None], rtol=1e-4, atol=1e-4)
    assert float((gain - 1.0).abs().max()) <= 0.3 + 1e-5
    assert float(shift.abs().max()) <= 0.5 + 1e-5
    assert float(gain.std()) > 0.05
    assert float(shift.std()) > 0.1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"scale": (0.0, 1.0)}, "smallest and largest share"),
        ({"scale": (0.6, 0.5)}, "smallest and largest share"),
        ({"aspect": 0.9}, "aspect of 1 or more"),
        ({"gain": 1.0}, "gain of 0 or more"),
    ],
)
def test_an_impossible_view_is_refused(fields, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Augment(**fields)


@pytest.mark.parametrize("flips", [{"volume": (True, True)}, {"nothing": (True, True)}])
def test_flips_of_no_input_are_refused(flips):
    with pytest.raises(ConfigError, match="one truth per axis"):
        Augment(flips=flips).check(Contract(inputs=(SCENE, VOLUME)))


def test_it_is_a_config():
    how = Augment(scale=(0.3, 0.9), flips={"scene": (True, False)})
    assert from_dict(Augment, to_dict(how)) == how
