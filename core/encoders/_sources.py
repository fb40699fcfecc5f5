"""Where an encoder's description and weights come from: the folder of a run, or a card and its file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from core.bands import BandNames
from core.config import from_dict
from core.contract import Contract, Input
from core.encoders._adapt import Method
from core.encoders._adapt import adapt as fit_bands
from core.encoders.base import EncoderSpec, Pool
from core.encoders.cards.base import Card
from core.errors import BandError, CheckpointError, ConfigError, MissingDataError
from core.foreign import read_encoder
from core.hub import fetch, told_on
from core.weights import FORMAT, Placement, read_weights

Acceptance = Literal["non_commercial"]
"""Terms of a licence that a user must agree to before weights are fetched."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What an encoder is made of; `report` knows all but the keys that are placed, `pool` is how it was trained to be read."""

    spec: EncoderSpec
    weights: Mapping[str, Tensor]
    source: str
    report: Placement
    pool: Pool = "mean"


def folder_of(name_or_run: str | Path) -> Path | None:
    """Find the folder that holds an encoder; none = a card is meant.

    Raises:
        MissingDataError: a path was given, and there is no encoder.
    """
    folder = Path(name_or_run)
    folder = folder / "encoder" if (folder / "encoder").is_dir() else folder
    if (folder / "config.json").is_file():
        return folder
    if isinstance(name_or_run, Path) or os.sep in name_or_run or folder.exists():
        raise MissingDataError(
            f"{folder}: expected a run folder, or an encoder folder with config.json; pretrain one first."
        )
    return None


def stored(folder: Path) -> Loaded:
    """Read what a run has stored.

    Raises:
        CheckpointError: the folder's format is unknown, or its weights are not those that were written.
    """
    description = folder / "config.json"
    try:
        facts = json.loads(description.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{description}: expected JSON, got: {error}.") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(
            f"{description}: expected an encoder of format {FORMAT}; it was written by another version."
        )
    path = folder / "model.safetensors"
    found = read_weights(path, digest=facts.get("digests", {}).get(path.name))
    spec: EncoderSpec = from_dict(EncoderSpec, facts["spec"])  # type: ignore[type-abstract]
    return Loaded(spec=spec, weights=found, source=str(path), report=Placement(()))


def published(
    card: Card, weights: str | Path | None, accept: Collection[str], *, described_only: bool = False
) -> Loaded:
    """Describe a published encoder and read its weights: fetched, from a file, or fresh, then on request without memory.

    Raises:
        ConfigError: terms that were not accepted.
        MissingDataError: the file cannot be fetched, or is not there.
        UnsafeError: the file holds objects that could run code.
        CheckpointError: the weights do not fill the encoder.
    """
    accept = (accept,) if isinstance(accept, str) else accept
    unknown = sorted(set(accept) - set(get_args(Acceptance)))
    if unknown:
        raise ConfigError(f"expected accept of {', '.join(get_args(Acceptance))}, got {', '.join(unknown)}.")
    if weights is None:
        spec = card.spec()
        with torch.device("meta") if described_only else contextlib.nullcontext():
            fresh = spec.build().state_dict()
        return Loaded(spec=spec, weights=fresh, source=card.name, report=Placement(()), pool=card.pool)
    if str(weights) == "hub":
        if card.non_commercial and "non_commercial" not in accept:
            raise ConfigError(
                f"{card.name}: its licence, {card.licence}, forbids commercial use; pass accept=('non_commercial',) if "
                "yours is none."
            )
        path = fetch(card.source, progress=told_on(sys.stderr, card.source.file))
        digest = card.source.sha256
    else:
        path, digest = Path(weights), None
    spec = card.spec()
    found = read_encoder(path, spec, card.layout, sha256=digest)
    report = Placement((), dropped=found.dropped, sha256=found.sha256, source_dtype=found.source_dtype)
    after_mean = any(key.endswith("fc_norm.weight") for key in found.placed)  # fine-tuned so, whatever the card says
    pool: Pool = "mean_then_norm" if after_mean else card.pool
    return Loaded(spec=spec, weights=found.weights, source=str(path), report=report, pool=pool)


def for_bands(loaded: Loaded, bands: BandNames | None, method: Method | None, sensor: str) -> Loaded:
    """Fit every input of the bands in question to those that images will have; a matter of order needs nothing.

    Raises:
        ConfigError: an adapter without bands, or one that they do not allow.
        BandError: other bands and no adapter, or one that cannot serve them.
    """
    if bands is None:
        raise ConfigError("expected bands to adapt to: pass bands=('B04', ...) with adapt and sensor.")
    entry = _entry_for(loaded.spec.contract, tuple(bands))
    bands = entry.named(tuple(bands)) if sensor in ("", entry.sensor) else tuple(bands)
    same = sorted(entry.bands) == sorted(bands) and sensor in ("", entry.sensor)
    if method is None:
        if same:
            return loaded
        raise BandError(
            f"input '{entry.name}': expected bands {entry.bands}{f' of {entry.sensor}' if entry.sensor else ''}, got "
            f"{bands}{f' of {sensor}' if sensor else ''}: name how to adapt, such as adapt='subset', 'nearest', "
            "'wavelength' or 'mean'."
        )
    spec, weights, notes = loaded.spec, loaded.weights, loaded.report.adapted
    for each in loaded.spec.contract.inputs:
        if (each.bands, each.sensor) == (entry.bands, entry.sensor):  # a scene and a series of scenes alike
            adapted = fit_bands(spec, weights, entry=each.name, bands=bands, method=method, sensor=sensor)
            spec, weights, notes = adapted.spec, adapted.weights, (*notes, *adapted.notes)
    return replace(loaded, spec=spec, weights=weights, report=replace(loaded.report, adapted=notes))


def _entry_for(contract: Contract, bands: BandNames) -> Input:
    """Find the input that shares most bands with those given, the first of equals."""
    return max(contract.inputs, key=lambda entry: len(set(entry.bands) & set(entry.named(bands))))
