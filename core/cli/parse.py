"""Words of a command line into names and typed text; what they mean is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.config import FLAG, Typed
from core.errors import ConfigError

_FLAGS = ("help", "list", "plan", "resume", "overwrite")


@dataclass
class Given:
    """What was written.

    Attributes:
        preset: the word before the first option, or after a flag.
        out: value of `--out`.
        config: value of `--config`.
        gpus: value of `--gpus`.
        flags: of help, list, plan, resume, overwrite those that were named.
        leaves: every other option: typed text, a list of it, or `FLAG` where no value followed.
    """

    preset: str | None = None
    out: Path | None = None
    config: Path | None = None
    gpus: int | None = None
    flags: set[str] = field(default_factory=set)
    leaves: dict[str, object] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> Given:
    """Read `[PRESET] --name=value --name value value --flag ...`; PRESET may follow a flag instead.

    Raises:
        ConfigError: a word without an option, an option named twice, or a value where none belongs.
    """
    given, seen = Given(), set()
    words = ["--help" if word == "-h" else word for word in argv]
    at = 0
    if words and not words[0].startswith("--"):
        given.preset, at = words[0], 1
    while at < len(words):
        name, equals, value = words[at].removeprefix("--").partition("=")
        if not words[at].startswith("--"):
            if given.preset is None and words[at - 1].removeprefix("--") in _FLAGS:  # `--plan PRESET`
                given.preset, at = words[at], at + 1
                continue
            raise ConfigError(
                f"expected an option after '{words[at - 1]}', got '{words[at]}': "
                "a preset comes first, options follow as --name=value."
            )
        at += 1
        values = [value] if equals else []
        while not equals and name not in _FLAGS and at < len(words) and not words[at].startswith("--"):
            values.append(words[at])
            at += 1
        if name in seen:
            raise ConfigError(f"option --{name} is given twice: give it once; several values follow one another.")
        seen.add(name)
        _note(given, name, values, bool(equals))
    return given


def _note(given: Given, name: str, values: list[str], equals: bool) -> None:
    if name in _FLAGS:
        if equals:
            raise ConfigError(f"option --{name} takes no value, got '{values[0]}'.")
        given.flags.add(name)
    elif name in ("out", "config"):
        if len(values) != 1 or not values[0]:
            raise ConfigError(f"option --{name} takes one path, got {' '.join(values) or 'none'}.")
        setattr(given, name, Path(values[0]))
    elif name == "gpus":
        if len(values) != 1 or not values[0].isascii() or not values[0].isdigit() or int(values[0]) < 1:
            raise ConfigError(f"option --gpus takes one number of cards, 1 or more, got {' '.join(values) or 'none'}.")
        given.gpus = int(values[0])
    elif not values:
        given.leaves[name] = FLAG
    else:
        given.leaves[name] = Typed(values[0]) if len(values) == 1 else [Typed(value) for value in values]
