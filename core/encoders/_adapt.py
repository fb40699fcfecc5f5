"""Fitting an encoder to other bands: its first linear map is rewritten before it is built. Never silent: notes say what was done.

What the encoder takes for each of its bands is a mean of what it is given (`core.encoders._band_mix`), a matrix that is
multiplied into its first map: nothing is computed twice, and the result is an ordinary encoder with an ordinary contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from core.bands import BandNames
from core.contract import Contract, Input
from core.encoders import _band_mix
from core.encoders._band_mix import Mix
from core.encoders.base import EncoderSpec
from core.errors import BandError, ConfigError
from core.sensors import get_sensor

Method = Literal["subset", "nearest", "wavelength", "mean", "groups"]

_MIXES = {
    "subset": _band_mix.subset,
    "nearest": _band_mix.nearest,
    "wavelength": _band_mix.wavelength,
    "mean": _band_mix.mean,
}


@dataclass(frozen=True)
class Adapted:
    """An encoder for other bands.

    Attributes:
        spec: with a contract whose input has the wanted bands, their normalisation and their sensor.
        weights: that fit it.
        notes: what was done, a sentence each; empty = nothing had to be.
    """

    spec: EncoderSpec
    weights: dict[str, Tensor]
    notes: tuple[str, ...]


def adapt(
    spec: EncoderSpec,
    weights: Mapping[str, Tensor],
    *,
    entry: str,
    bands: BandNames,
    method: Method,
    sensor: str = "",
) -> Adapted:
    """Rewrite an encoder's description and weights for an input with other bands.

    `subset`: the wanted bands are some of the encoder's; the others count as 0 of its value space, which is their mean only
    where the contract normalises by means.
    `nearest`: each of the encoder's bands reads the wanted one of the nearest wavelength, at most 6 % or 40 nm away.
    `wavelength`: each reads what is interpolated between the two wanted bands around it, one of them at most twice as far.
    Both compare bands of one kind, reflective or thermal, and are exact in physical values: the encoder gives what the
    original gives for that spectrum.
    `mean`: each reads the mean of all wanted bands, for bands of which nothing is known, and is to be trained further; it is
    how the maps of photographs are made to read more bands.
    `groups`: whole band groups of an encoder that has some, such as SatMAE; groups that are not whole are left out with
    their tokens.

    Args:
        spec: of the encoder.
        weights: by our keys.
        entry: name of the input to change.
        bands: wanted, in the order of the new contract.
        method: see above.
        sensor: what the wanted bands' names mean; none = the encoder's own sensor, where it has them all.

    Raises:
        ConfigError: no such input or method, or one that these bands or weights do not allow.
        BandError: a wanted band to which this method can give no meaning.
    """
    old = _input(spec.contract, entry)
    if not bands or len(set(bands)) != len(bands):
        raise ConfigError(f"input '{entry}': expected different bands to adapt to, at least one, got {bands}.")
    if method not in (*_MIXES, "groups"):
        raise ConfigError(f"input '{entry}': expected to adapt by {', '.join(_MIXES)} or groups, got '{method}'.")
    if sensor in ("", old.sensor):
        bands = old.named(bands)
        if set(bands) == set(old.bands):
            return Adapted(spec, dict(weights), ())
    sensor = sensor or (old.sensor if old.sensor and set(bands) <= set(get_sensor(old.sensor).names) else "")
    if old.groups:
        return _grouped(spec, weights, old, bands, method, sensor)
    if method == "groups":
        raise ConfigError(f"input '{entry}': this encoder has no band groups to choose from; adapt it by 'subset'.")
    mix = _MIXES[method](old, bands, sensor)
    new = replace(old, bands=bands, sensor=sensor, normalisation=mix.normalisation)
    return Adapted(_with_input(spec, new), _mixed(dict(weights), old, mix), (_title(old, bands, method), *mix.notes))


def _mixed(weights: dict[str, Tensor], old: Input, mix: Mix) -> dict[str, Tensor]:
    """Multiply the first map of a stem, however it is called there, and let its bias take up what means differ."""
    prefix, rank = f"stems.{old.name}.", 2 + old.ndim
    maps = [key for key, value in weights.items() if key.startswith(prefix) and value.ndim == rank]
    found = [key for key in maps if weights[key].shape[1] == len(old.bands)]
    found = found if len(found) == 1 else [key for key in found if tuple(weights[key].shape[2:]) == old.patch]
    if len(found) != 1:
        raise ConfigError(
            f"input '{old.name}': expected one map of {len(old.bands)} bands among the weights '{prefix}*' to adapt, found "
            f"{found or maps or 'none'}."
        )
    key = found[0]
    wide = weights[key].to(torch.float64)
    matrix = mix.matrix.to(wide.device)
    weights[key] = torch.einsum("ij,di...->dj...", matrix, wide).to(weights[key].dtype).contiguous()
    if bool(mix.shift.any()):
        bias = key.removesuffix("weight") + "bias"
        if bias not in weights:
            raise ConfigError(
                f"input '{old.name}': its first map has no bias to take up the difference of the bands' means; adapt by "
                "'subset' or 'mean'."
            )
        moved = wide.flatten(2).sum(2) @ mix.shift.to(wide.device)
        weights[bias] = (weights[bias].to(torch.float64) + moved).to(weights[bias].dtype)
    return weights


def _grouped(
    spec: EncoderSpec, weights: Mapping[str, Tensor], old: Input, bands: BandNames, method: str, sensor: str
) -> Adapted:
    """Keep some of the bands of an encoder with band groups, or whole groups."""
    if method not in ("subset", "groups"):
        raise ConfigError(
            f"input '{old.name}': its bands share tokens by group {old.groups}; adapt it by 'groups' or 'subset', not "
            f"'{method}'."
        )
    _band_mix.check_own(old, bands, sensor)
    left = [tuple(band for band in group if band in bands) for group in old.groups]
    keep = [at for at, kept in enumerate(left) if kept and (method == "subset" or kept == old.groups[at])]
    if not keep:
        raise BandError(
            f"input '{old.name}': expected at least one whole group of {old.groups}, got {bands}; adapt by 'subset'."
        )
    numbered = getattr(getattr(spec, "positions", None), "group_channels", 0) and f"tables.{old.name}" not in weights
    if numbered and keep != list(range(len(keep))):
        raise ConfigError(
            f"input '{old.name}': this encoder's positions count the band groups, so only the last of {old.groups} can be "
            "left out; give the bands of others as nodata instead."
        )
    groups = tuple(left[at] for at in keep)
    chosen = tuple(band for band in bands if any(band in group for group in groups))
    order = [old.bands.index(band) for band in chosen]
    space = _band_mix.picked(old.normalisation, order)
    new = replace(old, bands=chosen, groups=groups, sensor=sensor, normalisation=space)
    notes = [_title(old, chosen, method), f"{len(keep)} of {len(old.groups)} band groups are left: {_groups(groups)}"]
    if dropped := [band for band in bands if band not in chosen]:
        notes.append(f"{', '.join(dropped)} belong to groups that are not whole and are not read")
    gone = [band for at in keep for band in old.groups[at] if band not in left[at]]
    notes += _band_mix.unread(old, [band not in gone for band in old.bands])
    kept = {at: [old.groups[at].index(band) for band in left[at]] for at in keep}
    return Adapted(_with_input(spec, new), _of_groups(weights, old, kept), tuple(notes))


def _of_groups(weights: Mapping[str, Tensor], old: Input, kept: dict[int, list[int]]) -> dict[str, Tensor]:
    """Keep of each group that is left the maps of some bands, its code and its positions."""
    home, keep = f"stems.{old.name}.embeddings.", list(kept)
    changed = {key: value for key, value in weights.items() if not key.startswith(home)}
    for number, (at, order) in enumerate(kept.items()):
        part = {
            key.removeprefix(f"{home}{at}."): value for key, value in weights.items() if key.startswith(f"{home}{at}.")
        }
        for inner, value in part.items():
            changed[f"{home}{number}.{inner}"] = value[:, order] if inner == "weight" else value
    code, table = f"stems.{old.name}.group", f"tables.{old.name}"
    changed[code] = weights[code][keep]
    if table in weights:
        prefix = weights[table].shape[1] % len(old.groups)  # the class token's row; with one group nothing is cut
        if len(old.groups) > 1:
            places = weights[table][:, prefix:].unflatten(1, (len(old.groups), -1))[:, keep].flatten(1, 2)
            changed[table] = torch.cat([weights[table][:, :prefix], places], dim=1)
    return changed


def _title(old: Input, bands: BandNames, method: str) -> str:
    return (
        f"input '{old.name}' reads {len(bands)} bands ({', '.join(bands)}) in place of {len(old.bands)}, adapted by "
        f"'{method}'"
    )


def _groups(groups: tuple[BandNames, ...]) -> str:
    return "; ".join(", ".join(group) for group in groups)


def _input(contract: Contract, name: str) -> Input:
    found = [entry for entry in contract.inputs if entry.name == name]
    if not found:
        raise ConfigError(f"expected one of the inputs {[entry.name for entry in contract.inputs]}, got '{name}'.")
    return found[0]


def _with_input(spec: EncoderSpec, new: Input) -> EncoderSpec:
    inputs = tuple(new if entry.name == new.name else entry for entry in spec.contract.inputs)
    changed = replace(cast(Any, spec), contract=replace(spec.contract, inputs=inputs))
    assert isinstance(changed, EncoderSpec)
    return changed
