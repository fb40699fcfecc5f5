"""Opening the images of a manifest as they were checked: same reader, same options, same content; and keeping them open.

What is kept is the `LazyImage`, not a handle: parsing a header at each sample would cost more than reading a window.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, MissingDataError, nearest
from datasets.content import unchanged
from datasets.image import LazyImage
from datasets.manifest import Manifest
from datasets.readers import configured, name_of
from datasets.readers.base import Reader
from datasets.safety import inside, local

_MOST = 512  # images whose headers are kept; each is a few kilobytes

Stamp = tuple[int, int, int]


class Images:
    """The images of a manifest, opened when they are first asked for; travels to a worker with none open."""

    def __init__(self, manifest: Manifest, most: int = _MOST) -> None:
        self.manifest, self.most = manifest, most
        self._held: OrderedDict[int, tuple[Stamp, LazyImage]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Images], tuple[Manifest, int]]:
        return Images, (self.manifest, self.most)

    def fact(self, row: int, name: str) -> Any:
        """Give one fact of the manifest.

        Raises:
            DataError: it is not known; images are checked before they are trained on.
        """
        value = self.manifest.table[name][row].as_py()
        if value is None:
            path = self.manifest.path(row)
            raise DataError(f"{path}: its '{name}' is not in the manifest; build the manifest again.")
        return value

    def open(self, row: int) -> LazyImage:
        """Give the image of a row; one that was replaced on disk meanwhile is opened and compared anew.

        Raises:
            MissingDataError: it is gone.
            UnsafeError: it lies outside the root that the manifest names.
            DataError: it changed since the manifest was built, or cannot be opened.
        """
        path = local(self.manifest.path(row))
        stamp = _stamp(path)
        with self._lock:
            held = self._held.get(row)
            if held is not None and held[0] == stamp:
                self._held.move_to_end(row)
                return held[1]
        lazy = self._open(row, path)
        with self._lock:
            self._held[row] = (stamp, lazy)
            self._held.move_to_end(row)
            while len(self._held) > self.most:
                self._held.popitem(last=False)
        return lazy

    def _open(self, row: int, path: Path) -> LazyImage:
        facts = {name: self.fact(row, name) for name in ("bytes", "mtime_ns", "digest", "shape", "reader")}
        changed = f"{path}: the file changed since the manifest was built; build the manifest again."
        if not unchanged(path, size=facts["bytes"], mtime_ns=facts["mtime_ns"], digest=facts["digest"]):
            raise DataError(changed)
        try:
            reader = reader_of(facts["reader"], tuple(self.manifest.table["options"][row].as_py() or ()))
        except (ConfigError, DataError) as error:
            raise DataError(f"{path}: {error}") from None
        lazy = reader.open(inside(Path(self.manifest.table["root"][row].as_py()), path))
        if list(lazy.shape) != list(facts["shape"]):
            raise DataError(changed)
        return lazy


@lru_cache(maxsize=256)
def reader_of(name: str, options: tuple[str, ...]) -> Reader:
    """Give the reader of a row of a manifest: by its name, with options as `readers.configured` takes them.

    Raises:
        ConfigError: an option does not fit.
        DataError: there is no such reader.
    """
    known = {name_of(reader): reader for reader in configured(options)}
    if name not in known:
        raise DataError(f"the manifest names a reader '{name}': {nearest(name, known)} Build the manifest again.")
    return known[name]


def _stamp(path: Path) -> Stamp:
    """What tells a file that was replaced from the one that was opened, at the cost of one call to the system."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat, and asked at every sample
    except FileNotFoundError:
        raise MissingDataError(f"expected an image, but {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror}); check its permissions.") from None
    return found.st_size, found.st_mtime_ns, found.st_ino
