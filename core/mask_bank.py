"""A bank of region masks: made once from a stream of batches, kept as bits in a memory-mapped file, drawn from cheaply.

`build_bank` is for users; the masker `shape_aware` opens what it made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch
from core.config import digest
from core.contract import Input
from core.errors import ConfigError, DataError, ShapeError
from core.maskers._jitter import jittered
from core.maskers._superpixels import RegionCut, cut
from core.rng import SampleRng, numpy_rng
from core.shapes import Grid, patchify

_FORMAT = 1
DEFAULT = RegionCut()
_HEADER = 128  # bytes before the first mask in the .npy file, whatever their number
_ROWS = 64  # masks that are unpacked at a time
FULL = 255
"""A token that is covered whole, in the whole numbers of `token_shares`, which add up alike in any order."""
_MAKE = "make it with core.mask_bank.build_bank."
_MOST = 1024  # regions that are drawn for one sample


def build_bank(
    batches: Iterable[Batch],
    folder: str | Path,
    entry: Input,
    regions: RegionCut = DEFAULT,
    *,
    variants: int = 1,
) -> Path:
    """Cut images into regions and store those worth hiding, for maskers that name this folder as their `bank`.

    Batches are read one at a time and masks written as they are found, so memory does not grow with the collection. A bank
    that was made with the same parameters is left as it is, unread; one made with others is replaced. Nobody sees a bank
    that is not finished.

    Args:
        batches: prepared batches (`Backbone.prepare`) of crops of the input's size.
        folder: where banks are kept, one for each size of image.
        entry: the input, for its size and patch.
        regions: how images are cut, `regions` of the masker; `shift` and `grow` are applied here, by each sample's key.
        variants: differently moved and grown copies of each region.

    Returns:
        the file of masks: `.npy`, (R, bytes) uint8, each row the bits of a mask in raster order.

    Raises:
        ShapeError: a batch is of another size.
        DataError: no image has a region.
    """
    path = _file(Path(folder), entry.size)
    facts = _expected(entry.size, entry.patch, regions) | {"variants": variants}
    stored = _facts(path)
    if stored is not None and all(stored.get(name) == value for name, value in facts.items()):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)  # from here on there is no bank, until the new one is whole
    partial = path.with_suffix(f".{os.getpid()}.partial")
    counts = {"images": 0, "without": 0, "regions": 0}
    width = math.ceil(math.prod(entry.size) / 8)
    try:
        with partial.open("wb") as file:
            file.write(_header(0, width))
            for batch in batches:
                _append(file, batch, entry, regions, variants, counts)
            file.seek(0)
            file.write(_header(counts["regions"], width))
        if not counts["regions"]:
            raise DataError(
                f"expected images with structure, got {counts['images']} without any region that its surroundings do "
                "not explain: lower regions.least, or mask at random."
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    note = path.with_suffix(f".{os.getpid()}.json")
    note.write_text(json.dumps(facts | counts, indent=1) + "\n", encoding="utf-8")
    note.replace(path.with_suffix(".json"))
    return path


@dataclass(frozen=True, eq=False)
class Bank:
    """An opened bank, as the tokens of one grid see it.

    Attributes:
        shares: (R, places) uint8, how much of each token each mask covers, 255 = all of it.
        coverage: the mean of that over masks and tokens, 0 to 1.
    """

    shares: Tensor
    coverage: float

    @staticmethod
    def open(folder: str, grid: Grid, regions: RegionCut) -> Bank:
        """Open the bank for images of a grid's size; files are read and compared once, and not again while they stay.

        Raises:
            ConfigError: there is none, or it was made with other parameters.
        """
        path = _file(Path(folder), grid.size)
        stamp = _stamp(path)
        if stamp is None:
            raise ConfigError(
                f"expected a bank of masks for images of {grid.size} voxels in {folder}, got none: {_MAKE}"
            )
        return _opened(path, stamp, grid.plain, regions)

    def draw(self, rng: SampleRng, ratio: float) -> Tensor:
        """Draw as many masks for each sample as it takes to cover the ratio, a few more: (B, K, places) uint8."""
        count = math.log(1.0 - ratio) / math.log1p(-min(max(self.coverage, 1e-4), 0.999))
        pick = rng.split("bank").uniform(min(math.ceil(1.5 * count) + 1, _MOST))
        shares = self.on(pick.device)
        return shares[(pick * len(shares)).to(torch.int64).clamp(max=len(shares) - 1)]

    def on(self, device: torch.device) -> Tensor:
        """Give the shares on a device, copied there once."""
        return self.shares if device.type == "cpu" else _moved(self, device)


def token_shares(masks: np.ndarray[Any, Any], grid: Grid) -> Tensor:
    """Measure how much of each token masks (R, *S) cover, (R, places) uint8, 255 = all of it."""
    if not len(masks):
        return torch.zeros(0, grid.num_places, dtype=torch.uint8)
    share = patchify(torch.from_numpy(masks)[:, None], grid.patch).to(torch.float32).mean(dim=2)
    return (share * FULL).round().to(torch.uint8)


def _append(
    file: BinaryIO, batch: Batch, entry: Input, regions: RegionCut, variants: int, counts: dict[str, int]
) -> None:
    """Write the regions of a batch's images to the end of a file."""
    if batch.size != entry.size:
        raise ShapeError(f"expected crops of {entry.size} voxels, the size of input '{entry.name}', got {batch.size}.")
    images, valid = batch.image.cpu().numpy(), batch.valid.cpu().numpy()
    for sample, stream in enumerate(batch.key.tolist()):
        spacing = tuple(batch.spacing[sample].tolist())
        masks = cut(images[sample], valid[sample], spacing, entry.patch, regions).masks()
        counts["images"] += 1
        counts["without"] += not len(masks)
        for variant in range(variants):
            moved = jittered(masks, numpy_rng(stream, "bank", variant), entry.patch, regions)
            file.write(np.packbits(moved.reshape(len(moved), math.prod(entry.size)), axis=1).tobytes())
            counts["regions"] += len(moved)


