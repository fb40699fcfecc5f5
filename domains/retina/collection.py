"""From paths to a manifest, and from a preset to what those images allow: the steps that every verb shares."""

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
from core.engine.config import Pretrain
from core.errors import ConfigError, DataError
from core.recipes.base import RecipeSpec
from datasets import Manifest, build_manifest, sample_set

SAMPLES = {"photographs": 240, "volumes": 48}
KINDS = {2: "photograph", 3: "volume"}

_PER_AXIS, _PER_STAGE = ("window", "extent"), ("pretrained_windows",)  # of encoders, by the axes of their highest rank


def cache_folder() -> Path:
    """Where generated samples are kept: $HALFSEEN_CACHE, else the user's cache folder."""
    base = os.environ.get("HALFSEEN_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "halfseen"


def collect(
    paths: Sequence[str],
    *,
    label: str | None = None,
    group: str | None = None,
    options: Sequence[str] = (),
    allow_outside: bool = False,
    quiet: bool = False,
) -> tuple[Manifest, str]:
    """Look at every image of `paths`, or of the synthetic sample set when there are none.

    `options` are those of readers, such as `nifti.affine=sform`; training and evaluation open each file with them too.
    `allow_outside` accepts lists and links that lead out of the folder that they are in.

    Returns:
        the manifest, and one sentence that says what it holds.

    Raises:
        HalfseenError: whatever `build_manifest` refuses.
    """
    announce = "" if paths else "SYNTHETIC sample set (no --data was given): drawn by a program, no patient was seen. "
    if not paths:
        if group not in (None, "patient"):
            raise ConfigError(f"the synthetic sample set groups its images by 'patient', got '{group}': give --data.")
        folder = cache_folder() / "retina-samples-{photographs}-{volumes}".format(**SAMPLES)
        if not folder.exists() and not quiet:
            say(f"drawing the synthetic sample set, once, into {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        paths, group = [str(sample_set(folder, **SAMPLES) / "labels.csv")], "patient"
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
    counts = Counter(manifest.column("ndim"))
    words = " and ".join(f"{counts[ndim]} {KINDS[ndim]}s" for ndim in sorted(counts))
    return manifest, f"{announce}{words} in {len(set(manifest.column('group')))} groups"


def say(text: str) -> None:
    """Tell the person at the terminal; results alone go to standard output."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


def resolve(config: Pretrain, manifest: Manifest) -> Pretrain:
    """Fit a config to the images that are there; doing it twice changes nothing.

    Streams without images are left out, with their input; volumes' nominal spacing becomes the training volumes' median,
    rounded to 3 digits, so that one unit of position is one patch of a typical volume. A recipe that loads crops at a finer
    detail than its encoder reads makes the encoder's voxels that much larger.

    Raises:
        DataError: nothing is left to train on.
    """
    present = {KINDS[ndim] for ndim in manifest.column("ndim")}
    encoder = config.recipe.encoder
    inputs = [entry for entry in encoder.contract.inputs if entry.name in present]
    streams = tuple(stream for stream in config.data.streams if stream.input in present)
    if not streams:
        reads = " and ".join(stream.input for stream in config.data.streams)
        raise DataError(
            f"expected images for the streams of this config ({reads}), the data has only {sorted(present)}."
        )
    detail = config.recipe.detail
    inputs = [
        replace(entry, spacing=_median_spacing(manifest, entry.ndim, detail)) if entry.unit == "mm" else entry
        for entry in inputs
        if any(stream.input == entry.name for stream in streams)
    ]
    changed = _of_contract(encoder, Contract(inputs=tuple(inputs)))
    recipe: RecipeSpec = replace(config.recipe, encoder=changed)  # type: ignore[type-var]
    return replace(config, recipe=recipe, data=replace(config.data, streams=streams))


def _median_spacing(manifest: Manifest, ndim: int, detail: int) -> tuple[float, ...]:
    known = np.array(manifest.select(ndim=ndim).column("spacing"), dtype=np.float64)
    return tuple(float(f"{value * detail:.3g}") for value in np.median(known, axis=0))


def _of_contract(encoder: Any, contract: Contract) -> Any:
    """Describe an encoder of these inputs; sizes with one number per axis keep those of the axes that are left."""
    rank = max(entry.ndim for entry in contract.inputs)
    sizes = {name: getattr(encoder, name)[-rank:] for name in _PER_AXIS if hasattr(encoder, name)}
    sizes |= {
        name: tuple(size[-rank:] for size in getattr(encoder, name)) for name in _PER_STAGE if hasattr(encoder, name)
    }
    return replace(encoder, contract=contract, **sizes)


def one_kind(manifest: Manifest, kind: str | None) -> Manifest:
    """Keep the images of one kind; a collection of both needs to be told which.

    Raises:
        ConfigError: both kinds are there and none was chosen.
        DataError: none of the chosen kind is there.
    """
    present = sorted({KINDS[ndim] for ndim in manifest.column("ndim")})
    if kind is None and len(present) > 1:
        raise ConfigError(f"expected one kind of image, the data has {' and '.join(present)}s: choose one with --kind.")
    chosen = kind or present[0]
    ndim = next(number for number, name in KINDS.items() if name == chosen)
    if chosen not in present:
        raise DataError(f"expected {chosen}s, the data has only {present[0]}s.")
    return manifest.select(ndim=ndim)
