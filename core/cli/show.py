"""What `--help` and `--list` print; option texts are the `Attributes` sections of the config's own docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core import registry

_SWITCHES = {
    "out": ("--out PATH", "file or folder to write."),
    "config": (
        "--config FILE",
        "a YAML file of options, such as a run's config.yaml; laid over the preset, if both are given.",
    ),
    "list": ("--list", "describe the presets, and the recipes where there are any, and leave."),
    "plan": ("--plan", "print size, cost and length without doing anything."),
    "gpus": ("--gpus N", "with --plan: memory of each of N cards, samples per second and days."),
    "resume": ("--resume", "continue the run in --out from its newest checkpoint that verifies."),
}


@dataclass(frozen=True)
class Leaf:
    """One option.

    Attributes:
        path: dotted name.
        value: the default as typed, or None where one must be given.
        text: what it means.
    """

    path: str
    value: str | None
    text: str


def attributes(cls: type[Any]) -> dict[str, str]:
    """Read the `Attributes:` section of a class's docstring: name -> text, lines joined."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in (inspect.getdoc(cls) or "").splitlines():
        entry = re.match(r" {4}(\w+): (.*)", line)
        if line.strip() == "Attributes:":
            inside = True
        elif inside and entry:
            name = entry[1]
            found[name] = entry[2]
        elif inside and line.startswith(" " * 8) and name:
            found[name] += " " + line.strip()
        elif inside and line.strip() and not line.startswith(" "):
            break
    return found


def leaves(cls: type[Any], config: object | None, path: str = "") -> Iterator[Leaf]:
    """List every option of a config, in the order of its dataclasses; without a config, of the class's own defaults."""
    texts, hints = attributes(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.init:
            value = _default(field) if config is None else getattr(config, field.name)
            here = f"{path}.{field.name}" if path else field.name
            yield from _leaf(here, value, hints[field.name], texts.get(field.name, ""))


def _leaf(path: str, value: Any, hint: Any, text: str) -> Iterator[Leaf]:
    kind = getattr(hint, "part_kind", None)
    if kind:
        choices = ", ".join(registry.names(kind))
        yield Leaf(
            path, None if value is dataclasses.MISSING else registry.name_of(value), f"{text} One of {choices}.".strip()
        )
    if value is dataclasses.MISSING:
        if not kind and dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from leaves(hint, None, path)
        elif not kind:
            yield Leaf(path, None, text)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from leaves(type(value), value, path)
    elif isinstance(value, tuple) and value and all(dataclasses.is_dataclass(item) for item in value):
        for index, item in enumerate(value):
            yield from leaves(type(item), item, f"{path}.{index}")
    else:
        if typing.get_origin(hint) is Literal:
            text = f"{text} One of {', '.join(map(str, typing.get_args(hint)))}.".strip()
        yield Leaf(path, _typed(value), text)


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_typed, value))}]" if value else "[]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_typed(item)}" for name, item in value.items()) + "}"
    return str(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def list_text(presets: Mapping[str, Callable[[], Any]]) -> str:
    """Describe presets by the first line of their docstrings."""
    return _columns([(name, (inspect.getdoc(make) or "").partition("\n")[0]) for name, make in presets.items()])


def recipes_text() -> str:
    """Describe every recipe: what it does, its compute beside MAE's, what its encoder must be able to do, its paper."""
    from core.recipes._facts import list_recipes  # imports every recipe

    rows = [
        (r.name, f"{r.summary}. Compute {r.cost:.2f}; encoder: {', '.join(r.needs)}; {r.paper}.")
        for r in list_recipes()
    ]
    return "Recipes, chosen with --recipe NAME; compute in that of mae\n" + _columns(rows)


def help_text(
    program: str,
    description: str,
    cls: type[Any],
    presets: Mapping[str, Callable[[], Any]] | None,
    preset: str | None,
    switches: list[str],
    aliases: Mapping[str, str],
    overwrites: str,
) -> str:
    """Compose the whole page: verb, presets, switches, and every leaf with its default in the chosen (or first) preset."""
    chosen = preset or next(iter(presets or {}), None)
    config = presets[chosen]() if presets and chosen else None
    found = list(leaves(cls, config))
    named = {leaf.path: leaf for leaf in found}
    rows = [(_short(short, named[path]), f"short for --{path}: {named[path].text}") for short, path in aliases.items()]
    rows += [_SWITCHES[name] for name in switches]
    rows.append(("--overwrite", overwrites))
    blocks = [
        f"Usage: python -m {program} {'[PRESET] ' if presets else ''}[--<option>=value ...]",
        inspect.cleandoc(description),
    ]
    if presets and preset:
        blocks.append(f"Preset {preset}\n" + textwrap.indent(inspect.getdoc(presets[preset]) or "", "  "))
    elif presets:
        blocks.append("Presets\n" + list_text(presets))
    blocks.append("Switches\n" + _columns([*rows, ("--help", "print this; after a preset, with its values.")]))
    title = f"Options, with the values of preset '{chosen}'" if chosen else "Options"
    sections: dict[str, list[str]] = {}
    for leaf in found:
        sections.setdefault(leaf.path.partition(".")[0], []).append(_entry(leaf))
    blocks.append(f"{title}\n" + "\n\n".join("\n".join(entries) for entries in sections.values()))
    return "\n\n".join(blocks)


def _short(name: str, leaf: Leaf) -> str:
    """Show a short name as it is typed; a truth is switched on by its name alone."""
    return f"--{name.replace('_', '-')}" + ("" if leaf.value in ("true", "false") else " VALUE ...")


def _entry(leaf: Leaf) -> str:
    head = f"  --{leaf.path}={leaf.value}" if leaf.value is not None else f"  --{leaf.path}=...  (required)"
    return "\n".join([head, *_wrapped(leaf.text, " " * 6)])


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, text in rows:
        first, *rest = _wrapped(text, " " * (width + 2)) or [""]
        lines += [f"  {name:<{width}}{first.strip()}".rstrip(), *rest]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    width = max(60, min(100, shutil.get_terminal_size().columns))
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
