"""Histograms of gradients against SlowFast's MaskFeat, mmpretrain's MaskFeat, FG-MAE and LocalMIM."""

from __future__ import annotations

import pytest
import torch

from core.shapes import Grid, unpatchify
from core.targets._orientations import by_cell, plane_gradient
from core.targets.hog import Hog
from tests.parity.fixture import Fixture, make_batch, make_input

pytestmark = pytest.mark.parity

EXACT = {"floor": 1e-12}  # the references divide by the length of a histogram, however short


def _histograms(image: torch.Tensor, patch: int, **options) -> torch.Tensor:
    """As the references lay them out: (B, C, bins, cells, cells)."""
    target = Hog(**(EXACT | options))
    entry = make_input("image", image.shape[1], (patch, patch), tuple(image.shape[2:]))
    batch = make_batch(image, entry)
    value, weight = target(batch, batch.grid(entry.patch))
    assert bool(weight.all())
    assert value.shape[2] == target.num_values(entry)
    grid = Grid(batch.grid(entry.patch).tokens, target.cells(entry.patch))
    return unpatchify(value, grid).unflatten(1, (image.shape[1], target.bins))


def _imagenet(u8: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (u8.float() / 255 - mean) / std


@pytest.mark.parametrize("gaussian", [0, 16])
def test_slowfast_on_floats(parity, gaussian):
    fixture = Fixture(parity / "maskfeat_hog")
    ours = _histograms(fixture.io["in.img64_f32"], 16, gaussian=gaussian)
    fixture.close(ours, f"out.slowfast_img64_f32_pool8_gw{gaussian}")


@pytest.mark.parametrize("gaussian", [0, 16])
def test_slowfast_on_a_ramp(parity, gaussian):
    fixture = Fixture(parity / "maskfeat_hog")
    ours = _histograms(_imagenet(fixture.io["in.ramp32_u8"]), 16, gaussian=gaussian)
    fixture.close(ours, f"out.slowfast_ramp32_u8_pool8_gw{gaussian}")


def test_slowfast_with_twelve_bins_on_bytes(parity):
    """Bytes have gradients exactly on a bin's border, whose side depends on rounding: all cells without them agree."""
    fixture = Fixture(parity / "maskfeat_hog")
    bytes_ = fixture.io["in.img64_u8"]
    ours = _histograms(_imagenet(bytes_), 8, pool=4, gaussian=8, bins=12)
    theirs = fixture.io["out.slowfast_img64_u8_pool4_gw8_nbins12"]
    down, right = plane_gradient(bytes_.float(), torch.ones(1, 2), (0, 1))  # whole numbers: exact
    tied = (down == 0) | (right == 0) | (down.abs() == right.abs())  # multiples of 45 degrees are borders of 12 bins
    clean = ~by_cell(tied, (4, 4)).any(-1)
    assert int(clean.sum()) > 250
    keep = clean[:, :, None].expand_as(ours)
    fixture.close(ours[keep], theirs[keep])


def test_mmpretrain_tokens(parity):
    fixture = Fixture(parity / "maskfeat_hog")
    image = fixture.io["in.img224_f32"]
    fixture.close(_histograms(image, 16, gaussian=16), "out.mmpretrain_img224_f32_2d")
    entry = make_input("image", 3, (16, 16), (224, 224))
    value, _ = Hog(gaussian=16, **EXACT)(make_batch(image, entry), entry.grid())
    fixture.close(value, "out.mmpretrain_img224_f32_tokens")


@pytest.mark.parametrize(
    ("name", "image"),
    [("fgmae_hog_s1", lambda io: io["in.imgs"]), ("fgmae_hog_ndi_s2", lambda io: io["in.imgs_u16"].float() / 65536)],
)
def test_fgmae(parity, name, image):
    fixture = Fixture(parity / name)
    ours = _histograms(image(fixture.io), 16, gaussian=16)
    fixture.close(ours, "out.hog_2d")


@pytest.mark.parametrize(("number", "window"), [(0, 4), (1, 8), (2, 16), (3, 32)])
def test_localmim_windows(parity, number, window):
    fixture = Fixture(parity / "localmim_multiscale_hog")
    entry = make_input("image", 3, (window, window), (64, 64))
    value, _ = Hog(pool=None, **EXACT)(make_batch(fixture.io["in.imgs"], entry), entry.grid())
    fixture.close(value, f"out.hog_target_{number}")


def test_the_window_of_the_references(parity):
    fixture = Fixture(parity / "maskfeat_hog")
    window = Hog(gaussian=16)._window((16, 16), (0, 1))
    fixture.close(window, "out.gauss16_kernel")
