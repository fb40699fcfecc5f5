"""Frozen dataclasses to plain trees (YAML, JSON, command line) and back. Parts are named by `kind`, their file's stem.

What lives here: conversion, typed overrides and the digest. What does not: which options exist (dataclasses beside
their owners say that) and the command line itself (`core.cli`). Text that a person typed is a `Typed` string: it stays
text until the option's type is known, so that `on` is a name where a name is wanted and True where a truth is.
Longer than most files: reading, replacing and checking walk the same type hints and share every error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from core import registry
from core.errors import ConfigError, MissingDataError, nearest

T = TypeVar("T")
Tree = dict[str, Any]
KIND = "kind"
_COMMA = re.compile(
    r",(?![^\[\]]*\])"
)  # one between values, not one of a list inside a value: `geotiff.bands=[red,nir]`
FLAG = object()  # an option named without a value: True where a truth is wanted, an error elsewhere


class AbsentError(ConfigError):
    """An option without a default was not given."""


class Typed(str):
    """Text from a command line: read as YAML when the option wants anything but text."""

    __slots__ = ()


def to_dict(config: object) -> Tree:
    """Flatten a dataclass into plain dicts, lists and scalars; a part carries its name under `kind`."""
    assert dataclasses.is_dataclass(config), f"{config!r} is no dataclass object"
    tree: Tree = {KIND: registry.name_of(config)} if registry.kind_of(config) else {}
    return tree | {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    assert value is None or isinstance(value, (bool, int, float, str)), f"a config cannot hold {type(value).__name__}"
    return value


def from_dict(cls: type[T], tree: Mapping[str, Any], *, path: str = "") -> T:
    """Build the dataclass (or the part that `kind` names) from a plain tree.

    Raises:
        ConfigError: an unknown key (names the nearest), a missing one, or a value of the wrong type; says where.
    """
    built: T = _build(cls, tree, path)
    return built


def assemble(cls: type[T], tree: Mapping[str, Any], options: Mapping[str, object]) -> T:
    """Build from a tree after replacing leaves, `{"optim.lr": Typed("3e-4")}`; all are set before any is checked.

    A part is replaced by naming it (`recipe=mae`): its own defaults apply, what has no default is taken over from the
    part it replaces, and options below it are set afterwards.

    Raises:
        ConfigError: as `from_dict`; also for an index beyond the end of a list.
    """
    result: Any = dict(tree)
    for name in sorted(options, key=lambda option: option.count(".")):
        result = _place(cls, result, name.split("."), options[name], "", name)
    return from_dict(cls, result)


def override(config: T, options: Mapping[str, object]) -> T:
    """Give a copy of a config with single leaves replaced; see `assemble`."""
    return assemble(type(config), to_dict(config), options)


def merge(cls: type[T], base: Mapping[str, Any], tree: Mapping[str, Any]) -> T:
    """Lay a partial tree over a full one: options merge; lists, tables and parts of another kind replace as a whole."""
    return from_dict(cls, _merged(cls, base, tree, ""))


def _merged(hint: Any, base: Any, tree: Any, path: str) -> Any:
    hint = _without_none(hint)
    if not (_is_config(hint) and isinstance(base, Mapping) and isinstance(tree, Mapping)):
        return tree
    if tree.get(KIND, base.get(KIND)) != base.get(KIND):
        return tree
    hints = _hints(_part_class(hint, base, path))
    both = {n: _merged(hints[n], base[n], tree[n], _join(path, n)) for n in tree if n in base and n in hints}
    return dict(base) | dict(tree) | both


def leaves(config: object) -> dict[str, Any]:
    """List every option by its dotted path with its plain value; a part is listed by name, followed by its own."""
    return flatten(to_dict(config))


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """List the leaves of a plain tree by dotted path; entries of a list of trees are numbered."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        here = path if name == KIND and path else _join(path, name)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, here)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                found |= flatten(item, f"{here}.{index}")
        else:
            found[here] = value
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name each leaf in which two plain trees differ, with both values."""
    one, two = flatten(before), flatten(after)
    absent = "absent"
    return [
        f"{name}: {one.get(name, absent)} -> {two.get(name, absent)}"
        for name in sorted(one.keys() | two.keys())
        if one.get(name, absent) != two.get(name, absent)
    ]


def digest(config: object) -> str:
    """Hash a config (or plain tree) into 16 hex digits that depend on its values only, never on their order."""
    tree = config if isinstance(config, Mapping) else to_dict(config)
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def dump(tree: Mapping[str, Any]) -> str:
    """Write a plain tree as YAML, in its own order, short lists on one line."""
    import yaml

    return str(yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120))


def load(path: Path) -> Tree:
    """Read a YAML file into a plain tree.

    Raises:
        MissingDataError: no such file.
        ConfigError: not YAML (or YAML that wants to build objects), or not a mapping at the top.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"expected a config file, but {path} does not exist.") from None
    except OSError as error:
        raise ConfigError(f"expected a readable config file, but {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected plain YAML, got {' '.join(str(error).split())}.") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of options at the top, got {type(tree).__name__}.")
    return tree


