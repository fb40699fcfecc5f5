"""Reading encoders that others have trained: opened safely, unwrapped, every key accounted for, or one error names them.

Nothing here knows a release: a card's `Layout` says what a file looks like, a module of `core.layouts` what its names mean.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.encoders.base import EncoderSpec
from core.encoders.cards.base import Layout
from core.errors import CheckpointError, HalfseenError, MissingDataError, UnsafeError, UnsupportedError
from core.weights import file_sha256, listed, read_weights

WRAPPERS = ("_forward_module.", "module.", "_orig_mod.", "model.", "_timm_module.")
"""Prefixes that tools put before every key: Lightning, DDP and DeepSpeed, `torch.compile`, an attribute, terratorch."""
OUTER = ("module", "model", "state_dict")
"""Dictionaries that tools put around the weights, tried after those that a layout names."""
TRANSPARENT = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Segments that torch puts between others wherever it wraps a part."""
_OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # what torch.save wrote before 1.6 begins so
_NOT_WHOLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    OverflowError,
)
_MOST_NESTED = 8  # dictionaries around weights; a file can hold itself


@dataclass(frozen=True)
class Foreign:
    """An encoder's weights out of a released file.

    Attributes:
        weights: by our keys, in the types of the file.
        placed: keys of the file that they come from.
        dropped: keys of the file that the layout names as no part of the encoder.
        prefix: what stood before the encoder's own keys, such as `module.encoder.`.
        source_dtype: types of the numbers, such as `bfloat16`.
        sha256: of the file's bytes.
    """

    weights: dict[str, Tensor]
    placed: tuple[str, ...]
    dropped: tuple[str, ...]
    prefix: str
    source_dtype: str
    sha256: str = ""


@dataclass(frozen=True)
class _View:
    """The keys of a file below a chain of prefixes and beside it, each with its shortened name."""

    prefix: str
    inside: dict[str, str]
    beside: tuple[tuple[str, str], ...]


def read_encoder(path: str | Path, spec: EncoderSpec, layout: Layout, *, sha256: str | None = None) -> Foreign:
    """Read an encoder's weights from a released file.

    Args:
        path: a file of `torch.save` or safetensors.
        spec: of the encoder that they are to fill.
        layout: of the file.
        sha256: of its bytes, where it is known.

    Raises:
        MissingDataError: there is no such file.
        UnsafeError: it holds Python objects that could run code.
        CheckpointError: its bytes are others, it holds no weights, or keys are missing, left over or not finite; the
            message names them as the file does.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"{path}: expected a file of weights, there is none.")
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        raise CheckpointError(
            f"{path}: expected the released file, sha256 {sha256}, got {digest}: fetch it again, or load another release "
            "by its own name."
        )
    return replace(translate(open_file(path), spec, layout, source=str(path)), sha256=digest)


def translate(file: Mapping[str, Any], spec: EncoderSpec, layout: Layout, *, source: str) -> Foreign:
    """Find an encoder's weights in the content of a released file, and give them our names.

    Args:
        file: what was saved.
        spec: of the encoder that they are to fill.
        layout: of the file.
        source: what to call it in an error, usually its path.

    Raises:
        CheckpointError: no weights, or keys that are missing, left over or not finite, as the file calls them.
    """
    state = _unwrapped(file, layout, source)
    view, needed = _best_view(state, spec, layout)
    dropped = _accounted(view, needed, layout, source)
    found = {name: state[key] for name, key in view.inside.items() if name in needed}
    _check_finite(found, view, source)
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in found.values()})
    weights = _converted(found, spec, layout, source)
    placed = tuple(sorted(view.inside[name] for name in found))
    return Foreign(weights, placed, dropped, view.prefix, ", ".join(kinds))


def open_file(path: Path) -> Mapping[str, Any]:
    """Open a file of `torch.save` or safetensors without running what it might hold; tensors stay on disk until read.

    The only Python object let through is `argparse.Namespace`, in which training scripts keep their options.

    Raises:
        UnsafeError: it holds others.
        UnsupportedError: it is a TorchScript program.
        CheckpointError: it is neither kind of file, or not whole.
    """
    with path.open("rb") as file:
        head = file.read(64)
    is_zip = head.startswith(b"PK")
    if head[8:9] == b"{" and not is_zip:
        return read_weights(path)
    if not is_zip and not head.startswith(_OLD_FORMAT):
        raise CheckpointError(f"{path}: expected a file of torch.save or safetensors, got {_lookalike(head)}.")
    if is_zip and _is_program(path):
        raise UnsupportedError(f"{path}: expected weights, got a TorchScript program: save its state_dict() instead.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise UnsafeError(
            f"{path}: expected tensors and plain values, but unpickling it asks for other Python objects, which could run "
            f"code ({_reason(error)}). If you trust where it comes from, load it once with its authors' code and save the "
            "weights alone: torch.save({'model': model.state_dict()}, path)."
        ) from error
    except _NOT_WHOLE as error:
        told = str(error).partition("\n")[0].rstrip(".")
        raise CheckpointError(f"{path}: expected a whole file of torch.save, got: {told}.") from error
    if isinstance(found, Tensor) or not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of weights, got one {type(found).__name__}.")
    return found


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False  # not whole, which opening it will say


def _lookalike(head: bytes) -> str:
    """Name what people get in place of weights."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "a web page: the download led to a login or an error page"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: fetch the file itself with `git lfs pull`"
    if start.startswith(b"\x80"):
        return "a bare pickle, which could run code when opened"
    return "an empty file" if not head else "neither"


