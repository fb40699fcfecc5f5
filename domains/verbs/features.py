"""Vectors of whole images: by a pretrained encoder, by the same encoder with random weights, by pixel statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch
from core.cli import Options
from core.contract import Input
from core.encoders.base import Pool
from core.encoders.load import Encoder, load_encoder
from core.engine.distributed import pick_device
from core.engine.run_folder import check_writable
from core.errors import BandError, ConfigError, RunFolderError
from core.rng import key
from core.weights import Placement
from datasets import Manifest, whole_batches
from datasets.assign import read_by
from datasets.progress import Stages
from domains.verbs.collection import collect, one_kind, say
from domains.verbs.domain import Domain

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Images:
    """Which encoder looks at which images, and how; the same for every verb that has one.

    Attributes:
        encoder: a run folder, its encoder folder, or the name of a published encoder (python -m core.zoo list).
        weights: file of a published encoder; none = fetched once.
        accept_non_commercial: agree to terms of published weights that forbid commercial use.
        data: folders, lists or manifests; none = the synthetic sample set.
        label: the column to predict, where there is something to predict; the sample set knows its own.
        group: the column that names what must not be split, such as patients or scenes; none = the list's own `group`
            column, else every image for itself.
        kind: the kind of image to read, such as `volume`, where the data has several.
        pool: how tokens become one vector; their mean and spread, since what matters is often small and rare.
        size: voxels of the image that the encoder sees, one number or one per axis; none = as its contract says.
        options: options of readers, such as `nifti.affine=sform`.
        allow_outside: accept lists and links that lead out of the folder that they are in.
        workers: how many read images; 0 = one thread of this process.
        worker_kind: processes, or threads of this process.
        device: auto, cpu, cuda.
    """

    encoder: str
    weights: str | None = None
    accept_non_commercial: bool = False
    data: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    kind: str | None = None
    pool: Pool = "mean_std"
    size: tuple[int, ...] | None = None
    options: tuple[str, ...] = ()
    allow_outside: bool = False
    workers: int = 0
    worker_kind: Literal["thread", "process"] = "process"
    device: str = "auto"


ALIASES = {field.name: f"images.{field.name}" for field in fields(Images)}


def label_name(domain: Domain, images: Images) -> str:
    """Give the column to predict.

    Raises:
        ConfigError: none was named for a user's own data, or another than the sample set has.
    """
    own = domain.samples.label
    if images.data and images.label is None:
        raise ConfigError("expected --label, the name of the column to predict.")
    if not images.data and (images.label or own) != own:
        raise ConfigError(f"the synthetic sample set has the label '{own}' only, got '{images.label}'; give --data.")
    return images.label or own


def load(images: Images) -> Encoder:
    """Load the encoder of a run, or a published one.

    Raises:
        HalfseenError: what `core.load_encoder` refuses.
    """
    published: dict[str, Any] = {}
    if images.weights is not None:
        published["weights"] = images.weights
    if images.accept_non_commercial:
        published["accept"] = ("non_commercial",)
    return load_encoder(images.encoder, **published, pool=images.pool, device=pick_device(images.device, 0))


def beside(domain: Domain, images: Images, file: str) -> Path:
    """Where a verb writes when nobody says: into the encoder's folder; for a published one, a folder named after it."""
    folder = Path(images.encoder)
    return (folder if folder.is_dir() else Path("runs") / f"{domain.name}-{folder.name}") / file


def open_images(domain: Domain, images: Images, *, labelled: bool) -> tuple[Encoder, Manifest, Input]:
    """Load the encoder, look at the images, and say which of its inputs reads them.

    Raises:
        HalfseenError: the encoder, the images or their labels cannot be used.
    """
    label = label_name(domain, images) if labelled else None
    if images.kind is not None:
        domain.kind_called(images.kind)
    encoder = load(images)
    manifest, what = collect(
        domain, images.data, label=label, group=images.group, options=images.options, allow_outside=images.allow_outside
    )
    manifest = one_kind(domain, manifest, images.kind)
    entry = input_of(encoder, manifest, images.size)
    domain.check_values(manifest, entry)
    say(what)
    return encoder, manifest, entry