# --- building ---------------------------------------------------------------------------------------------------------


def _build(cls: Any, tree: object, path: str) -> Any:
    if isinstance(tree, cls):
        return tree
    if _is_part(cls) and isinstance(tree, str):
        tree = {KIND: str(tree)}
    if not isinstance(tree, Mapping):
        raise _wrong(path, f"the options of {cls.__name__}", tree)
    owner = _part_class(cls, tree, path)
    values = {name: value for name, value in tree.items() if not (name == KIND and _is_part(owner))}
    fields = _fields(owner)
    for name in values:
        if name not in fields:
            raise unknown(_join(path, name), [_join(path, known) for known in fields])
    missing = [name for name, f in fields.items() if name not in values and _default(f) is dataclasses.MISSING]
    if missing:
        raise _absent(owner, missing, path)
    hints = _hints(owner)
    return owner(**{name: _coerce(hints[name], value, _join(path, name)) for name, value in values.items()})


def _absent(owner: Any, missing: list[str], path: str) -> AbsentError:
    """Compose the error for options without a default that were not given; of a part it lists what there is to name."""
    of = f" of {_part_name(owner)}" if _is_part(owner) else ""
    named = ", ".join(repr(_join(path, name)) for name in missing)
    cures = []
    for name in missing:
        hint = _without_none(_hints(owner)[name])
        if _is_part(hint):
            known = ", ".join(registry.names(hint.part_kind)) if _is_interface(hint) else registry.name_of_class(hint)
            cures.append(f"give it, as in --{_join(path, name)}=NAME, one of {known}; ")
    cure = "".join(cures) or "give it, "
    return AbsentError(
        f"expected a value for {named}{of}: there is no default; {cure}or start from a preset that does."
    )


