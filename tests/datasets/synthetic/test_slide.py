"""H&E slides: white glass, numbered nuclei, a pyramid that openslide takes for Aperio's, and a grade by tumour share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from core.rng import numpy_rng
from datasets.synthetic.slide import GRADES, MICRONS_PER_PIXEL, Slide, slide, write_slide

SIZE = (640, 896)


@pytest.fixture(scope="module")
def drawn() -> list[Slide]:
    """Two slides of each grade, one grade after the other."""
    return [slide(numpy_rng(3, number), number // 2, SIZE) for number in range(8)]


def test_same_generator_same_pixels(drawn: list[Slide]) -> None:
    again = slide(numpy_rng(3, 4), 2, SIZE)
    assert np.array_equal(again.pixels, drawn[4].pixels)
    assert np.array_equal(again.nuclei, drawn[4].nuclei)
    assert not np.array_equal(drawn[5].pixels, drawn[4].pixels)


def test_glass_is_white_and_tissue_is_not(drawn: list[Slide]) -> None:
    for one in drawn:
        assert one.pixels.shape == (*SIZE, 3)
        assert 0.3 < one.tissue.mean() < 0.85
        far = ~ndimage.binary_dilation(one.tissue, iterations=20)
        assert one.pixels[far].min() > 215
        assert np.median(one.pixels[one.tissue][:, 1]) < 190


def test_tumour_share_is_within_the_bounds_of_the_grade(drawn: list[Slide]) -> None:
    for number, one in enumerate(drawn):
        least, most = GRADES[number // 2]
        assert least - 0.01 <= one.tumour_share <= most + 0.01
        assert not (one.tumour & ~one.tissue).any()


def test_nuclei_are_numbered_without_gaps_and_lie_on_tissue(drawn: list[Slide]) -> None:
    for one in drawn:
        present = np.unique(one.nuclei)
        assert np.array_equal(present, np.arange(one.nuclei.max() + 1))
        assert len(present) > 100
        assert one.tissue[one.nuclei > 0].mean() > 0.97
        areas = np.bincount(one.nuclei.ravel())[1:] * MICRONS_PER_PIXEL**2
        assert 8 < np.median(areas) < 60  # um2


def large_dark_share(one: Slide) -> float:
    """Share of the tissue that is in large dark spots, from the pixels alone; what is dark is measured by the stain itself."""
    depth = -np.log((one.pixels[..., 0].astype(np.float32) + 1) / 256)
    tissue = ndimage.gaussian_filter(one.pixels[..., 1].astype(np.float32), 3) < 215
    dark = (depth > 0.55 * np.percentile(depth[tissue], 99)) & tissue
    disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5  # spindles and the nuclei of glands are thinner
    return float(ndimage.binary_opening(dark, disc).sum() / tissue.sum())


def test_tumour_share_is_in_the_nuclei(drawn: list[Slide]) -> None:
    feature = [large_dark_share(one) for one in drawn]
    for grade in (1, 2, 3):  # both slides of a grade have more than both of the grade below, whatever their stain
        assert min(feature[2 * grade : 2 * grade + 2]) > 1.2 * max(feature[2 * grade - 2 : 2 * grade]), feature
    assert np.corrcoef(feature, [one.tumour_share for one in drawn])[0, 1] > 0.95


def test_stain_varies_between_slides_of_one_grade(drawn: list[Slide]) -> None:
    colours = np.array([np.median(one.pixels[one.tissue & ~one.tumour], axis=0) for one in drawn])
    assert (colours.std(axis=0) > 5).all(), colours


def test_pyramid_is_what_openslide_takes_for_aperio(tmp_path: Path, drawn: list[Slide]) -> None:
    openslide = pytest.importorskip("openslide", reason="needs the extra `slide`")
    assert write_slide(tmp_path / "s.svs", drawn[7].pixels, number=7) == 2
    with openslide.OpenSlide(tmp_path / "s.svs") as file:
        assert file.properties["openslide.vendor"] == "aperio"
        assert file.level_dimensions == ((896, 640), (224, 160))
        assert float(file.properties["openslide.mpp-x"]) == MICRONS_PER_PIXEL
        assert set(file.associated_images) == {"thumbnail", "label", "macro"}
        part = np.asarray(file.read_region((100, 60), 0, (300, 200)).convert("RGB"))
        assert np.array_equal(part, drawn[7].pixels[60:260, 100:400])


def test_pyramid_is_tiled_and_repeatable(tmp_path: Path, drawn: list[Slide]) -> None:
    import tifffile

    for name in ("a", "b"):
        write_slide(tmp_path / name, drawn[0].pixels)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with tifffile.TiffFile(tmp_path / "a") as file:
        assert [page.is_tiled for page in file.pages] == [True, False, True, False, False]
        assert file.pages[0].description.startswith("Aperio")
        assert np.array_equal(file.pages[0].asarray(), drawn[0].pixels)
