"""NIfTI files that are written: the contract, and what is in their headers."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.errors import DataError
from core.geometry import Affine, Spacing
from datasets.readers import open_image
from datasets.readers.base import Reader
from datasets.readers.nifti import Nifti as Reading
from datasets.testing.writer_contract import WriterContract
from datasets.writers import Facts, Writer, write_image
from datasets.writers.nifti import Nifti

STEPS = (2.5, 0.75, 0.5)


def affine(steps: tuple[float, ...] = STEPS) -> Affine:
    """(z, y, x, 1) to RAS+ mm, shifted."""
    z, y, x = steps
    return Affine.of(np.array([[0, 0, x, -40.5], [0, y, 0, 12.25], [z, 0, 0, 7.0]]), source="test")


def volume(shape: tuple[int, ...] = (1, 7, 9, 11), dtype: str = "int16", **changes: object) -> Facts:
    names = ("intensity",) if shape[0] == 1 else tuple(f"band_{n + 1}" for n in range(shape[0]))
    facts = Facts(shape=shape, dtype=np.dtype(dtype), bands=names, spacing=Spacing(STEPS, "mm"), affine=affine())
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


class _Contract(WriterContract):
    kept = ("bands", "spacing", "affine", "scaling", "units")

    def writer(self) -> Writer:
        return Nifti()

    def facts(self) -> list[Facts]:
        kinds = ("int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
        return [volume(), *(volume((1, 5, 4, 6), kind) for kind in kinds), volume((3, 4, 5, 6))]

    def large(self) -> Facts:
        return volume((1, 240, 1024, 1024), "uint16")

    def readers(self) -> tuple[Reader, ...]:
        return (Reading(fourth_axis="bands"),)


class TestNifti(_Contract):
    def name(self) -> str:
        return "scan.nii"


class TestNiftiGz(_Contract):
    def name(self) -> str:
        return "scan.nii.gz"


def whole(facts: Facts, value: float = 0) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    return [(tuple(slice(0, n) for n in facts.size), np.full(facts.shape, value, dtype=facts.dtype))]


def test_the_header_holds_sizes_geometry_and_nothing_else(tmp_path: Path) -> None:
    facts = volume()
    head = nib.load(write_image(tmp_path / "a.nii", facts, whole(facts))).header
    assert (head["sform_code"], head["qform_code"]) == (1, 1)
    assert head.get_xyzt_units() == ("mm", "unknown")
    np.testing.assert_allclose(head.get_qform(), head.get_sform(), atol=1e-5)
    assert list(head["dim"]) == [3, 11, 9, 7, 1, 1, 1, 1]
    plain = nib.Nifti1Header()
    set_here = "dim datatype bitpix pixdim vox_offset scl_slope scl_inter xyzt_units qform_code sform_code".split()
    set_here += [f"quatern_{axis}" for axis in "bcd"] + [f"qoffset_{axis}" for axis in "xyz"]
    set_here += [f"srow_{axis}" for axis in "xyz"]
    for field in set(plain.keys()) - set(set_here):
        assert np.array_equal(head[field], plain[field]), field
    assert not head.extensions


def test_gzip_has_neither_name_nor_time(tmp_path: Path) -> None:
    facts = volume()
    data = write_image(tmp_path / "Patient Name.nii.gz", facts, whole(facts)).read_bytes()
    assert data[3] == 0  # no flag: no name, no comment, no extra field
    assert data[4:8] == b"\0\0\0\0"
    assert b"Patient" not in data
    assert len(gzip.decompress(data)) == 352 + 7 * 9 * 11 * 2


def test_a_sheared_affine_is_kept_as_sform_alone(tmp_path: Path) -> None:
    matrix = affine().matrix
    matrix[0, 0] = 1.0
    sheared = Affine.of(matrix, source="test")
    facts = volume(affine=sheared, spacing=sheared.spacing)
    path = write_image(tmp_path / "a.nii", facts, whole(facts))
    assert nib.load(path).header["qform_code"] == 0
    found = open_image(path).affine
    assert found is not None
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-5)


def test_aligned_is_said_in_the_codes(tmp_path: Path) -> None:
    facts = volume()
    path = write_image(tmp_path / "a.nii", facts, whole(facts), writer=Nifti(world="aligned"))
    assert nib.load(path).header["sform_code"] == 2


def test_an_axis_longer_than_nifti_1_can_say_makes_nifti_2(tmp_path: Path) -> None:
    facts = volume((1, 1, 2, 32_768), "uint8")
    path = write_image(tmp_path / "a.nii", facts, whole(facts, 3))
    assert isinstance(nib.load(path), nib.Nifti2Image)
    assert open_image(path).read().sum() == 3 * 2 * 32_768


def test_a_scaling_for_all_bands_is_applied_by_readers(tmp_path: Path) -> None:
    facts = volume(scaling=((0.5, -10.0),))
    path = write_image(tmp_path / "a.nii", facts, whole(facts, 7))
    assert np.unique(open_image(path).read()).tolist() == [-6.5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valid": 1}, "mask"),
        ({"nodata": (-1.0,)}, r"nodata value \(-1\)"),
        ({"dtype": np.dtype("float16")}, "float16"),
        ({"dtype": np.dtype("bool")}, "uint8"),
    ],
)
def test_what_nifti_cannot_keep_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    facts = volume(**changes)
    with pytest.raises(DataError, match=words):
        write_image(tmp_path / "a.nii", facts, [])
    assert list(tmp_path.iterdir()) == []