def _header(rows: int, width: int) -> bytes:
    """Write the head of a .npy file (format 1.0) of fixed length, so that it can be corrected when all is written."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11).encode() + b"\n"


def _file(folder: Path, size: tuple[int, ...]) -> Path:
    return folder / f"{'x'.join(map(str, size))}.npy"


def _expected(size: tuple[int, ...], patch: tuple[int, ...], regions: RegionCut) -> dict[str, Any]:
    """List what a bank and a masker must agree on."""
    return {"format": _FORMAT, "size": list(size), "patch": list(patch), "regions_digest": digest(regions)}


def _facts(path: Path) -> dict[str, Any] | None:
    """Read what is stored beside a bank; None = there is no finished one."""
    if _stamp(path) is None:
        return None
    facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return facts


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Tell one making of a bank from another, by time and length of its two files; None = there is no finished one."""
    try:
        states = [file.stat() for file in (path, path.with_suffix(".json"))]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return tuple(number for state in states for number in (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=8)
def _opened(path: Path, stamp: tuple[int, ...], grid: Grid, regions: RegionCut) -> Bank:
    """Compare what a bank was made with, then read it; what is refused is not kept, and told again the next time."""
    stored = _facts(path) or {}
    expected = _expected(grid.size, grid.patch, regions)
    stale = [name for name, value in expected.items() if stored.get(name) != value]
    if stale:
        raise ConfigError(
            f"{path}: expected masks made with the masker's own parameters, but {' and '.join(stale)} differ: {_MAKE}"
        )
    return _read(path, grid)


def _read(path: Path, grid: Grid) -> Bank:
    """Turn masks into shares of tokens, some rows at a time."""
    stored = np.load(path, mmap_mode="r")
    shares = torch.empty(len(stored), grid.num_places, dtype=torch.uint8)
    voxels = math.prod(grid.size)
    for first in range(0, len(stored), _ROWS):
        bits = np.unpackbits(stored[first : first + _ROWS], axis=1, count=voxels)
        shares[first : first + _ROWS] = token_shares(bits.reshape(-1, *grid.size), grid)
    return Bank(shares, float(shares.to(torch.float32).mean()) / FULL)


@lru_cache(maxsize=8)
def _moved(bank: Bank, device: torch.device) -> Tensor:
    return bank.shares.to(device)
