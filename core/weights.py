"""Placing weights into a built module: everything fits, or one error lists all that does not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import CheckpointError

FORMAT = 1
"""Of stored encoders and checkpoints; another number is another layout."""


@dataclass(frozen=True)
class Placement:
    """What became of a set of weights.

    Attributes:
        placed: keys that were copied into the module.
        missing: keys that the module has and the weights lack, all of them allowed by name.
        unexpected: keys that the weights have and the module lacks, all of them allowed by name.
    """

    placed: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"placed {len(self.placed)}, missing {list(self.missing)}, unexpected {list(self.unexpected)}"


def file_digest(path: Path) -> str:
    """Hash a file's bytes: blake2b, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_weights(path: Path, *, digest: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, and check its digest where one is known: the format itself has no checksum.

    Raises:
        CheckpointError: it is not there, not whole, or not what was written.
    """
    try:
        if digest is not None and file_digest(path) != digest:
            raise CheckpointError(f"{path}: its bytes are not those that were written; bring it back from a copy.")
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a whole safetensors file, got: {error}.") from error


def place(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> Placement:
    """Copy weights into a module; every key must find its place with its shape.

    Args:
        module: the built object.
        weights: by key.
        source: what to call the weights in an error, usually a path.
        allow_missing: prefixes of keys that may keep the module's fresh values.
        allow_unexpected: prefixes of keys that may be left out.

    Raises:
        CheckpointError: lists all missing, unexpected and reshaped keys at once.
    """
    have = module.state_dict()
    missing = sorted(key for key in have if key not in weights)
    unexpected = sorted(key for key in weights if key not in have)
    reshaped = [
        f"{key}: file {tuple(weights[key].shape)}, module {tuple(have[key].shape)}"
        for key in sorted(set(have) & set(weights))
        if weights[key].shape != have[key].shape
    ]
    wrong = {
        "missing": [key for key in missing if not key.startswith(allow_missing)],
        "unexpected": [key for key in unexpected if not key.startswith(allow_unexpected)],
        "reshaped": reshaped,
    }
    if any(wrong.values()):
        lists = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in wrong.items() if keys)
        raise CheckpointError(f"{source}: expected weights for {type(module).__name__}, but {lists}.")
    placed = sorted(set(have) & set(weights))
    with torch.no_grad():
        for key in placed:
            have[key].copy_(weights[key])  # state_dict shares memory with the module
    return Placement(tuple(placed), tuple(missing), tuple(unexpected))
