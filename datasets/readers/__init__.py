"""Opening files: `open_image` finds the reader by a file's content; a reader is one file in this folder."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

from core.errors import DataError, MissingDataError, nearest
from datasets.image import LazyImage
from datasets.readers.base import Reader


@cache
def readers() -> tuple[Reader, ...]:
    """Every reader of this folder with its default options, in the order of their names."""
    found = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        if module.name == "base" or module.name.startswith("_"):
            continue
        parts = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        classes = [c for c in parts if inspect.isclass(c) and issubclass(c, Reader) and c is not Reader]
        assert len(classes) == 1, f"datasets/readers/{module.name}.py must define exactly one reader, has {classes}"
        found.append(classes[0]())
    return tuple(found)


def suffixes(chosen: tuple[Reader, ...] | None = None) -> tuple[str, ...]:
    """File name endings that a folder scan picks."""
    return tuple(suffix for reader in chosen or readers() for suffix in reader.suffixes)


def open_image(path: str | Path, *chosen: Reader) -> LazyImage:
    """Open an image by its content, whatever its name says; no pixel is read.

    Give `chosen` readers to set their options, for instance `Nifti(affine="sform")`; by default all are tried.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is empty, damaged, of no known format or beyond a reader's budget; the message names it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise MissingDataError(f"expected an image, but {path} does not exist{_beside(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check its permissions.") from None
    if not head:
        raise DataError(f"{path}: expected an image, got an empty file (0 bytes); copy it again or remove it.")
    for reader in chosen or readers():
        if reader.recognises(head):
            return reader.open(path)
    raise DataError(
        f"{path}: expected an image ({', '.join(suffixes(chosen or None))}), but its content is none of these (it "
        f"begins with {head[:8]!r}); copy it again, convert it or remove it."
    )


def _beside(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"; {nearest(path.name, siblings)}" if 0 < len(siblings) <= 10_000 else "."
