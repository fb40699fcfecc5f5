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
    def recognises(self, head: bytes) -> bool:
        """Say whether the first 512 (or fewer) bytes of a file are of this format."""

    @abstractmethod
    def open(self, path: Path) -> LazyImage:
        """Read the header and nothing else.

        Raises:
            DataError: the header is damaged, beyond the size budget, or of a kind that is not read; the message names
                the file and the cure.
        """