def _reason(error: Exception) -> str:
    """Pick the line of torch's page of advice that names the object."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (lines or str(error).splitlines() or ["unknown"])[0].partition(" was not")[0].rstrip(".")[:200]


def _unwrapped(file: Mapping[str, Any], layout: Layout, source: str) -> dict[str, Tensor]:
    """Go down to the dictionary that holds the tensors."""
    state, outer = file, dict.fromkeys((*layout.outer, *OUTER))
    for _ in range(_MOST_NESTED):
        inner = next((key for key in outer if isinstance(state.get(key), Mapping)), None)
        if inner is None and any(isinstance(value, Tensor) for value in state.values()):
            break  # a tensor beside such a dictionary, such as the best accuracy so far, is no weight
        if inner is None:
            raise CheckpointError(
                f"{source}: expected tensors, or a dictionary of them under {' or '.join(map(repr, outer))}, got "
                f"{listed(sorted(map(str, state)))}."
            )
        state = state[inner]
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _best_view(state: Mapping[str, Tensor], spec: EncoderSpec, layout: Layout) -> tuple[_View, set[str]]:
    """Find the chain of prefixes under which most of the encoder's keys lie, the shortest of equals, and those keys."""
    plain = {".".join(piece for piece in key.split(".") if piece not in TRANSPARENT): key for key in state}
    plain = plain if len(plain) == len(state) else {key: key for key in state}
    encoder_keys = importlib.import_module(layout.convert).encoder_keys
    needed: set[str] = encoder_keys(spec, ())
    views = _views(_View("", plain, ()), (*WRAPPERS, *layout.prefixes))
    best = max(views, key=lambda view: (len(needed & view.inside.keys()), -len(view.prefix)))
    if not needed <= best.inside.keys():
        needed = encoder_keys(spec, best.inside.keys())  # some releases have two names for one key
    return best, needed


def _views(view: _View, prefixes: Collection[str], depth: int = 6) -> Iterator[_View]:
    """Walk through all chains of prefixes that occur, whole segments at the front only."""
    yield view
    for prefix in prefixes:
        inside = {name[len(prefix) :]: key for name, key in view.inside.items() if name.startswith(prefix)}
        if inside and depth:
            rest = tuple(pair for pair in view.inside.items() if not pair[0].startswith(prefix))
            yield from _views(_View(view.prefix + prefix, inside, (*view.beside, *rest)), prefixes, depth - 1)


def _accounted(view: _View, needed: Collection[str], layout: Layout, source: str) -> tuple[str, ...]:
    """Give the keys that the layout drops; every other one must be needed, and every needed one be there."""

    def is_dropped(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in layout.drop)

    missing = sorted(view.prefix + name for name in needed if name not in view.inside)
    left = [(name, key) for name, key in view.inside.items() if name not in needed] + [*view.beside]
    unexpected = sorted(key for name, key in left if not is_dropped(name))
    if missing or unexpected:
        lists = {"missing": missing, "unexpected": unexpected}
        told = "; ".join(f"{kind}: {listed(keys)}" for kind, keys in lists.items() if keys)
        placed = len(needed) - len(missing)
        raise CheckpointError(f"{source}: expected all {len(needed)} keys of the encoder, got {placed}; {told}.")
    return tuple(sorted(key for name, key in left if is_dropped(name)))


def _check_finite(found: Mapping[str, Tensor], view: _View, source: str) -> None:
    wrong = [view.inside[name] for name, value in found.items() if value.is_floating_point() and not _is_finite(value)]
    if wrong:
        raise CheckpointError(f"{source}: expected finite weights, got NaN or infinity in {listed(sorted(wrong))}.")


def _is_finite(value: Tensor) -> bool:
    # A sum of finite numbers of fewer bits cannot overflow a double.
    return value.is_meta or bool(torch.isfinite(value.sum(dtype=torch.float64)))


def _converted(found: dict[str, Tensor], spec: EncoderSpec, layout: Layout, source: str) -> dict[str, Tensor]:
    """Translate to our keys; a shape that the translation itself cannot handle is the file's fault."""
    encoder_weights = importlib.import_module(layout.convert).encoder_weights
    try:
        weights: dict[str, Tensor] = encoder_weights(found, spec if layout.given == "spec" else spec.contract.inputs[0])
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, HalfseenError):
            raise
        raise CheckpointError(f"{source}: expected tensors of the layout {layout.convert}, got: {error}.") from error
    return weights
