"""What an encoder takes for each of its bands when it is given others: a matrix per method, and the others' value space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from core.bands import Band, BandNames, nearest_bands
from core.contract import Input, Normalisation
from core.errors import BandError, ConfigError
from core.sensors import get_sensor

_SHARE = 0.06  # of its wavelength that the nearest band may be away: so much do two sensors' filters differ
_LEAST_NM = 40.0
_SAME_NM = 10.0  # bands of one name whose centres differ by more are two bands
_KIND = {"reflectance": "reflective", "percent reflectance": "reflective", "full scale": "reflective", "K": "thermal"}
_PERCENT = {("reflectance", "percent reflectance"): 100.0, ("percent reflectance", "reflectance"): 0.01}


@dataclass(frozen=True)
class Mix:
    """How the bands of an input are replaced: value of encoder band i = sum over j of matrix[i, j] value of band j + shift[i].

    Attributes:
        matrix: (have, want) float64, between the value space of the wanted bands and the encoder's own.
        shift: (have,) float64.
        normalisation: value space of the wanted bands.
        notes: what was done, a sentence each.
    """

    matrix: Tensor
    shift: Tensor
    normalisation: Normalisation
    notes: tuple[str, ...]


Parts = list[tuple[int, float]]
"""Positions of bands and their shares of a mean."""


def subset(old: Input, bands: BandNames, sensor: str) -> Mix:
    """Take some of the encoder's own bands; the others count as 0 of its value space."""
    check_own(old, bands, sensor)
    parts: list[Parts] = [[(bands.index(band), 1.0)] if band in bands else [] for band in old.bands]
    sources: list[Parts] = [[(old.bands.index(band), 1.0)] for band in bands]
    return _physical(old, bands, sensor, parts, sources)


def nearest(old: Input, bands: BandNames, sensor: str) -> Mix:
    """Let each of the encoder's bands read the wanted band of the nearest wavelength, if one is near."""
    wanted = _with_wavelengths(old, bands, sensor, "nearest")
    parts: list[Parts] = []
    for band in old.described:
        rivals = tuple(other for other in wanted if _kind(other) == _kind(band))
        try:
            (found,) = nearest_bands(rivals, (band,), _reach(band))
        except BandError:
            parts.append([])
            continue
        parts.append([(wanted.index(found), 1.0)])
    return _by_wavelength(old, bands, sensor, parts)


def wavelength(old: Input, bands: BandNames, sensor: str) -> Mix:
    """Let each of the encoder's bands read what is interpolated between the wanted bands around it, if one is near."""
    wanted = _with_wavelengths(old, bands, sensor, "wavelength")
    parts: list[Parts] = []
    for band in old.described:
        found = _around(band, wanted)
        near = any(abs(_centre(wanted[at]) - _centre(band)) <= 2 * _reach(band) for at, _ in found)
        parts.append(found if near else [])
    return _by_wavelength(old, bands, sensor, parts)


def mean(old: Input, bands: BandNames, sensor: str) -> Mix:
    """Let each of the encoder's bands read the mean of all wanted bands."""
    note = "every band of the encoder reads the mean of all, each normalised by its own image; train it further"
    matrix = torch.full((len(old.bands), len(bands)), 1.0 / len(bands), dtype=torch.float64)
    return Mix(matrix, matrix.new_zeros(len(old.bands)), Normalisation(method="per_image"), (note,))


def check_own(old: Input, bands: BandNames, sensor: str) -> None:
    """Refuse bands that are none of the encoder's, or only share their names.

    Raises:
        BandError: names the bands.
    """
    if missing := [band for band in bands if band not in old.bands]:
        raise BandError(
            f"input '{old.name}': expected some of the encoder's bands {old.bands}, got {missing} besides; adapt by "
            "'nearest' or 'wavelength', and name the sensor that the bands are from."
        )
    if not old.sensor or not sensor:
        return
    for ours, theirs in zip(_described(bands, old.sensor), _described(bands, sensor), strict=True):
        apart = abs((ours.centre_nm or 0.0) - (theirs.centre_nm or 0.0))
        if _kind(ours) != _kind(theirs) or (ours.centre_nm is None) != (theirs.centre_nm is None) or apart > _SAME_NM:
            raise BandError(
                f"input '{old.name}': its band '{ours.name}' is of sensor '{old.sensor}' ({_fact(ours)}), the wanted one "
                f"is another of that name, of '{sensor}' ({_fact(theirs)}); adapt by 'nearest' or 'wavelength'."
            )


def picked(space: Normalisation, order: list[int]) -> Normalisation:
    """Give the normalisation of some of an input's bands."""
    if space.method == "per_image":
        return space
    mean, std = (tuple(numbers[at] for at in order) for numbers in (space.mean, space.std))
    clip = tuple(space.clip[at] for at in order) if space.clip else ()
    return replace(space, mean=mean, std=std, clip=clip)


def _by_wavelength(old: Input, bands: BandNames, sensor: str, parts: list[Parts]) -> Mix:
    wanted, own = _described(bands, sensor), old.described
    if not any(parts):
        raise BandError(
            f"input '{old.name}': none of the encoder's bands {old.bands} has one near it among {bands}; adapt by 'mean' and "
            "train further, or choose another encoder."
        )
    notes = []
    for band, found in zip(own, parts, strict=True):
        text = " + ".join(
            f"{'' if share == 1 else f'{share:.2f} '}{wanted[at].name} ({wanted[at].centre_nm:g} nm)"
            for at, share in found
        )
        if found:
            notes.append(f"{band.name} ({band.centre_nm:g} nm) reads {text}")
    mix = _physical(old, bands, sensor, parts, [_around(band, own) for band in wanted])
    return replace(mix, notes=("; ".join(notes), *mix.notes))


