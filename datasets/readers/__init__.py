"""Opening files: `open_image` finds the reader by a file's content; a reader is one file in this folder."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from core.config import Typed, override
from core.errors import ConfigError, DamagedError, DataError, MissingDataError, UnsupportedError, nearest
from datasets.image import LazyImage
from datasets.readers.base import Reader
from datasets.safety import local


@cache
def readers() -> tuple[Reader, ...]:
    """Every reader of this folder with its default options, in the order of their names."""
    found = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        if module.name == "base" or module.name.startswith("_"):
            continue
        name = f"{__name__}.{module.name}"
        own = [c for c in vars(importlib.import_module(name)).values() if inspect.isclass(c) and c.__module__ == name]
        classes = [c for c in own if issubclass(c, Reader)]
        assert len(classes) == 1, f"datasets/readers/{module.name}.py must define exactly one reader, has {classes}"
        found.append(classes[0]())
    return tuple(found)


def name_of(reader: Reader) -> str:
    """The name of a reader: the stem of its file."""
    return type(reader).__module__.rpartition(".")[2]


def configured(options: Iterable[str]) -> tuple[Reader, ...]:
    """Every reader, with options set as a person types them: `nifti.affine=sform`, `geotiff.bands=[red, nir]`.

    Raises:
        ConfigError: no such reader or option, or a value that does not fit; the message names the nearest.
    """
    typed: dict[str, dict[str, object]] = defaultdict(dict)
    names = [name_of(reader) for reader in readers()]
    for option in options:
        key, equals, value = option.partition("=")
        name, dot, field = key.partition(".")
        if not (equals and dot):
            raise ConfigError(
                f"expected a reader's option such as nifti.affine=sform, got '{option}'; paths come before options."
            )
        if name not in names:
            raise ConfigError(f"no reader is called '{name}': {nearest(name, names)}")
        typed[name][field] = Typed(value)
    return tuple(_with(reader, typed[name]) for name, reader in zip(names, readers(), strict=True))


def _with(reader: Reader, options: dict[str, object]) -> Reader:
    try:
        return override(reader, options) if options else reader
    except ConfigError as error:
        raise ConfigError(f"reader '{name_of(reader)}': {error}") from None


def options_of(reader: Reader) -> list[str]:
    """The options of a reader that are not its defaults, as `configured` takes them."""
    plain = next(entry for entry in readers() if type(entry) is type(reader))
    changed = [f.name for f in dataclasses.fields(reader) if getattr(reader, f.name) != getattr(plain, f.name)]  # type: ignore[arg-type]
    values = {name: getattr(reader, name) for name in changed}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return [f"{name_of(reader)}.{name}={text}" for name, text in texts.items()]


def suffixes(chosen: tuple[Reader, ...] | None = None) -> tuple[str, ...]:
    """File name endings that a folder scan picks."""
    return tuple(suffix for reader in chosen or readers() for suffix in reader.suffixes)


def is_image_folder(folder: Path, chosen: tuple[Reader, ...] = ()) -> bool:
    """Say whether a folder as a whole is one image: a Zarr store, a scene of one file per band, a DICOM series."""
    return any(reader.recognises(folder, b"") for reader in chosen or readers())


def open_image(path: str | Path, *chosen: Reader) -> LazyImage:
    """Open an image by its content, whatever its name says; no pixel is read.

    Give `chosen` readers to set their options, for instance `Nifti(affine="sform")`; by default all are tried.

    Raises:
        MissingDataError: there is no such file.
        UnsafeError: the path is a URL, a driver prefix or the like.
        DataError: it is empty, damaged, of no known format or beyond a reader's budget; the message names it.
    """
    return find_reader(path, *chosen).open(local(path))


def find_reader(path: str | Path, *chosen: Reader) -> Reader:
    """Give the reader that recognises a file or folder; raises as `open_image` does."""
    path = local(path)
    head = b"" if path.is_dir() else _head(path)
    for reader in chosen or readers():
        if reader.recognises(path, head):
            return reader
    endings = ", ".join(dict.fromkeys(suffixes(chosen or None)))
    if path.is_dir():
        raise DataError(f"{path}: expected an image, got a folder that is none; give the images in it ({endings}).")
    raise UnsupportedError(
        f"{path}: expected an image ({endings}), but its content is none of these (it begins with the bytes "
        f"{head[:8].hex(' ')}); copy it again, convert it or remove it."
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise MissingDataError(f"expected an image, but {path} does not exist{_beside(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check its permissions.") from None
    if not head:
        raise DamagedError(f"{path}: expected an image, got an empty file (0 bytes); copy it again or remove it.")
    return head


def _beside(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"; {nearest(path.name, siblings)}" if 0 < len(siblings) <= 10_000 else "."