def _coerce(hint: Any, value: Any, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if value is FLAG:
        if hint is not bool:
            raise ConfigError(f"{_named(path)} needs a value, as in --{path}=VALUE.")
        return True
    if origin in (Union, types.UnionType):
        return _coerce_union(args, value, path)
    if origin is Literal:
        return _coerce_literal(args, value, path)
    if origin is tuple:
        return _coerce_tuple(args, value, path)
    if origin in (dict, typing.Mapping, Mapping):
        value = _parsed(value)
        if not isinstance(value, Mapping):
            raise _wrong(path, "a mapping from names to values", value)
        return {str(name): _coerce(args[1], item, _join(path, str(name))) for name, item in value.items()}
    if _is_config(hint):
        return _build(hint, value if _is_part(hint) and isinstance(value, str) else _parsed(value), path)
    if hint in (str, Path):
        if not isinstance(value, (str, Path)):
            raise _wrong(path, "text", value)
        return hint(str(value))
    assert hint in (bool, int, float), f"{path}: a config cannot hold {hint}"
    return _coerce_number(hint, _parsed(value), path)


def _coerce_number(hint: type[Any], value: Any, path: str) -> Any:
    if hint is bool:
        if not isinstance(value, bool):
            raise _wrong(path, "true or false", value)
        return value
    number: Any = value
    if isinstance(value, str):  # YAML 1.1 takes 3e-4 and 1e4 for text
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise _wrong(path, "a whole number" if hint is int else "a finite number", value)
    if hint is int and number != int(number):
        raise _wrong(path, "a whole number", value)
    return hint(number)


def _coerce_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    others = [arg for arg in args if arg is not type(None)]
    if len(others) < len(args) and _is_none(value):
        return None
    errors = []
    for hint in others:
        try:
            return _coerce(hint, value, path)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise ConfigError(f"{_named(path)}: no form fits {_show(value)}: " + " Or: ".join(map(str, errors)))


def _coerce_literal(args: tuple[Any, ...], value: Any, path: str) -> Any:
    for candidate in (value, _parsed(value)):
        for arg in args:
            if type(arg) in (type(candidate), *type(candidate).__mro__[1:2]) and arg == candidate:
                return arg
    choices = ", ".join(map(str, args))
    raise ConfigError(f"{_named(path)}: expected one of {choices}, got {_show(value)}.")


def _coerce_tuple(args: tuple[Any, ...], value: Any, path: str) -> Any:
    if isinstance(value, Typed):
        text, parsed = value, _parsed(value)
        parsed_is_list = isinstance(parsed, list)
        value = parsed if parsed_is_list else [Typed(piece.strip()) for piece in _COMMA.split(text) if piece.strip()]
    if not isinstance(value, (list, tuple)):
        raise _wrong(path, "a list", value)
    endless = len(args) == 2 and args[1] is Ellipsis
    if not endless and len(value) != len(args):
        raise _wrong(path, f"{len(args)} values", value)
    hints = [args[0]] * len(value) if endless else args
    return tuple(_coerce(hint, item, f"{path}.{i}") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, Typed) and value.lower() in ("none", "null", "~"))


def _parsed(value: Any) -> Any:
    if not isinstance(value, Typed):
        return value
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return str(value)


# --- placing one leaf -------------------------------------------------------------------------------------------------


def _place(hint: Any, node: Any, pieces: list[str], value: object, path: str, full: str) -> Any:
    optional, hint = type(None) in get_args(hint), _without_none(hint)
    if not pieces:
        if optional and _is_none(value):
            return None
        if _is_part(hint) and isinstance(node, Mapping) and isinstance(value, str):
            return _renamed(hint, node, value, path)
        return value
    head, rest = pieces[0], pieces[1:]
    here = _join(path, head)
    if get_origin(hint) is tuple and isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ConfigError(f"no option is called '{full}': '{path}' has {len(node)} entries, counted from 0.")
        entry = get_args(hint)[0 if get_args(hint)[-1] is Ellipsis else int(head)]
        return [*node[: int(head)], _place(entry, node[int(head)], rest, value, here, full), *node[int(head) + 1 :]]
    if isinstance(node, Mapping) and get_origin(hint) in (dict, typing.Mapping, Mapping):
        if head not in node:
            raise _no_entry(hint, node, pieces, value, path)
        return dict(node) | {head: _place(get_args(hint)[1], node[head], rest, value, here, full)}
    if _is_part(hint) and isinstance(node, str):
        node = {KIND: str(node)}
    if not _is_config(hint):
        raise ConfigError(f"no option is called '{full}': '{path}' is a single value.")
    owner = _part_class(hint, node if isinstance(node, Mapping) else {}, path)
    fields = _fields(owner)
    node = dict(node) if isinstance(node, Mapping) else {}
    if head not in fields:
        raise unknown(full, {*flatten(node, path), *(_join(path, name) for name in fields)} - {KIND})
    default = _default(fields[head])
    child = node.get(head, None if default is dataclasses.MISSING else _plain(default))
    return node | {head: _place(_hints(owner)[head], child, rest, value, here, full)}