def _physical(old: Input, bands: BandNames, sensor: str, parts: list[Parts], sources: list[Parts]) -> Mix:
    """Mix physical values: encoder band i reads `parts[i]`; wanted band j is normalised as the encoder's bands `sources[j]`.

    Where the encoder's value space is not one of physical values, or units cannot be converted, normalised values are mixed,
    each band being normalised by its own image.
    """
    matrix = torch.zeros(len(parts), len(bands), dtype=torch.float64)
    for row, found in enumerate(parts):
        for column, share in found:
            matrix[row, column] = share
    notes, space = unread(old, matrix.any(1).tolist()), old.normalisation
    notes += _unused(matrix, bands)
    units = _units(old, bands, sensor, sources)
    if space.method == "per_image" or units is None:
        if space.method != "per_image":
            notes += ("units cannot be converted, so each band is normalised by its own image; train it further",)
        return Mix(matrix, matrix.new_zeros(len(parts)), Normalisation(method="per_image"), notes)

    def of(numbers: tuple[float, ...]) -> Tensor:
        return matrix.new_tensor([sum(share * numbers[at] for at, share in found) for found in sources])

    mean, std = of(space.mean), of(space.std)
    clip = [(of(ends) / units).tolist() for ends in zip(*space.clip, strict=True)]
    normalisation = replace(
        space,
        mean=tuple((mean / units).tolist()),
        std=tuple((std / units).tolist()),
        clip=tuple(zip(*clip, strict=True)),
    )
    own_mean, own_std = matrix.new_tensor(space.mean), matrix.new_tensor(space.std)
    shift = (matrix @ mean - matrix.sum(1) * own_mean) / own_std
    return Mix(matrix * std / own_std[:, None], shift, normalisation, notes)


def _units(old: Input, bands: BandNames, sensor: str, sources: list[Parts]) -> Tensor | None:
    """Give what turns each wanted band's numbers into the encoder's unit; None where nothing does."""
    factors: list[float] = [1.0] * len(bands)
    if old.sensor and sensor:
        for at, (theirs, found) in enumerate(zip(_described(bands, sensor), sources, strict=True)):
            ours = old.described[found[0][0]] if found else None
            if ours is None or (theirs.unit != ours.unit and (theirs.unit, ours.unit) not in _PERCENT):
                return None
            factors[at] = _PERCENT.get((theirs.unit, ours.unit), 1.0)
    return torch.tensor(factors, dtype=torch.float64)


def _around(band: Band, others: tuple[Band, ...]) -> Parts:
    """Interpolate at a band's wavelength between others of its kind; beyond the ends the last one, of none of its kind none."""
    centre = _centre(band)
    rivals = sorted(
        (_centre(other), other.width_nm or 0.0, at) for at, other in enumerate(others) if _kind(other) == _kind(band)
    )
    for (low, _, first), (high, _, second) in pairwise(rivals):
        if low < centre < high:
            share = (centre - low) / (high - low)
            return [(first, 1.0 - share), (second, share)]
    ends = [(abs(other - centre), width, at) for other, width, at in rivals]
    return [(min(ends)[2], 1.0)] if ends else []


def _with_wavelengths(old: Input, bands: BandNames, sensor: str, method: str) -> tuple[Band, ...]:
    if not old.sensor or not sensor:
        who = "the wanted bands" if old.sensor else "the encoder's bands"
        raise ConfigError(
            f"input '{old.name}': adapting by '{method}' compares wavelengths, and the sensor of {who} is not known; name it "
            "(sensor=...), or adapt by 'subset' or 'mean'."
        )
    wanted = _described(bands, sensor)
    if without := [band.name for band in (*old.described, *wanted) if band.centre_nm is None]:
        raise BandError(f"input '{old.name}': the bands {without} have no wavelength; adapt by 'subset' or 'mean'.")
    return wanted


def unread(old: Input, read: list[bool]) -> tuple[str, ...]:
    """Say which of the encoder's bands read nothing, and what they count as: 0 of the value space."""
    lacking = [at for at, known in enumerate(read) if not known]
    if not lacking:
        return ()
    names, space = [old.bands[at] for at in lacking], old.normalisation
    if space.method == "per_image":
        return (
            f"{', '.join(names)} of the encoder read nothing and count as the mean of an image, as they are normalised by it",
        )
    units = [f" {old.described[at].unit}" if old.sensor else "" for at in lacking]
    values = [f"{name} as {space.mean[at]:.6g}{unit}" for name, at, unit in zip(names, lacking, units, strict=True)]
    return (f"of the encoder's bands these read nothing and count as 0 of its value space: {', '.join(values)}",)


def _unused(matrix: Tensor, bands: BandNames) -> tuple[str, ...]:
    columns = [band for band, column in zip(bands, matrix.T, strict=True) if not column.any()]
    return (f"{', '.join(columns)} are read with weight 0: no band of the encoder is near them",) if columns else ()


def _reach(band: Band) -> float:
    return max(_LEAST_NM, _SHARE * _centre(band))


def _centre(band: Band) -> float:
    assert band.centre_nm is not None
    return band.centre_nm


def _kind(band: Band) -> str:
    return _KIND.get(band.unit, band.unit)


def _fact(band: Band) -> str:
    where = "" if band.centre_nm is None else f"{band.centre_nm:g} nm, "
    return f"{where}in {band.unit}"


def _described(bands: BandNames, sensor: str) -> tuple[Band, ...]:
    return tuple(get_sensor(sensor).find(band) for band in bands)
