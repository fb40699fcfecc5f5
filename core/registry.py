"""The folder is the registry: a part's name is its file's stem, found by looking, never by registering."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from core.errors import ConfigError, nearest

_NOT_PARTS = {"base", "load"}


@cache
def names(kind: str) -> tuple[str, ...]:
    """List the parts of a kind (`maskers`, `targets`, `recipes`, ...): the files of that folder, nothing imported."""
    spec = importlib.util.find_spec(f"core.{kind}")
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(f"expected a folder of parts, got '{kind}'.")
    found = (module.name for module in pkgutil.iter_modules(spec.submodule_search_locations) if not module.ispkg)
    return tuple(sorted(name for name in found if name not in _NOT_PARTS and not name.startswith("_")))


@cache
def get(kind: str, name: str) -> type[Any]:
    """Import one part and give its class: the one in that file that derives from the folder's interface.

    Raises:
        ConfigError: no such part; the message names the nearest.
    """
    if name not in names(kind):
        raise ConfigError(f"no {kind.rstrip('s')} is called '{name}': {nearest(name, names(kind))}")
    interface = _defined(f"core.{kind}.base", lambda value: getattr(value, "part_kind", None) == kind)
    return _defined(f"core.{kind}.{name}", lambda value: issubclass(value, interface))


def _defined(module_name: str, wanted: Callable[[type[Any]], bool]) -> type[Any]:
    module = importlib.import_module(module_name)
    own = (value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module_name)
    found = [value for value in own if wanted(value)]
    assert len(found) == 1, f"{module_name} must define exactly one such class, has {found}"
    return found[0]


def name_of(part: object) -> str:
    """Give the name of a part: the stem of the file that defines it."""
    return name_of_class(type(part))


def name_of_class(cls: type[Any]) -> str:
    """Give the name of a part's class: the stem of the file that defines it."""
    return cls.__module__.rpartition(".")[2]


def kind_of(part: object) -> str | None:
    """Give the folder of a part (its interface's `part_kind`), or None for an object that is no part."""
    return getattr(type(part), "part_kind", None)
