"""Vectors of whole images: by a pretrained encoder, by the same encoder with random weights, by pixel statistics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Pool
from core.encoders.load import Encoder, load_encoder
from core.engine.distributed import pick_device
from core.errors import BandError, ConfigError
from core.rng import key
from core.weights import Placement
from datasets import Manifest, whole_batches

BATCH = 32


def open_encoder(path: str, *, pool: Pool, device: str) -> Encoder:
    """Load an encoder onto a device by its name, `auto` included."""
    return load_encoder(path, pool=pool, device=pick_device(device, 0))


def input_of(encoder: Encoder, manifest: Manifest, size: tuple[int, ...] | None) -> Input:
    """Give the encoder's input for these images, at another size if one is wanted.

    Raises:
        BandError: the encoder does not read this kind of image.
        ConfigError: `size` has another rank, or is not a multiple of the patch.
    """
    ndim = int(manifest.column("ndim")[0])
    entries = [entry for entry in encoder.contract.inputs if entry.ndim == ndim]
    if not entries:
        reads = " and ".join(f"{entry.ndim}D {entry.name}s" for entry in encoder.contract.inputs)
        raise BandError(f"{manifest.path(0)}: the image is {ndim}D, and this encoder reads {reads} only.")
    entry = entries[0]
    if size is None:
        return entry
    if len(size) == 1:
        size = size * ndim
    if len(size) != ndim:
        raise ConfigError(f"option 'size': expected one or {ndim} numbers, got {size}.")
    return replace(entry, size=size)


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
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Read every image once and give each function's vectors, (M, D) float32 in row order."""
    found: dict[str, list[Tensor]] = {name: [] for name in functions}
    with Progress(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("reading images", total=len(manifest))
        for batch in whole_batches(manifest, entry, BATCH, workers=workers):
            batch = batch.to(device)
            for name, function in functions.items():
                found[name].append(function(batch).float().cpu())
            bar.advance(task, len(batch))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def seen_in_pretraining(encoder: str, manifest: Manifest) -> int:
    """Count the images that the encoder's run has trained on or held out, by content."""
    recorded = Path(encoder) / "data.parquet"
    if not recorded.exists():
        return 0
    known = set(Manifest.read(recorded).column("digest"))
    return sum(digest in known for digest in manifest.column("digest"))