def _no_entry(hint: Any, table: Mapping[str, Any], pieces: list[str], value: object, path: str) -> ConfigError:
    """Compose the error for an entry that a table lacks: entries are replaced one by one, but added with the table."""
    full = ".".join([path, *pieces])
    error = unknown(full, [_join(path, name) for name in table])
    if len(pieces) > 1 or _is_config(get_args(hint)[1]):
        return error
    try:
        whole = _plain(_coerce(hint, dict(table) | {pieces[0]: value}, path))
    except ConfigError:
        return error
    import yaml

    text = yaml.safe_dump(whole, default_flow_style=True, sort_keys=False, width=math.inf).strip().replace("'", '"')
    cure = f"give the whole table: --{path}='{text}'"
    return ConfigError(f"{error} Or {cure}" if table else f"no option is called '{full}': {cure}")


def _renamed(hint: Any, node: Mapping[str, Any], value: str, path: str) -> Any:
    """Exchange a part for another one: what the new part needs and has no default for is taken over from the old."""
    if node.get(KIND) == value:
        return node
    fields = _fields(_part_class(hint, {KIND: str(value)}, path))
    needed = [name for name, field in fields.items() if _default(field) is dataclasses.MISSING]
    return {KIND: str(value)} | {name: node[name] for name in needed if name in node}


# --- small change -----------------------------------------------------------------------------------------------------


def unknown(name: str, known: Iterable[str]) -> ConfigError:
    """Compose the error for an option that does not exist, naming the one that was probably meant."""
    known = sorted(known)
    ending = [option for option in known if option.endswith(f".{name}")]
    if ending:
        cure = f"did you mean {' or '.join(repr(option) for option in ending)}?"
    elif (cure := nearest(name, known)).startswith("known") and len(known) > 12:
        cure = "--help lists them all."
    return ConfigError(f"no option is called '{name}': {cure}")


def _is_part(hint: Any) -> bool:
    return isinstance(hint, type) and hasattr(hint, "part_kind")


def _is_config(hint: Any) -> bool:
    return _is_part(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def _without_none(hint: Any) -> Any:
    """Give T for `T | None`, anything else as it is."""
    members = [arg for arg in get_args(hint) if arg is not type(None)]
    return members[0] if get_origin(hint) in (Union, types.UnionType) and len(members) == 1 else hint


def _part_class(cls: Any, tree: Mapping[str, Any], path: str) -> Any:
    if not _is_part(cls):
        return cls
    name = tree.get(KIND)
    if name is None:
        if _is_interface(cls):
            choices = ", ".join(registry.names(cls.part_kind))
            raise ConfigError(f"{_named(path)}: expected the name of one of {cls.part_kind} under 'kind': {choices}.")
        return cls
    try:
        found = registry.get(cls.part_kind, str(name))
    except ConfigError as error:
        raise ConfigError(f"{_named(path)}: {error}") from None
    if not issubclass(found, cls):
        raise _wrong(path, f"the {_part_name(cls)}", name)
    return found


def _is_interface(part: Any) -> bool:
    """True for the interface of a folder, False for one part of it."""
    return bool(part.__module__.endswith(".base"))


def _part_name(part: Any) -> str:
    """Name a part's class as people type it: `teacher 'ema'`."""
    return f"{part.part_kind.rstrip('s')} '{registry.name_of_class(part)}'"


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _named(path: str) -> str:
    return f"option '{path}'" if path else "the options"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _show(value: Any) -> str:
    return repr(str(value)) if isinstance(value, Typed) else repr(value)


def _wrong(path: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{_named(path)}: expected {expected}, got {_show(value)}.")
