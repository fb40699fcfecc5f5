"""A run folder, read as it stands: unfinished, resumed or complete. Nothing is written and nothing is drawn here.

What is absent is None or empty. What is there but cannot be read becomes a sentence in `problems`, for the page to
show: a damaged side file must not keep anybody from seeing a finished run.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from core.config import load
from core.errors import DataError, MissingDataError
from core.evaluate.curve import Curve
from core.evaluate.table import Table

_KINDS = {"photograph": 2, "scene": 2, "volume": 3}  # names of inputs that are nouns for their images, and their rank

Points = list[tuple[float, float]]
Scores = TypeVar("Scores", Table, Curve)


@dataclass(frozen=True)
class DataFacts:
    """Counts of the manifest `data.parquet`: images and groups per kind and split."""

    images: dict[str, int]
    groups: int
    held_out_images: int
    held_out_groups: int
    file_bytes: int | None


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Attributes:
        path: the folder.
        config: `config.yaml`.
        env: `env.json`, or empty.
        steps: the `step` events that count, by step; where a resume went back, later lines replace earlier ones.
        validations: the `validation` events that count, by step and stream.
        facts: every other field seen in `start` and `resume` events.
        resumes: how often the run was taken up again.
        ended: whether it reached its end.
        data: counts of the manifest.
        panels: `figures/panels.json`, or None.
        pictures: other PNG files in `figures/`.
        tables: evaluation tables by file name.
        curves: label-efficiency curves by file name.
        stored_values: numbers in the exported encoder's file, None while there is none.
        problems: sentences about what is there but could not be read.
    """

    path: Path
    config: dict[str, Any]
    env: dict[str, Any]
    steps: tuple[dict[str, Any], ...]
    validations: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    resumes: int
    ended: bool
    data: DataFacts | None
    panels: dict[str, Any] | None
    pictures: tuple[Path, ...]
    tables: tuple[tuple[str, Table], ...]
    curves: tuple[tuple[str, Curve], ...]
    stored_values: int | None
    problems: tuple[str, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams in order of appearance."""
        return tuple(dict.fromkeys(str(e.get("stream") or "all") for e in (*self.steps, *self.validations)))

    @property
    def planned_steps(self) -> int | None:
        """Steps that the config asks for."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def last_step(self) -> int | None:
        """The last step that was logged."""
        return int(self.steps[-1]["step"]) if self.steps else None

    def curve(self, events: str, stream: str, *names: str) -> Points:
        """Give (step, value) of a field such as `loss` or of a nested one such as `terms`, `gradient`."""
        chosen = self.steps if events == "step" else self.validations
        found = []
        for event in chosen:
            if str(event.get("stream") or "all") == stream:
                value: Any = event
                for name in names:
                    value = value.get(name) if isinstance(value, Mapping) else None
                found.append((float(event["step"]), number(value)))
        return found


def number(value: Any) -> float:
    """Give a JSON value as a number; null and anything that is none become NaN."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        MissingDataError: the folder has no `config.yaml`, so it is no run.
        ConfigError: `config.yaml` is not a mapping in YAML.
    """
    problems: list[str] = []
    steps, validations, facts, resumes, ended = _metrics(path / "metrics.jsonl", problems)
    figures = path / "figures"
    panels = _json(figures / "panels.json", problems)
    drawn = {column.get("file") for row in (panels or {}).get("rows", []) for column in row.get("columns", [])}
    others = [p for p in sorted(figures.glob("*.png")) if p.name not in drawn and p.name[:6] != "panel_"]
    config = _config(path / "config.yaml")
    return Run(
        path=path,
        config=config,
        env=_json(path / "env.json", problems) or {},
        steps=steps,
        validations=validations,
        facts=facts,
        resumes=resumes,
        ended=ended,
        data=_data(path / "data.parquet", _nouns(config), problems),
        panels=panels,
        pictures=tuple(others),
        tables=tuple(_scored(sorted(path.glob("evaluation*.json")), Table, problems)),
        curves=tuple(_scored(sorted(path.glob("label_efficiency*.json")), Curve, problems)),
        stored_values=_stored_values(path / "encoder" / "model.safetensors", problems),
        problems=tuple(problems),
    )


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingDataError(f"{path.parent}: expected a run folder with a config.yaml, found none.")
    return load(path)


def _json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(f"{path.name} could not be read ({error}).")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds {type(content).__name__} where a mapping was expected.")
        return None
    return content


def _metrics(
    path: Path, problems: list[str]
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...], dict[str, Any], int, bool]:
    """Replay the log: a resume drops what came after its step, since those steps are run again."""
    steps: dict[int, dict[str, Any]] = {}
    validations: dict[tuple[int, str], dict[str, Any]] = {}
    facts: dict[str, Any] = {}
    resumes, ended, broken = 0, False, 0
    for event in _lines(path):
        kind = event.get("event") if isinstance(event, dict) else None
        if not isinstance(event, dict) or (kind in {"step", "validation"} and not isinstance(event.get("step"), int)):
            broken += 1
        elif kind == "step":
            steps[event["step"]] = event
        elif kind == "validation":
            validations[event["step"], str(event.get("stream"))] = event
        elif kind in {"start", "resume"}:
            facts |= {name: value for name, value in event.items() if name not in {"event", "step", "time"}}
            if kind == "resume":
                resumes += 1
                back = event.get("step")
                if isinstance(back, int):
                    steps = {step: e for step, e in steps.items() if step <= back}
                    validations = {key: e for key, e in validations.items() if key[0] <= back}
        if kind is not None:
            ended = kind == "end"
    if broken:
        problems.append(f"metrics.jsonl: {broken} line(s) could not be read and are left out.")
    in_order = tuple(steps[step] for step in sorted(steps))
    return in_order, tuple(validations[key] for key in sorted(validations)), facts, resumes, ended


