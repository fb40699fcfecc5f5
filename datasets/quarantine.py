"""What happens to images that cannot be read in training: an error, or a substitute and a line in `quarantine.jsonl`.

A substitute is a pure function of what it replaces, so it is the same for any number of workers and ranks, and every rank
still makes every step. Held-out images and evaluations never get one: a score must be of the images that it names.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from core.errors import ConfigError, DataError
from core.rng import key
from datasets.sample import Incident, Item

BadSamples = Literal["raise", "quarantine"]

_SUBSTITUTES = 8  # that are tried for one sample before it is an error
_HANDFUL = 5  # bad samples that are allowed however short a run is


def with_substitutes(item: Item, stream: str, rows: np.ndarray, seed: int) -> Item:
    """Add to an item which rows of its stream stand in for it, first choice first; never the row itself."""
    others = len(rows) - 1
    if others < 1:
        return item
    own = int(np.searchsorted(rows, item.row))
    chosen = []
    for attempt in range(_SUBSTITUTES):
        place = key(seed, "substitute", stream, item.epoch, item.row, attempt) % others
        chosen.append(int(rows[place + (place >= own)]))
    return Item(
        stream=item.stream,
        row=item.row,
        index=item.index,
        epoch=item.epoch,
        tile=item.tile,
        substitutes=tuple(dict.fromkeys(chosen)),
    )


class Quarantine:
    """The record of bad samples of a run, kept in its folder by every rank, and the budget that ends the run."""

    def __init__(self, path: Path | None, *, budget: float, rank: int = 0) -> None:
        """Remember where to write; nothing is written before the first incident.

        Args:
            path: `quarantine.jsonl` of the run; None = only count and tell.
            budget: largest share of the run's samples that may be bad; five always may.
            rank: of this process.

        Raises:
            ConfigError: the budget is no share.
        """
        if not 0 <= budget <= 1:
            raise ConfigError(f"expected a budget of bad samples from 0 to 1, got {budget}.")
        self.path, self.budget, self.rank = path, budget, rank
        self._seen: set[tuple[str, int, str]] = set()
        self._told: set[str] = set()

    def record(self, incidents: Iterable[Incident], *, step: int, samples: int) -> None:
        """Write down incidents of one step, tell each file once, and stop the run above its budget.

        What a continued run reads again is counted once.

        Args:
            incidents: what was replaced.
            step: of the batch, counted from 0.
            samples: of the whole run, over all ranks.

        Raises:
            DataError: more bad samples than the budget allows, over all ranks and since the run began.
        """
        incidents = list(incidents)
        if not incidents:
            return
        for incident in incidents:
            self._seen.add((incident.stream, incident.index, incident.file))
            if incident.file not in self._told:
                self._told.add(incident.file)
                print(f"quarantined: {incident.reason} {incident.substitute} takes its place.", file=sys.stderr)
        if self.path is not None:
            self._write(incidents, step)
        bad, allowed = self._count(), max(_HANDFUL, math.floor(self.budget * samples))
        if bad > allowed:
            where = "" if self.path is None else f" ({self.path} lists them)"
            raise DataError(
                f"{incidents[-1].file}: expected at most {allowed} samples that cannot be read, this is number {bad}"
                f"{where}: repair or remove the files, or raise data.bad_budget. {incidents[-1].reason}"
            )

    def _write(self, incidents: list[Incident], step: int) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        lines = [json.dumps({"time": now, "rank": self.rank, "step": step, **asdict(entry)}) for entry in incidents]
        assert self.path is not None
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            for line in lines:
                os.write(descriptor, line.encode() + b"\n")  # one call each: ranks never tear each other's lines
        finally:
            os.close(descriptor)

    def _count(self) -> int:
        """Bad samples since the run began, over all ranks; a line that a crash cut short is passed over."""
        for line in self.path.read_bytes().splitlines() if self.path is not None else ():
            try:
                entry = json.loads(line)
                self._seen.add((entry["stream"], entry["index"], entry["file"]))
            except (ValueError, KeyError, TypeError):
                continue
        return len({(stream, index) for stream, index, _ in self._seen})
