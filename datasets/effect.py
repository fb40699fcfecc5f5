"""Reader options that would do nothing are refused: of a manifest that was made otherwise, and of formats that are not there."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import ConfigError, HalfseenError
from datasets.collect import Entry
from datasets.manifest import Manifest
from datasets.opening import reader_of
from datasets.readers import configured, find_reader, name_of
from datasets.readers._typed import typed
from datasets.readers.base import Reader


def refuse_idle(
    options: Sequence[str], chosen: tuple[Reader, ...], entries: Sequence[Entry], manifests: Sequence[Manifest]
) -> None:
    """Make sure that every reader option has an effect on some image, and that no manifest is read otherwise.

    Args:
        options: as text, such as `nifti.affine=sform`.
        chosen: the readers that have them.
        entries: images that are still to be examined.
        manifests: collections that are taken as they are.

    Raises:
        ConfigError: an option has none; the message says what to do.
    """
    names = list(dict.fromkeys(option.partition(".")[0] for option in options))
    listed: set[str] = set()
    for manifest in manifests if names else ():
        listed |= _refuse_otherwise(options, names, manifest)
    for name in names:
        if name not in listed:
            _refuse_unread(name, options, chosen, entries, listed)


def _refuse_otherwise(options: Sequence[str], names: Sequence[str], manifest: Manifest) -> set[str]:
    """Refuse options that a manifest was made without; gives the names of the readers of its images."""
    pairs = list(zip(manifest.column("reader"), (tuple(own or ()) for own in manifest.column("options")), strict=True))
    for kind in dict.fromkeys(pairs):
        name, own = kind
        if name not in names or reader_of(name, own) == reader_of(name, (*own, *options)):
            continue
        given = _given(name, options)
        how = f"with {', '.join(own)}" if own else "with its defaults"
        raise ConfigError(
            f"{manifest.path(pairs.index(kind))}: its manifest says that it is read by {name} {how}, so {given} has no effect "
            f"here. Make the manifest anew (python -m datasets.check PATH {given} --out FILE), or leave the option out."
        )
    return {name for name, _ in pairs}


def _refuse_unread(
    name: str, options: Sequence[str], chosen: tuple[Reader, ...], entries: Sequence[Entry], listed: set[str]
) -> None:
    """Refuse options of a reader that reads no image; where an image cannot be told, examining it says why."""
    others = set(listed)
    for entry in entries:
        try:
            found = find_reader(entry.safe(), *(configured(entry.options) if entry.options else chosen))
        except (HalfseenError, OSError):
            return
        if name_of(found) == name:
            return
        others.add(name_of(found))
    given = _given(name, options)
    cure = "give options of those, or leave it out."
    if "zarr_array" in others:  # and so is not `name`
        cure += (
            f" Prepared stores keep what they were made with: python -m datasets.convert SRC DST {given} --overwrite."
        )
    raise ConfigError(
        f"{given} has no effect: {name} reads none of these images, they are read by {', '.join(sorted(others))}; {cure}"
    )


def _given(name: str, options: Sequence[str]) -> str:
    return typed(*(option for option in options if option.startswith(f"{name}.")))
