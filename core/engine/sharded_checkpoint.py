"""Checkpoints that all ranks write at once, each its part: torch's distributed format, published and verified as others are.

A folder `step_000120/` holds `__<rank>_0.distcp` of every rank, torch's `.metadata`, `state.json` and `digests.json`. It
is read by any number of ranks, one included. torch promises to read the format with the version that wrote it; the
encoder that a run exports is one safetensors file, for good.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from core import checkpoint
from core.engine.distributed import World
from core.errors import CheckpointError
from core.weights import file_digest

_SAFE = {
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath"},
    "pathlib._local": {"Path", "PosixPath"},  # where Python 3.13 keeps them
    "torch": {"Size", "device", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
}


def save(run: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], world: World) -> Path:
    """Publish a checkpoint; every rank calls it, with all names and its own parts. As `core.checkpoint.save` otherwise.

    Raises:
        RunFolderError: on every rank: the disk of one refuses, or they do not share a disk.
    """
    target = checkpoint.step_folder(run, step)
    size = sum(t.numel() * t.element_size() for t in tensors.values())  # of whole tensors, not of this rank's parts

    def begin() -> Path:
        checkpoint.require_space(run, size)
        return checkpoint.stage_folder(target)

    staged = world.on_main(begin)
    problem, mine = _write(staged, tensors, world)
    told: list[Any] = [None] * world.size
    distributed.all_gather_object(told, (problem, mine))

    def end() -> None:
        problems = [f"rank {rank}: {text}" for rank, (text, _) in enumerate(told) if text]
        digests = {name: digest for _, part in told for name, digest in part.items()}
        unseen = sorted(name for name in digests if not (staged / name).is_file())
        if unseen and not problems:
            problems = [f"rank 0 does not see {', '.join(unseen)}; all ranks must write to one disk that they share"]
        if problems:
            raise checkpoint.give_up(staged, target, "; ".join(problems))
        checkpoint.seal(staged, step, state, digests)
        checkpoint.settle_folder(staged, target)
        checkpoint.point_at(target)

    world.on_main(end)
    return target


def _write(staged: Path, tensors: Mapping[str, Tensor], world: World) -> tuple[str | None, dict[str, str]]:
    """Write this rank's parts; say what went wrong, or give the digests of what was written."""
    from torch.distributed.checkpoint.state_dict_saver import save as save_parts

    try:
        save_parts(dict(tensors), storage_writer=FileSystemWriter(staged))
        files = sorted(staged.glob(f"__{world.rank}_*"))
        if world.is_main:
            files.append(staged / checkpoint.PARTS)
        return None, {file.name: file_digest(file) for file in files}
    except CheckpointException as error:
        return "; ".join(sorted({str(cause[0]) for cause in error.failures.values()})), {}
    except OSError as error:
        return error.strerror or str(error), {}


def stored_shapes(folder: Path) -> dict[str, torch.Size]:
    """List the tensors of a checkpoint by name, with their whole shapes.

    Raises:
        CheckpointError: its `.metadata` is not what `save` writes.
    """
    entries = _Reader(folder).read_metadata().state_dict_metadata
    odd = sorted(name for name, entry in entries.items() if not isinstance(entry, TensorStorageMetadata))
    if odd:
        raise CheckpointError(f"{folder}: expected tensors alone, got something else under {', '.join(odd)}.")
    return {name: entry.size for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, whole or shared out, from a checkpoint that verified; every rank calls it. All fit, or none is touched.

    Raises:
        CheckpointError: lists all that is missing, unexpected or of another shape.
    """
    from torch.distributed.checkpoint.state_dict_loader import load as load_parts

    have = stored_shapes(folder)
    problems = [f"missing: {name}" for name in sorted(into.keys() - have.keys())]
    problems += [f"unexpected: {name}" for name in sorted(have.keys() - into.keys())]
    problems += [
        f"reshaped: {name} is {tuple(have[name])} there and {tuple(into[name].shape)} here"
        for name in sorted(have.keys() & into.keys())
        if have[name] != into[name].shape
    ]
    if problems:
        raise CheckpointError(f"{folder} does not fit this run: {'; '.join(problems)}.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # one process needs none
        try:
            load_parts(dict(into), storage_reader=_Reader(folder))
        except CheckpointException as error:
            causes = "; ".join(sorted({str(cause[0]) for cause in error.failures.values()}))
            raise CheckpointError(f"{folder}: expected a whole checkpoint, got: {causes}.") from error


class _Reader(FileSystemReader):
    """torch's reader, which unpickles no more than the classes that describe tensors."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read `.metadata`; nothing in it is run."""
        path = Path(self.path) / checkpoint.PARTS
        try:
            with path.open("rb") as file:
                metadata = _Unpickler(file).load()
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{path}: expected what describes a sharded checkpoint, got: {error}.") from error
        if not isinstance(metadata, Metadata):
            raise CheckpointError(
                f"{path}: expected what describes a sharded checkpoint, got {type(metadata).__name__}."
            )
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _SAFE.get(module, ()):
            raise pickle.UnpicklingError(f"'{module}.{name}', which has no place there")
        return super().find_class(module, name)