def refuse_existing(options: Options) -> None:
    """Refuse to replace a file unasked, or one that cannot be written.

    Raises:
        RunFolderError: the file is there already, or its folder refuses.
    """
    check_writable(options.out.parent)
    if options.out.exists() and not options.overwrite:
        raise RunFolderError(f"{options.out} exists: replace it with --overwrite, or name another file with --out.")


def input_of(encoder: Encoder, manifest: Manifest, size: tuple[int, ...] | None) -> Input:
    """Give the encoder's input that has the bands of these images, at another size if one is wanted.

    Raises:
        BandError: the encoder does not read this kind of image.
        ConfigError: the images are of several inputs, or `size` has another rank, or is not a multiple of the patch.
    """
    ndim = int(manifest.column("ndim")[0])
    if all(entry.ndim != ndim for entry in encoder.contract.inputs):
        reads = " and ".join(f"{entry.ndim}D {entry.name}s" for entry in encoder.contract.inputs)
        raise BandError(f"{manifest.path(0)}: the image is {ndim}D, and this encoder reads {reads} only.")
    first: dict[str, tuple[Input, int]] = {}
    for entry, rows in read_by(manifest, encoder.contract):
        first.setdefault(entry.name, (entry, int(rows[0])))
    if len(first) > 1:
        seen = " and ".join(f"'{name}' ({manifest.path(row)})" for name, (_, row) in first.items())
        raise ConfigError(f"expected images of one input of the encoder, got those of {seen}: give one kind as --data.")
    entry, _ = next(iter(first.values()))
    if size is None:
        return entry
    if len(size) == 1:
        size = size * ndim
    if len(size) != ndim:
        raise ConfigError(f"option 'size': expected one or {ndim} numbers, got {size}.")
    return replace(entry, whole_size=size)


def random_weights(encoder: Encoder, seed: int) -> Encoder:
    """Build the same encoder, freshly initialised and never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "random weights"))
        backbone = encoder.backbone.spec.build()
    device = next(encoder.parameters()).device
    return Encoder(backbone, pool=encoder.pool, report=Placement(())).to(device).eval()


@torch.no_grad()
def describe(
    functions: dict[str, Callable[[Batch], Tensor]],
    manifest: Manifest,
    entry: Input,
    *,
    workers: int,
    worker_kind: Literal["thread", "process"] = "process",
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Read every image once and give each function's vectors, (M, D) float32 in row order."""
    found: dict[str, list[Tensor]] = {name: [] for name in functions}
    done = 0
    with Stages() as stages:
        stages("embedding images", 0, len(manifest))
        for batch in whole_batches(manifest, entry, BATCH, workers=workers, worker_kind=worker_kind):
            batch = batch.to(device)
            for name, function in functions.items():
                found[name].append(function(batch).float().cpu())
            done += len(batch)
            stages("embedding images", done, len(manifest))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def seen_in_pretraining(encoder: str, manifest: Manifest) -> int:
    """Count the images that the encoder's run has trained on or held out, by content."""
    recorded = Path(encoder) / "data.parquet"
    if not recorded.exists():
        return 0
    known = set(Manifest.read(recorded).column("digest"))
    return sum(digest in known for digest in manifest.column("digest"))


def copies_in_other_groups(digests: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Say how many images are also in another group, byte for byte: folds by group cannot keep those apart."""
    where: dict[str, set[str]] = {}
    for digest, group in zip(digests, groups, strict=True):
        where.setdefault(digest, set()).add(group)
    copied = [digest for digest in digests if len(where[digest]) > 1]
    if not copied:
        return []
    return [
        f"{len(copied)} of these {len(digests)} images are in several groups, byte for byte: a model may be scored on what "
        "it learnt from. Join those groups (--group), or leave the copies out."
    ]