def _lines(path: Path) -> Iterable[Any]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    yield None


def _nouns(config: Mapping[str, Any]) -> dict[int, str]:
    """What the images of each rank are called: as the stream that reads them is, where that is a noun."""
    data = config.get("data")
    streams = data.get("streams") if isinstance(data, Mapping) else None
    names = {entry.get("input") for entry in streams or () if isinstance(entry, Mapping)}
    return {3: "volumes"} | {ndim: f"{name}s" for name, ndim in _KINDS.items() if name in names}


def _data(path: Path, nouns: Mapping[int, str], problems: list[str]) -> DataFacts | None:
    if not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        have = parquet.read_schema(path).names
        wanted = [name for name in ("ndim", "group", "split", "bytes") if name in have]
        table = parquet.read_table(path, columns=wanted).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        problems.append(f"data.parquet could not be read ({error}).")
        return None
    rows = len(next(iter(table.values()), []))
    images: dict[str, int] = {}
    for ndim in table.get("ndim", [0] * rows):
        kind = nouns.get(ndim, "images")
        images[kind] = images.get(kind, 0) + 1
    groups, splits = table.get("group", list(range(rows))), table.get("split", [""] * rows)
    held_out = [group for group, split in zip(groups, splits, strict=True) if split == "held_out"]
    size = sum(table["bytes"]) if "bytes" in table else None
    return DataFacts(images, len(set(groups)), len(held_out), len(set(held_out)), size)


def _scored(paths: Iterable[Path], kind: type[Scores], problems: list[str]) -> Iterable[tuple[str, Scores]]:
    for path in paths:
        try:
            yield path.name, kind.from_json(path.read_text(encoding="utf-8"), source=path.name)
        except DataError as error:
            problems.append(str(error))
        except UnicodeDecodeError as error:
            problems.append(f"{path.name} could not be read ({error}).")


def _stored_values(path: Path, problems: list[str]) -> int | None:
    """Count the numbers of a safetensors file from its header alone."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        return sum(math.prod(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        problems.append(f"encoder/model.safetensors could not be read ({error}).")
        return None
