"""Facts of a domain that the verbs need: kinds of image, legal mirror images, grades, and a sample set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.contract import Input
from core.engine.config import Pretrain
from core.errors import ConfigError, nearest
from datasets import Manifest


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of image.

    Attributes:
        name: a singular noun, such as `photograph`.
        ndim: spatial axes; no two kinds of a domain have the same number.
        flips: per axis (array order), whether a mirror image is as legal as the original.
    """

    name: str
    ndim: int
    flips: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The set of images that a program draws, for those who have none at hand.

    Attributes:
        folder: name of its folder in the cache, which tells its size.
        draw: draws it into a folder and gives the list or folder to read.
        label: its label column.
        group: its column of groups; none = every image for itself.
        announcement: what is said of it before any work.
        warning: what its scores mean.
    """

    folder: str
    draw: Callable[[Path], Path]
    label: str
    group: str | None
    announcement: str
    warning: str


def _unchanged(config: Pretrain, manifest: Manifest) -> Pretrain:
    return config


def _accepted(manifest: Manifest) -> None:
    return None


def _read_as_they_are(manifest: Manifest, entry: Input) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One domain, as the verbs see it.

    Attributes:
        name: of its package, such as `retina`.
        title: of its reports.
        kinds: of image that it knows.
        samples: what is used without `--data`.
        ordinal_labels: label columns whose numbers are grades.
        resolve: fits a config to the images that are there; doing it twice changes nothing.
        check: refuses a collection that this domain cannot read, with a `HalfseenError`.
        check_values: refuses images whose numbers are not what an encoder's input expects, with one too.
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    samples: Samples
    ordinal_labels: tuple[str, ...] = ()
    resolve: Callable[[Pretrain, Manifest], Pretrain] = _unchanged
    check: Callable[[Manifest], None] = _accepted
    check_values: Callable[[Manifest, Input], None] = _read_as_they_are

    def kind_of(self, ndim: int) -> Kind:
        """Give the kind of image that has so many axes.

        Raises:
            ConfigError: the domain knows none.
        """
        found = next((kind for kind in self.kinds if kind.ndim == ndim), None)
        if found is None:
            known = " and ".join(f"{kind.name}s ({kind.ndim}D)" for kind in self.kinds)
            raise ConfigError(
                f"expected {known}, the only images that domains.{self.name} reads, got one of {ndim} axes."
            )
        return found

    def kind_called(self, name: str) -> Kind:
        """Give a kind by its name.

        Raises:
            ConfigError: there is none; the message names the nearest.
        """
        names = [kind.name for kind in self.kinds]
        if name not in names:
            raise ConfigError(f"option 'kind': no kind of image is called '{name}': {nearest(name, names)}")
        return self.kinds[names.index(name)]
