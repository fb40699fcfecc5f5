"""From paths to a manifest, and from a config to what those images allow: the steps that every verb shares."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from core.contract import Contract
from core.errors import ConfigError, DataError
from core.report.words import counted
from datasets import Manifest, build_manifest
from domains.verbs.domain import Domain

_PER_AXIS, _PER_STAGE = ("window", "extent"), ("pretrained_windows",)  # of encoders, by the axes of their highest rank


def cache_folder() -> Path:
    """Where generated samples are kept: $HALFSEEN_CACHE, else the user's cache folder."""
    base = os.environ.get("HALFSEEN_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "halfseen"


def say(text: str) -> None:
    """Tell the person at the terminal; results alone go to standard output."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


def collect(
    domain: Domain,
    paths: Sequence[str],
    *,
    label: str | None = None,
    group: str | None = None,
    options: Sequence[str] = (),
    allow_outside: bool = False,
    quiet: bool = False,
) -> tuple[Manifest, str]:
    """Look at every image of `paths`, or of the domain's sample set when there are none.

    `options` are those of readers, such as `nifti.affine=sform`; training and evaluation open each file with them too.
    `allow_outside` accepts lists and links that lead out of the folder that they are in.

    Returns:
        the manifest, and one sentence that says what it holds.

    Raises:
        HalfseenError: whatever `build_manifest` or the domain refuses.
    """
    announce = "" if paths else f"{domain.samples.announcement} "
    if not paths:
        paths, group = _drawn(domain, group, quiet)
    with Progress(disable=quiet or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("reading images", total=None)
        manifest = build_manifest(
            paths,
            label=label,
            group=group,
            options=options,
            allow_outside=allow_outside,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    domain.check(manifest)
    counts = Counter(manifest.column("ndim"))
    words = " and ".join(counted(counts[ndim], domain.kind_of(ndim).name) for ndim in sorted(counts))
    return manifest, f"{announce}{words} in {counted(len(set(manifest.column('group'))), 'group')}"


def one_kind(domain: Domain, manifest: Manifest, kind: str | None) -> Manifest:
    """Keep the images of one kind; a collection of several needs to be told which.

    Raises:
        ConfigError: several kinds are there and none was chosen, or none is called so.
        DataError: none of the chosen kind is there.
    """
    chosen = None if kind is None else domain.kind_called(kind)
    present = sorted(domain.kind_of(ndim).name for ndim in set(manifest.column("ndim")))
    if chosen is None and len(present) > 1:
        raise ConfigError(
            f"expected one kind of image, the data has {' and '.join(f'{kind}s' for kind in present)}: choose one with --kind."
        )
    chosen = chosen or domain.kind_called(present[0])
    if chosen.name not in present:
        raise DataError(f"expected {chosen.name}s, the data has only {present[0]}s.")
    return manifest.select(ndim=chosen.ndim)


def median_spacing(manifest: Manifest, ndim: int, detail: int = 1) -> tuple[float, ...]:
    """Give the median spacing of the images of one rank, times `detail`, rounded to 3 digits."""
    known = np.array(manifest.select(ndim=ndim).column("spacing"), dtype=np.float64)
    return tuple(float(f"{value * detail:.3g}") for value in np.median(known, axis=0))


def with_contract(encoder: Any, contract: Contract) -> Any:
    """Describe an encoder of these inputs; sizes with one number per axis keep those of the axes that are left."""
    rank = max(entry.ndim for entry in contract.inputs)
    sizes = {name: getattr(encoder, name)[-rank:] for name in _PER_AXIS if hasattr(encoder, name)}
    sizes |= {
        name: tuple(size[-rank:] for size in getattr(encoder, name)) for name in _PER_STAGE if hasattr(encoder, name)
    }
    return replace(encoder, contract=contract, **sizes)


def _drawn(domain: Domain, group: str | None, quiet: bool) -> tuple[list[str], str | None]:
    """Draw the sample set where it is not there yet; its list, and its column of groups."""
    samples = domain.samples
    if group not in (None, samples.group):
        raise ConfigError(
            f"the synthetic sample set groups its images by '{samples.group}', got '{group}': give --data."
        )
    folder = cache_folder() / samples.folder
    if not folder.exists() and not quiet:
        say(f"drawing the synthetic sample set, once, into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return [str(samples.draw(folder))], samples.group
