"""The catalogue of public data sets: one file per set; the folder is the registry and a file's stem is the set's name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from core.errors import ConfigError, nearest
from datasets.catalogue.base import Entry


@cache
def names() -> tuple[str, ...]:
    """The names of all sets; nothing is imported."""
    found = (module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


@cache
def get(name: str) -> Entry:
    """What the catalogue says of one set.

    Raises:
        ConfigError: there is none of this name; the message names the nearest.
    """
    if name not in names():
        raise ConfigError(f"the catalogue has no set called '{name}': {nearest(name, names())}")
    entry = importlib.import_module(f"{__name__}.{name}").ENTRY
    assert isinstance(entry, Entry), f"datasets/catalogue/{name}.py must define ENTRY"
    return entry
