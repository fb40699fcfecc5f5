"""Placing weights into a built module: everything fits, or one error lists what does not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)

FORMAT = 1
"""Of stored encoders and checkpoints; another number is another layout."""
_MOST_NAMED = 12


@dataclass(frozen=True)
class Placement:
    """What became of a set of weights.

    Attributes:
        placed: keys of the module that the weights filled.
        missing: keys that the module has and the weights lack, all of them allowed by name.
        unexpected: keys that the weights have and the module lacks, all of them allowed by name.
        dropped: keys of a foreign file that its layout names as no part of the encoder, such as a decoder's.
        adapted: what was changed to fit other bands, one sentence each.
        sha256: of the foreign file's bytes; empty = the weights come from no foreign file.
        source_dtype: types of the numbers in that file, such as `bfloat16`; the module holds float32.
    """

    placed: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    sha256: str = ""
    source_dtype: str = ""

    def __str__(self) -> str:
        lines = [f"placed {len(self.placed)}, missing {list(self.missing)}, unexpected {list(self.unexpected)}"]
        if self.sha256:
            lines.append(f"dropped by rule {len(self.dropped)}, from {self.source_dtype}, sha256 {self.sha256}")
        return "\n".join([*lines, *(f"adapted: {note}" for note in self.adapted)])


def file_digest(path: Path) -> str:
    """Hash a file's bytes: blake2b, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file's bytes as hubs do: SHA-256, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; tensors may lie on any device and share memory."""
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}, path)


def listed(keys: Sequence[str]) -> str:
    """Name the first keys of an error and count the rest."""
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return ", ".join(keys[:_MOST_NAMED]) + more


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
        CheckpointError: lists missing, unexpected and reshaped keys at once, of each the first and the number of the rest.
    """
    have = module.state_dict()
    report = check(module, weights, source=source, allow_missing=allow_missing, allow_unexpected=allow_unexpected)
    with torch.no_grad():
        for key in report.placed:
            have[key].copy_(weights[key])  # state_dict shares memory with the module
    return report


def build_with(build: Callable[[], M], weights: Mapping[str, Tensor], *, source: str) -> tuple[M, Placement]:
    """Build a module around weights that fill it wholly: no fresh values are drawn, no memory is taken twice.

    A module of billions of parameters is described on the meta device and given its weights, in the types that it would
    have had. One with buffers that no file holds is built as usual and filled. Weights on the meta device leave it there.

    Raises:
        CheckpointError: lists missing, unexpected and reshaped keys at once, of each the first and the number of the rest.
    """
    with torch.device("meta"):
        module = build()
    report = check(module, weights, source=source)
    if any(value.is_meta for value in weights.values()):
        return module, report  # described, as the weights are
    have = module.state_dict()
    if _holds_more(module, have):
        module = build()
        return module, place(module, weights, source=source)
    own = {key: torch.empty_like(value, device="cpu").copy_(weights[key]) for key, value in have.items()}
    module.load_state_dict(own, assign=True)  # whether a parameter is trained stays as the module says
    return module, report


def _holds_more(module: nn.Module, have: Mapping[str, Tensor]) -> bool:
    """Say whether a module holds tensors of its own making, which no weights would replace."""
    plain = (value for part in module.modules() for value in vars(part).values())
    return any(isinstance(value, Tensor) for value in plain) or not {n for n, _ in module.named_buffers()} <= set(have)


def check(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> Placement:
    """Say what `place` would do, and do nothing: module and weights may lie on the meta device. Errors as there."""
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
        lists = "; ".join(f"{kind}: {listed(keys)}" for kind, keys in wrong.items() if keys)
        raise CheckpointError(f"{source}: expected weights for {type(module).__name__}, but {lists}.")
    return Placement(tuple(sorted(set(have) & set(weights))), tuple(missing), tuple(unexpected))
