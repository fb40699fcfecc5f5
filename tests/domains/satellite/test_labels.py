from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.warp import transform

from core.errors import DataError, GeometryError
from datasets import LazyImage, open_image
from domains.satellite.labels import Classes, find_classes, open_labels, sampled
from tests.domains.satellite.labelled import PLACE, write


def scene(
    folder: Path, size: tuple[int, int] = (6, 8), place: Affine | None = PLACE, crs: str | None = "EPSG:32633"
) -> LazyImage:
    return open_image(write(folder / "scene.tif", np.ones((2, *size), np.float32), place, crs))


def test_a_raster_of_the_same_grid_is_taken_pixel_by_pixel(tmp_path: Path) -> None:
    values = np.random.Generator(np.random.Philox(key=1)).integers(1, 9, (6, 8)).astype(np.uint8)
    raster = open_labels(write(tmp_path / "cover.tif", values))
    np.testing.assert_array_equal(sampled(raster, scene(tmp_path), (1, 5, 2, 8)), values[1:5, 2:8])


def test_a_raster_that_lies_elsewhere_is_taken_by_its_place(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.uint8).reshape(5, 6) + 1
    shifted = PLACE @ Affine.translation(3, 2)
    raster = open_labels(write(tmp_path / "cover.tif", values, shifted))
    found = sampled(raster, scene(tmp_path), (0, 6, 0, 8))
    np.testing.assert_array_equal(found[2:6, 3:8], values[:4, :5])
    assert (found[:2] < 0).all()
    assert (found[:, :3] < 0).all()


def test_finer_coarser_and_turned_rasters_give_what_is_at_the_pixels_centre(tmp_path: Path) -> None:
    coarse = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    raster = open_labels(write(tmp_path / "coarse.tif", coarse, PLACE @ Affine.scale(4, 3)))
    found = sampled(raster, scene(tmp_path), (0, 6, 0, 8))
    np.testing.assert_array_equal(found, np.kron(coarse, np.ones((3, 4), int)))
    fine = np.arange(18 * 24, dtype=np.uint16).reshape(18, 24)
    raster = open_labels(write(tmp_path / "fine.tif", fine, PLACE @ Affine.scale(1 / 3)))
    np.testing.assert_array_equal(sampled(raster, scene(tmp_path), (0, 6, 0, 8)), fine[1::3, 1::3])
    south_up = PLACE @ Affine.translation(0, 6) @ Affine.scale(1, -1)
    raster = open_labels(write(tmp_path / "up.tif", np.flipud(fine[:6, :8]).copy(), south_up))
    np.testing.assert_array_equal(sampled(raster, scene(tmp_path), (0, 6, 0, 8)), fine[:6, :8])


def test_centres_on_the_border_of_two_labels_all_take_the_same_side(tmp_path: Path) -> None:
    """In degrees, where rounding would take one side here and the other there."""
    degrees = Affine(0.1, 0.0, 14.3, 0.0, -0.1, 46.7)
    fine = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    raster = open_labels(write(tmp_path / "fine.tif", fine, degrees @ Affine.scale(0.5), "EPSG:4326"))
    image = scene(tmp_path, place=degrees, crs="EPSG:4326")
    np.testing.assert_array_equal(sampled(raster, image, (0, 6, 0, 8)), fine[1::2, 1::2])


def test_a_raster_whose_rows_go_east_is_turned(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint8).reshape(8, 6)
    turned = Affine(0.0, 10.0, PLACE.c, -10.0, 0.0, PLACE.f)
    raster = open_labels(write(tmp_path / "turned.tif", values, turned))
    np.testing.assert_array_equal(sampled(raster, scene(tmp_path), (0, 6, 0, 8)), values.T)


