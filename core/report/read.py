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
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from core.config import load
from core.errors import DataError, MissingDataError
from core.evaluate.curve import Curve
from core.evaluate.table import Row, Table
from core.report.collection import DataFacts, label_of, nouns, read_data

Points = list[tuple[float, float]]
Scores = TypeVar("Scores", Table, Curve)


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
        scores: rows of `scores.json`, which `finetune` writes.
        head: `head.json`, which `finetune` writes; None = a pretraining.
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
    scores: tuple[Row, ...]
    head: dict[str, Any] | None
    stored_values: int | None
    problems: tuple[str, ...]

    @cached_property
    def _of_stream(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Events by their kind and the name of their stream."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for kind, events in (("step", self.steps), ("validation", self.validations)):
            for event in events:
                found.setdefault((kind, str(event.get("stream") or "all")), []).append(event)
        return found

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams in order of appearance."""
        return tuple(dict.fromkeys(stream for _, stream in self._of_stream))

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
        found = []
        for event in self._of_stream.get((events, stream), ()):
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
    panels = _panels(figures / "panels.json", problems)
    drawn = {column.get("file") for row in (panels or {}).get("rows", []) for column in row["columns"]}
    others = [
        p for p in sorted(figures.glob("*.png")) if p.is_file() and p.name not in drawn and p.name[:6] != "panel_"
    ]
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
        data=read_data(path / "data.parquet", nouns(config), label_of(config), problems),
        panels=panels,
        pictures=tuple(others),
        tables=tuple(_scored(sorted(path.glob("evaluation*.json")), Table, problems)),
        curves=tuple(_scored(sorted(path.glob("label_efficiency*.json")), Curve, problems)),
        scores=_rows(path / "scores.json", problems),
        head=_json(path / "head.json", problems),
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


def _panels(path: Path, problems: list[str]) -> dict[str, Any] | None:
    content = _json(path, problems)
    if content is None:
        return None
    rows = content.get("rows", [])
    whole = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    columns = [column for row in rows for column in listed(row.get("columns"))] if whole else [None]
    names = [entry for entry in listed(content.get("legend")) if not _is_named_colour(entry)]
    if names or not all(isinstance(column, dict) for column in columns):
        problems.append(f"{path.name} does not hold rows of pictures, and none is shown.")
        return None
    return {**content, "rows": [{**row, "columns": listed(row.get("columns"))} for row in rows]}


def _is_named_colour(entry: Any) -> bool:
    """Tell [name, [red, green, blue]]."""
    whole = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list) and len(entry[1]) == 3
    return whole and all(isinstance(part, int) for part in entry[1])


def listed(value: Any) -> list[Any]:
    """Give a JSON value as a list; what is none becomes empty."""
    return value if isinstance(value, list) else []


def _rows(path: Path, problems: list[str]) -> tuple[Row, ...]:
    if not path.is_file():
        return ()
    try:
        return tuple(Row(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        problems.append(f"{path.name} could not be read ({error}).")
        return ()


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
