"""The section that says what ran: data, method, optimiser, machine, and the command that repeats it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.report.charts import show
from core.report.html import Fact, cards
from core.report.read import Run
from core.report.words import counted

_NONE: tuple[Any, ...] = (None, "", [], ())


def facts(run: Run, command: str) -> str:
    """Draw the facts of a run as cards, and the command below them where one is known."""
    named = [
        ("Data", _data(run)),
        ("Method", _method(run)),
        ("Optimisation", _optimisation(run)),
        ("Machine and versions", machine(run)),
    ]
    return cards(named, command)


def machine(run: Run) -> list[Fact]:
    """Give what is known of where a run ran."""
    return lines({**run.env, **run.facts}) or [("", "not recorded")]


def _data(run: Run) -> list[Fact]:
    data = _mapping(run.config.get("data"))
    paths = data.get("paths") or ["the domain's embedded sample set"]
    entries = [("from", str(path)) for path in (paths if isinstance(paths, list | tuple) else [paths])]
    if run.data is not None:
        entries += [(kind, f"{count:,}") for kind, count in run.data.images.items()]
        total = sum(run.data.images.values())
        share = f", {100 * run.data.held_out_images / total:.0f} % of the images" if total else ""
        entries.append(("groups", f"{run.data.groups:,}"))
        held_out = (
            f"{counted(run.data.held_out_images, 'image')} in {counted(run.data.held_out_groups, 'group')}{share}"
        )
        entries.append(("held out", held_out))
        if run.data.file_bytes is not None:
            entries.append(("on disk", f"{run.data.file_bytes / 1e6:,.1f} MB"))
    else:
        entries.append(("held out", f"share {_text(data.get('held_out', 'not recorded'))}"))
    for stream in data.get("streams") or []:
        if isinstance(stream, Mapping):
            rest = {name: value for name, value in stream.items() if name != "input"}
            entries.append((f"{stream.get('input', 'stream')} batches", _inline(rest)))
    return entries


def _method(run: Run) -> list[Fact]:
    recipe = run.config.get("recipe")
    if not isinstance(recipe, Mapping):
        return [("recipe", _text(recipe))]
    entries = [("recipe", _text(recipe.get("kind", "not recorded")))]
    entries += lines({name: value for name, value in recipe.items() if name != "kind"})
    if run.stored_values is not None:
        entries.append(("encoder size", f"{run.stored_values:,} stored values"))
    return entries


def _optimisation(run: Run) -> list[Fact]:
    planned = show(run.planned_steps if run.planned_steps is not None else math.nan)
    return [("steps", planned), *lines({"seed": run.config.get("seed"), **_mapping(run.config.get("optim"))})]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def lines(tree: Mapping[str, Any], prefix: str = "") -> list[Fact]:
    """Give one fact per plain entry and one per nested mapping, whose own plain entries share a line."""
    entries: list[Fact] = []
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            plain = {k: v for k, v in value.items() if not _nested(v)}
            if plain:
                entries.append((name, _inline(plain)))
            entries += lines({k: v for k, v in value.items() if _nested(v)}, f"{name} ")
        elif _nested(value):
            one = str(key).removesuffix("s").replace("_", " ")
            for i, entry in enumerate(value):
                named = _mapping(entry)
                label = f"{one} {named.get('name', i + 1)}"
                entries += lines({label: {k: v for k, v in named.items() if k != "name"} if named else entry})
        elif value not in _NONE:
            entries.append((name, _text(value, key)))
    return entries


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value)
    )


def _inline(plain: Mapping[str, Any]) -> str:
    """Write plain entries in one line, the kind of a part first and without its name."""
    kind = [_text(plain["kind"])] if "kind" in plain else []
    rest = (f"{k.replace('_', ' ')} {_text(v, k)}" for k, v in plain.items() if k != "kind" and v not in _NONE)
    return "; ".join([*kind, *rest])


def _text(value: Any, of: str = "") -> str:
    """Write the value of an option `of` some name; several whole numbers are a size, where the name is no plural."""
    if isinstance(value, Mapping):
        return f"({_inline(value)})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return show(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        parts = [f"({_text(part)})" if isinstance(part, list | tuple) else _text(part) for part in value]
        if len(parts) > 3 and len(set(parts)) == 1:
            return f"{parts[0]}, {len(parts)} times"
        return (" × " if _is_size(value) and not of.endswith("s") else ", ").join(parts)
    return str(value)


def _is_size(value: Sequence[Any]) -> bool:
    return len(value) in (2, 3) and all(isinstance(v, int) and not isinstance(v, bool) and v > 1 for v in value)