def test_a_raster_in_another_crs_is_taken_by_where_its_pixels_are_on_earth(tmp_path: Path) -> None:
    image = scene(tmp_path, (60, 80))
    rows, columns = np.meshgrid(np.arange(60) + 0.5, np.arange(80) + 0.5, indexing="ij")
    east, north = PLACE.c + PLACE.a * columns.ravel(), PLACE.f + PLACE.e * rows.ravel()
    longitude, latitude = (np.array(axis).reshape(60, 80) for axis in transform("EPSG:32633", "EPSG:4326", east, north))
    step = 2e-4
    west, top = longitude.min() - 10 * step, latitude.max() + 10 * step
    place = Affine(step, 0.0, west, 0.0, -step, top)
    values = np.arange(200 * 200, dtype=np.int32).reshape(200, 200) + 1
    raster = open_labels(write(tmp_path / "cover.tif", values, place, "EPSG:4326"))
    expected = values[((top - latitude) / step).astype(int), ((longitude - west) / step).astype(int)]
    np.testing.assert_array_equal(sampled(raster, image, (0, 60, 0, 80)), expected)


def test_nodata_is_no_label_and_ignored_numbers_are_no_class(tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [7, 3, 9]], dtype=np.uint8)
    raster = open_labels(write(tmp_path / "cover.tif", values, nodata=0))
    found = find_classes([raster], {3: "forest"}, ignored=(9,))
    assert found == Classes((1, 3, 7), ("1", "forest", "7"))
    numbers = found.numbered(sampled(raster, scene(tmp_path, (2, 3)), (0, 2, 0, 3)))
    np.testing.assert_array_equal(numbers, [[-1, 0, 0], [2, 1, -1]])


def test_rasters_without_a_place_must_have_the_size_of_the_scene(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    nowhere = scene(tmp_path, place=None, crs=None)
    plain = open_labels(write(tmp_path / "plain.tif", values, None, None))
    assert plain.georeference is None
    np.testing.assert_array_equal(sampled(plain, nowhere, (2, 6, 1, 4)), values[2:6, 1:4])
    small = open_labels(write(tmp_path / "small.tif", values[:5].copy(), None, None))
    with pytest.raises(GeometryError, match=r"expected both with CRS and transform, or neither and one size"):
        sampled(small, nowhere, (0, 5, 0, 8))
    with pytest.raises(GeometryError, match="georeference the one that has none"):
        sampled(plain, replace(scene(tmp_path), path=tmp_path / "placed.tif"), (0, 6, 0, 8))


def test_a_colour_table_is_no_obstacle_and_other_rasters_are_refused(tmp_path: Path) -> None:
    values = np.array([[1, 2]], dtype=np.uint8)
    with rasterio.open(write(tmp_path / "colours.tif", values, photometric="palette"), "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    assert find_classes([open_labels(tmp_path / "colours.tif")], {}, ()).codes == (1, 2)
    with pytest.raises(DataError, match="a label raster of one band, got shape"):
        open_labels(write(tmp_path / "two.tif", np.ones((2, 3, 3), np.uint8)))
    shares = open_labels(write(tmp_path / "shares.tif", np.array([[0.5, 1.0]], np.float32)))
    with pytest.raises(DataError, match="expected whole class numbers, got measurements"):
        find_classes([shares], {}, ())
    one = open_labels(write(tmp_path / "one.tif", np.ones((2, 2), np.uint8)))
    with pytest.raises(
        DataError, match=r"one\.tif: expected labels of at least 2 classes, got \[1\]: use rasters that hold several"
    ):
        find_classes([one], {}, ())
    with pytest.raises(DataError, match=r"names of classes that occur \(\[1\]\), got one for \[4\]"):
        find_classes([one], {4: "x"}, ())


def test_numbers_that_no_map_can_hold_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path / "plain.tif", np.array([[1, 2], [2, 1]], np.int32))
    plain = open_labels(tmp_path / "plain.tif")
    for number in (-1, 65536):
        write(tmp_path / "odd.tif", np.array([[1, 2], [2, number]], np.int32))
        odd = open_labels(tmp_path / "odd.tif")
        with pytest.raises(
            DataError,
            match=rf"odd\.tif and 1 more: expected class numbers from 0 to 65535.* got {number}: .*--ignored={number}",
        ):
            find_classes([odd, plain], {}, ())
        assert find_classes([odd], {}, ignored=(number,)).codes == (1, 2)
