"""Where DICOM slices are: their order along the normal, the affine of the volume, and what makes them no volume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from core.errors import GeometryError, UnsupportedError
from datasets.image import Flag
from datasets.readers._dicom_header import Header
from datasets.readers._typed import typed

_TOLERANCE = 0.01  # of the distance between slices; scanners write positions to about 0.001 mm
_PARALLEL = 1e-4  # largest difference of direction cosines within one volume


def placed(
    path: Path, headers: list[Header], names: list[str], uneven: str
) -> tuple[list[int], np.ndarray, list[Flag]]:
    """Give the order of frames along their normal, the affine of stored (i, j, k) to RAS+ mm, and what is unusual.

    `names` says of each frame which it is, for messages; `uneven` is the reader's option.

    Raises:
        GeometryError: the frames are turned, shifted or unevenly spaced, or their spacing is missing.
        UnsupportedError: they are not slices at positions of their own.
    """
    frames = [frame for header in headers for frame in header.frames]
    for frame, name in zip(frames, names, strict=True):
        if frame.position is None or frame.rows_and_columns is None:
            raise UnsupportedError(
                f"{path / name}: expected slices at known positions, got a frame without one (a film or another object); split "
                "it into single images."
            )
    spacing = headers[0].spacing
    if spacing is None:
        raise GeometryError(f"{path}: its slices have no PixelSpacing; mend the headers, or export it as NIfTI.")
    if any(h.spacing is None or not np.allclose(h.spacing, spacing, rtol=1e-4) for h in headers):
        raise GeometryError(f"{path}: its slices differ in PixelSpacing; split the series.")
    turns = np.array([frame.rows_and_columns for frame in frames], dtype=np.float64)
    odd = int((np.abs(turns - np.median(turns, axis=0)).max(axis=1) > _PARALLEL).sum())
    if odd:
        raise GeometryError(
            f"{path}: expected parallel slices, {odd} of {len(turns)} are turned (a scout?); remove them."
        )
    along, down = turns[0, :3], turns[0, 3:]
    if abs(np.linalg.norm(along) - 1) > 1e-3 or abs(np.linalg.norm(down) - 1) > 1e-3 or abs(along @ down) > 1e-3:
        raise GeometryError(
            f"{path / names[0]}: its ImageOrientationPatient is no pair of directions; mend the header."
        )
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    normal = np.cross(along, down)
    order = [int(n) for n in np.argsort(positions @ normal, kind="stable")]
    step, flags = _step(path, headers[0], positions[order], normal, [names[n] for n in order], uneven)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = along * spacing[1], down * spacing[0], step
    matrix[:3, 3] = positions[order[0]]
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix, flags  # DICOM's world is LPS


def _step(
    path: Path, header: Header, positions: np.ndarray, normal: np.ndarray, names: list[str], uneven: str
) -> tuple[np.ndarray, list[Flag]]:
    """The vector from a slice to the next."""
    if len(positions) == 1:
        if not header.thickness:
            raise GeometryError(
                f"{path}: a single slice without thickness has no size; give the file, it is read as 2D."
            )
        return normal * header.thickness, [Flag("one_slice", "The series has one slice; its thickness is the spacing.")]
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() <= _TOLERANCE * abs(usual):
        where = int(np.argmin(gaps))
        count = int((gaps <= _TOLERANCE * abs(usual)).sum())
        raise UnsupportedError(
            f"{path}: expected one slice at each position, but {count} share theirs with another (several times or echoes; "
            f"first {names[where]} and {names[where + 1]}); split the series."
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    flags = []
    wrong = np.abs(gaps - usual) > _TOLERANCE * usual
    if wrong.any():
        where = int(np.argmax(np.abs(gaps - usual)))
        text = (
            f"slices are {usual:.4g} mm apart, but {int(wrong.sum())} of {len(gaps)} distances differ: {gaps[where]:.4g} mm "
            f"between {names[where]} and {names[where + 1]}"
        )
        if uneven == "refuse":
            lost = " (a slice is missing)" if _multiple(gaps, usual) else ""
            raise GeometryError(f"{path}: {text}{lost}; find it, or read it with {typed('dicom.uneven=accept')}.")
        flags.append(Flag("uneven_spacing", f"{text[0].upper()}{text[1:]}; the mean is the spacing."))
    drift = positions - positions[0] - np.outer(np.arange(len(positions)), step)
    drift -= np.outer(drift @ normal, normal)
    if np.abs(drift).max() > max(_TOLERANCE * usual, 1e-3):
        raise GeometryError(
            f"{path}: its slices do not lie behind one another (they shift sideways); resample or split it."
        )
    sideways = float(np.linalg.norm(step - (step @ normal) * normal))
    if sideways > _TOLERANCE * usual:
        flags.append(Flag("sheared", f"Each slice is shifted by {sideways:.3g} mm (gantry tilt); the affine says so."))
    return step, flags


def _multiple(gaps: Iterable[float], usual: float) -> bool:
    """Whether each distance is a whole number of usual ones."""
    return all(abs(gap / usual - round(gap / usual)) < 2 * _TOLERANCE for gap in gaps)
