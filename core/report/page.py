"""The page itself: sections in order, pictures as data, and the atomic write of `report.html`."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from core.checkpoint import publish_text
from core.config import dump
from core.errors import RunFolderError
from core.report.charts import show
from core.report.curves import losses, pace, waits
from core.report.evaluations import evaluations
from core.report.facts import facts
from core.report.finetuned import render_finetuned
from core.report.html import document, figure, folded, leads, legend, picture, png, section, tiles
from core.report.html import notes as noted
from core.report.html import warnings as warned
from core.report.panels import panels, with_nodata
from core.report.read import Run, listed, number, read_run
from core.report.words import duration, headline, progress

_PATTERNS = (
    ("hidden", "hidden from the encoder"),
    ("tint", "hidden, as overlay"),
    ("nodata", "no data, or a rim with too little of it"),
)

_OF_RECONSTRUCTIONS = (
    "Only hidden patches are predicted and scored. In the reconstruction the visible patches are copied from the "
    "original, so seams show where the prediction is off.",
    "Where patches are normalised before they are predicted, the picture uses the hidden patch's own mean and spread "
    "to show it: its brightness and contrast are given, its structure is the model's.",
)

_NOTES = (
    "The pictures of one row share one grey scale, taken from its original; target and prediction of a further map "
    "share another.",
    "Validation always hides the same patches of the same held-out images, so its curve moves with the model alone. "
    "The training loss meets new images, crops and masks at every step.",
    "A falling loss says that the task is being learnt, not that the features are useful: the scores against both "
    "baselines are for that.",
)


def write_report(
    run: Path,
    *,
    title: str | None = None,
    notes: Sequence[str] | None = None,
    warnings: Sequence[str] | None = None,
    command: str | Sequence[str] | None = None,
) -> Path:
    """Write `report.html` of a run folder, at any time: during the run, after a resume, after an evaluation.

    What is not given here is as the last report of this folder had it (`figures/report.json`).

    Args:
        run: the run folder; it must hold a `config.yaml`, everything else may be missing.
        title: domain and preset, such as `Retina, preset tiny`; at first the folder's name.
        notes: facts shown on top, such as how many images there are; at first none.
        warnings: what a reader has to know first, such as that the images are synthetic; at first none.
        command: the command line that repeats the run, as text or as its words.

    Raises:
        MissingDataError: the folder is no run.
        ConfigError: its `config.yaml` cannot be read.
        RunFolderError: the page cannot be written.
    """
    kept = run / "figures" / "report.json"
    read, said = read_run(run), _said(kept)
    words = command if command is None or isinstance(command, str) else shlex.join(command)
    told: dict[str, Any] = {
        "title": title if title is not None else str(said.get("title") or run.resolve().name),
        "notes": _kept(said, "notes") if notes is None else list(notes),
        "warnings": _kept(said, "warnings") if warnings is None else list(warnings),
        "command": words if words is not None else str(said.get("command") or ""),
    }
    draw = render if read.head is None else render_finetuned
    page = draw(read, **told)
    try:
        kept.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{kept.parent}: expected a folder that can be written, got: {error.strerror}.") from None
    publish_text(kept, json.dumps(told))
    publish_text(run / "report.html", page)
    return run / "report.html"


def _said(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or cut off: the next report writes it anew
        return {}
    return said if isinstance(said, dict) else {}


def _kept(said: Mapping[str, Any], name: str) -> list[str]:
    return [str(sentence) for sentence in listed(said.get(name))]


def render(run: Run, *, title: str, notes: Sequence[str], warnings: Sequence[str], command: str) -> str:
    """Give the whole page of a pretraining as text."""
    sections = [
        section("What ran", "", facts(run, command)),
        section(
            "Losses",
            "Validation: held-out images under masks that never change.",
            losses(run),
        ),
        section("Pace", "Waiting for data is the share of a step in which the model stood still.", pace(run)),
        section(
            "Reconstructions" if _predicted(run) else "What was hidden",
            _panels_say(run),
            _swatches(run) + panels(run) + _more(run),
        ),
        section("What the features are worth", "", evaluations(run)),
        section("How to read this", "", _how(run)),
        section("Full configuration", "", folded("config.yaml", dump(run.config))),
    ]
    header = leads(headline(run)) + noted([progress(run), *notes]) + warned((*warnings, *run.problems)) + _tiles(run)
    footer = f"Made from the run folder {run.path.resolve().name}."
    return document(title=title, kicker="halfseen pretraining report", header=header, sections=sections, footer=footer)


def _tiles(run: Run) -> str:
    entries = []
    for stream in run.streams:
        held_out = run.curve("validation", stream, "loss")
        if held_out:
            name = "Validation loss" if len(run.streams) == 1 else f"{stream.capitalize()} validation"
            entries.append((name, show(held_out[-1][1]), f"was {show(held_out[0][1])}" if len(held_out) > 1 else ""))
    for stream in run.streams:
        rates = [y for _, y in run.curve("step", stream, "samples_per_s") if math.isfinite(y)]
        if rates:
            lost = [y for _, y in waits(run, stream) if math.isfinite(y)]
            wait = f"median; {statistics.median(lost):.0f} % waiting for data" if lost else "median"
            name = "Images per second" if len(run.streams) == 1 else f"{stream.capitalize()}s per second"
            entries.append((name, show(statistics.median(rates)), wait))
    spent = [number(event.get("step_s")) for event in run.steps]
    if any(math.isfinite(s) for s in spent):
        seconds = sum(s for s in spent if math.isfinite(s))
        entries.append(("Time in steps", duration(seconds), f"{len(run.steps):,} logged steps"))
    return tiles(entries)


def _panels_say(run: Run) -> str:
    if run.panels is None:
        return ""
    step = run.panels.get("step")
    said = f"Held-out images{f' at step {step:,}' if isinstance(step, int) else ''}; none of them was trained on."
    if not _predicted(run):
        said += " The recipe predicts features, not images, so there is no prediction to look at."
    recipe = run.config.get("recipe")
    if isinstance(recipe, Mapping) and "views" in recipe:
        said += " Each image is shown as the first of its two views, with its crop and its colours."
    return said


def _swatches(run: Run) -> str:
    if not (run.panels or {}).get("rows"):
        return ""
    return legend((), _PATTERNS if with_nodata(run.panels or {}) else _PATTERNS[:-1])


def _predicted(run: Run) -> bool:
    """Say whether a prediction was drawn, or no panel yet."""
    names = {column.get("name") for row in (run.panels or {}).get("rows", []) for column in row["columns"]}
    return not names or bool(names - {"original", "seen", "mask"})


def _more(run: Run) -> str:
    figures = [figure(p.stem.replace("_", " "), picture(png(p.read_bytes()), p.stem)) for p in run.pictures]
    return f'<div class="more">{"".join(figures)}</div>' if figures else ""


def _how(run: Run) -> str:
    notes = [*(_OF_RECONSTRUCTIONS if _predicted(run) else ()), *_NOTES]
    if run.tables or run.curves:
        notes.append(
            "Whiskers cover the choice of test groups (patients, scenes, slides). They do not cover another training "
            "seed or another site. Judge a difference by its own paired interval, not by whether two whiskers overlap."
        )
    return f'<ul class="how">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'
