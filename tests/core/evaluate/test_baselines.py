from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.batch import Batch
from core.evaluate.baselines import PERCENTILES, pixel_statistics


def batch_of(image: Tensor, valid: Tensor, *, offset: float = 0.0, scale: float = 1.0) -> Batch:
    images, bands = image.shape[:2]
    return Batch(
        image=image,
        valid=valid,
        bands=tuple(f"band{i}" for i in range(bands)),
        spacing=torch.ones(images, image.ndim - 2),
        unit="px",
        offset=torch.full((images, bands), offset),
        scale=torch.full((images, bands), scale),
        key=torch.arange(images),
        index=torch.arange(images),
        row=torch.arange(images),
    )


@pytest.mark.parametrize("size", [(32, 40), (16, 12, 20)])
def test_statistics_are_those_of_the_measured_voxels_in_the_encoders_value_space(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    image, valid = 100 * torch.rand(3, 2, *size), torch.rand(3, 2, *size) > 0.4
    got = pixel_statistics(batch_of(image, valid, offset=50.0, scale=0.1)).numpy().reshape(3, 2, 71)
    for b in range(3):
        for c in range(2):
            values = (image[b, c][valid[b, c]].numpy() - 50) * 0.1
            expected = [values.mean(), values.std(), *np.percentile(values, PERCENTILES)]
            np.testing.assert_allclose(got[b, c, :7], expected, atol=2e-5)


def test_cells_are_means_over_measured_voxels_in_raster_order() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    image += torch.tensor([[-0.5, 0.5], [0.5, -0.5]]).repeat(8, 8)
    valid = torch.ones_like(image, dtype=torch.bool)
    valid[0, 0, 0, 0] = False
    got = pixel_statistics(batch_of(image, valid))[0, 7:]
    expected = torch.arange(64.0)
    expected[0] = 0.5 / 3
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_cell_without_data_takes_the_bands_mean_and_a_band_without_data_is_zero() -> None:
    image = torch.rand(1, 2, 16, 16) + 3
    valid = torch.ones(1, 2, 16, 16, dtype=torch.bool)
    valid[0, 0, :2, :2] = False
    valid[0, 1] = False
    got = pixel_statistics(batch_of(image, valid)).reshape(2, 71)
    torch.testing.assert_close(got[0, 7], image[0, 0][valid[0, 0]].mean(), atol=1e-5, rtol=0)
    assert (got[1] == 0).all()


@pytest.mark.parametrize("filler", [0.0, 1e4, float("nan")])
def test_content_outside_the_measured_voxels_changes_nothing(filler: float) -> None:
    torch.manual_seed(1)
    image, valid = torch.rand(2, 3, 20, 20), torch.rand(2, 3, 20, 20) > 0.5
    batch = batch_of(image, valid)
    other = replace(batch, image=torch.where(valid, image, filler))
    assert torch.equal(pixel_statistics(batch), pixel_statistics(other))


def test_images_do_not_influence_each_other() -> None:
    image, valid = torch.rand(4, 1, 16, 16), torch.rand(4, 1, 16, 16) > 0.3
    whole = pixel_statistics(batch_of(image, valid))
    single = torch.cat([pixel_statistics(batch_of(image[i : i + 1], valid[i : i + 1])) for i in range(4)])
    torch.testing.assert_close(single, whole, atol=1e-6, rtol=0)
