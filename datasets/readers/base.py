"""The interface of a file format: recognise it by content, give its facts without decoding it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from datasets.image import LazyImage


class Reader(ABC):
    """One format, one file in this folder. Implementations are frozen dataclasses whose fields are reading options.

    Attributes:
        suffixes: file name endings, lower case with the dot, by which a folder scan picks candidates.
    """

    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether a file is of this format, by its first 512 (or fewer) bytes and, where they do not tell, more.

        Of a folder, `head` is empty: say whether the folder as a whole is one image (a store, a scene in several files).
        """

    @abstractmethod
    def open(self, path: Path) -> LazyImage:
        """Read the header and nothing else; `path` is absolute.

        Raises:
            DataError: the header is damaged, beyond the size budget, or of a kind that is not read; the message names
                the file and the cure, and the class says which (`core.errors`).
        """
