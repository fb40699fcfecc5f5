"""CT phantoms: Hounsfield units, true affines in many orientations, and a grade that is the number of nodules alone."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from core.rng import numpy_rng
from datasets.synthetic.ct import GRADES, LABELS, ORIENTATIONS, SIZE, Phantom, volume, write_volume


def phantom(number: int, grade: int) -> Phantom:
    return volume(numpy_rng(5, "patient", number), numpy_rng(5, "scan", number), grade)


def test_same_generators_same_voxels() -> None:
    first, again, other = phantom(1, 2), phantom(1, 2), phantom(2, 2)
    assert np.array_equal(first.voxels, again.voxels)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.voxels, other.voxels)


def test_tissues_have_their_hounsfield_units() -> None:
    for number in range(3):
        drawn = phantom(number, 1)
        assert (drawn.voxels.shape, drawn.voxels.dtype, drawn.label.dtype) == (SIZE, np.int16, np.uint8)
        medians = [float(np.median(drawn.voxels[drawn.label == place])) for place in range(1, 4)]
        assert -900 < medians[0] < -800
        assert 40 < medians[1] < 120
        assert 150 < medians[2] < 600
        assert -1024 <= drawn.voxels.min() < -1000
        shares = [float((drawn.label == place).mean()) for place in range(1, 4)]
        assert 0.04 < shares[0] < 0.25
        assert shares[1] > 0.02
        assert shares[2] > 0.004


def test_grade_decides_how_many_nodules_there_are() -> None:
    for grade, (least, most) in enumerate(GRADES):
        for number in range(3):
            drawn = phantom(10 * grade + number, grade)
            assert least <= drawn.nodules <= most
            assert ndimage.label(drawn.label == LABELS.index("nodule"))[1] == drawn.nodules


def test_nodules_are_round_in_millimetres_whatever_the_spacing() -> None:
    extents = []
    for number in range(4):
        drawn = phantom(number, 3)
        parts, count = ndimage.label(drawn.label == LABELS.index("nodule"))
        for box in ndimage.find_objects(parts)[:count]:
            extents.append([(part.stop - part.start) * s for part, s in zip(box, drawn.spacing_mm, strict=True)])
    height, depth, width = np.mean(extents, axis=0)
    assert len(extents) > 20
    assert depth == pytest.approx(width, rel=0.12)
    assert height == pytest.approx(width, rel=0.35)  # slices are up to 5 mm apart


def round_spots(drawn: Phantom) -> int:
    """Count what is dense, small and thick inside the lungs, from the voxels alone: vessels are thin, the heart is large."""
    scale = np.array(drawn.spacing_mm)
    axes = np.meshgrid(*(np.arange(-3, 4) * s for s in scale), indexing="ij")
    ball = sum(axis**2 for axis in axes) <= 2.0**2
    parts, count = ndimage.label(ndimage.binary_opening(drawn.voxels > -450, ball))
    sizes = np.bincount(parts.ravel()) * scale.prod()
    found = 0
    for number, box in enumerate(ndimage.find_objects(parts)[:count], start=1):
        around = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
        ring = drawn.voxels[around][parts[around] == 0]
        found += bool(25 < sizes[number] < 500 and -950 < np.median(ring) < -700)
    return found


def test_grade_is_in_the_nodules_and_not_in_the_statistics() -> None:
    counts: dict[int, list[int]] = {}
    statistics: dict[int, np.ndarray] = {}
    for grade in (0, 3):
        drawn = [phantom(100 + number, grade) for number in range(8)]  # the same patients in both
        counts[grade] = [round_spots(one) for one in drawn]
        statistics[grade] = np.array([[one.voxels.mean(), one.voxels.std(), np.median(one.voxels)] for one in drawn])
    ahead = np.mean([[b > a for b in counts[3]] for a in counts[0]])
    assert ahead > 0.95, counts
    between = np.abs(statistics[3].mean(axis=0) - statistics[0].mean(axis=0))
    assert (between < 0.5 * statistics[0].std(axis=0)).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_the_same_world(tmp_path: Path, orientation: str) -> None:
    voxels = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    write_volume(tmp_path / "v.nii.gz", voxels, (2.5, 0.8, 0.7), orientation)
    image = nib.load(tmp_path / "v.nii.gz")
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    assert image.get_data_dtype() == np.int16
    for qform in (image.get_qform(), image.get_sform()):
        np.testing.assert_allclose(qform, image.affine, atol=1e-5)
    canonical = nib.as_closest_canonical(image)
    assert np.array_equal(np.asarray(canonical.dataobj), voxels.transpose(2, 1, 0))
    np.testing.assert_allclose(canonical.affine @ [3, 2.5, 2, 1], [0, 0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(canonical.header.get_zooms(), (0.7, 0.8, 2.5), rtol=1e-6)
    first = (tmp_path / "v.nii.gz").read_bytes()
    write_volume(tmp_path / "w.nii.gz", voxels, (2.5, 0.8, 0.7), orientation)
    assert (tmp_path / "w.nii.gz").read_bytes() == first
