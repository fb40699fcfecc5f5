"""Writing images from a stream of windows, in flat memory; a writer is one file in this folder.

`write_image` pulls windows from an iterable, `writing` takes them as they are pushed.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from core.errors import DataError, HalfseenError, RunFolderError, UnsupportedError
from core.preprocess import Window
from datasets.image import LazyImage
from datasets.publishing import draft_of, publish, remove, spool_of
from datasets.safety import local
from datasets.writers.base import Facts, Part, Parts, Writer, checked

__all__ = ["Facts", "Parts", "Writer", "find_writer", "plan", "write_image", "writers", "writing"]


@cache
def writers() -> tuple[Writer, ...]:
    """Every writer of this folder with its default options, in the order of their names."""
    found = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        if module.name == "base" or module.name.startswith("_"):
            continue
        parts = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        classes = [c for c in parts if inspect.isclass(c) and issubclass(c, Writer) and c is not Writer]
        assert len(classes) == 1, f"datasets/writers/{module.name}.py must define exactly one writer, has {classes}"
        found.append(classes[0]())
    return tuple(found)


def find_writer(path: str | Path) -> Writer:
    """Give the writer for a file name, by its ending.

    Raises:
        UnsupportedError: no format has that ending.
    """
    for writer in writers():
        if Path(path).name.lower().endswith(writer.suffixes):
            return writer
    endings = ", ".join(ending for writer in writers() for ending in writer.suffixes)
    raise UnsupportedError(f"{path}: expected a name that ends in one of {endings}; rename it.")


def plan(path: str | Path, facts: Facts, *, writer: Writer | None = None) -> Iterator[Window]:
    """Give windows that cover the image once, in the order and size that is cheapest to write under this name."""
    block = (writer or find_writer(path)).block(facts)
    starts = [range(0, n, b) for n, b in zip(facts.size, block, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, min(n, a + b)) for a, n, b in zip(corner, facts.size, block, strict=True))


def write_image(
    path: str | Path,
    facts: Facts | LazyImage,
    parts: Parts,
    *,
    writer: Writer | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an image from windows that come in any order and together cover it; gives its path.

    The format is chosen by the ending (`.tif`, `.nii`, `.nii.gz`, `.zarr`), or by a `writer` with options. Memory stays
    flat: about 256 MB and a few windows. Where windows overlap, the voxels that came first stay. The file appears whole,
    on disk and under its name when the last window came; an error or a kill before leaves nothing there.

    Args:
        path: what to write; its folder is made.
        facts: shape, dtype, bands, geometry and so on; of an opened image, its own.
        parts: (window, voxels), or (window, voxels, mask) where `facts.valid` is not 0.
        writer: the format with options.
        overwrite: replace what has that name.

    Raises:
        DataError: the format cannot keep a fact, a window does not fit the facts, or some voxels never came.
        RunFolderError: the name is taken, or the place cannot be written.
    """
    with writing(path, facts, writer=writer, overwrite=overwrite) as put:
        for part in parts:
            put(part)
    return local(path)


@contextmanager
def writing(
    path: str | Path, facts: Facts | LazyImage, *, writer: Writer | None = None, overwrite: bool = False
) -> Iterator[Callable[[Part], None]]:
    """Write an image as `write_image` does, where windows are pushed, not pulled: gives what takes one.

    Any one thread at a time may push. The file appears when the block ends without an error.

    Raises:
        DataError: the format cannot keep a fact, a window does not fit the facts, or some voxels never came.
        RunFolderError: the name is taken, or the place cannot be written.
    """
    path = local(path)
    facts = facts if isinstance(facts, Facts) else Facts.of(facts)
    writer = writer or find_writer(path)
    writer.check(path, facts)
    if path.exists() and not overwrite:
        raise RunFolderError(f"{path} exists already; choose another name, or say overwrite.")
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        spool_of(draft).mkdir()
        with _begun(path, writer, draft, facts) as put:
            yield put
        publish(draft, path)
    except OSError as error:
        if isinstance(error, HalfseenError):
            raise
        raise RunFolderError(
            f"{path}: cannot be written ({error.strerror or error}); nothing is left under that name."
        ) from error
    finally:
        remove(draft)
        remove(spool_of(draft))


@contextmanager
def _begun(path: Path, writer: Writer, draft: Path, facts: Facts) -> Iterator[Callable[[Part], None]]:
    work = writer.begin(path, draft, spool_of(draft), facts)
    try:
        yield lambda part: work.put(*checked(path, facts, part))
        hole = work.missing()
        if hole is not None:
            where = ", ".join(f"{span.start}:{span.stop}" for span in hole)
            raise DataError(
                f"{path}: expected windows that cover {facts.size}, but at least {where} never came; nothing was written."
            )
        work.finish()
    except BaseException:
        work.abandon()
        raise
