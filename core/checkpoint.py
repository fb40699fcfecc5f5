"""Save, find again, export: weights as safetensors and JSON, published atomically and digested.

A folder appears under its name only when it is complete: written beside it, flushed to disk, renamed. Placing weights
into an object is `core.weights`, what a run remembers besides tensors `core.engine.state`, and reading an exported
encoder `core.encoders.load`.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.config import to_dict
from core.encoders.base import Backbone
from core.errors import CheckpointError, RunFolderError
from core.weights import FORMAT, file_digest

DIGESTS = "digests.json"
PARTS = ".metadata"
"""Where torch's distributed format describes the parts of a checkpoint that several ranks wrote."""
_SPACE = 2.2  # the new checkpoint stands beside the last two while it is written


# --- atomic publication -----------------------------------------------------------------------------------------------


def publish_text(target: Path, text: str) -> None:
    """Replace a small file as a whole; see `publish`."""
    publish(target, lambda path: _write(path, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Replace a file as a whole: after a crash it holds the old content or the new one. `write` fills a hidden sibling.

    Raises:
        RunFolderError: the disk is full or refuses.
    """
    temporary = target.with_name(f".{target.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        write(temporary)
        _sync_file(temporary)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunFolderError(
            f"{target} could not be written: {error.strerror}; what was there is untouched."
        ) from error


def publish_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Create (or replace) a folder as a whole: `write` fills a hidden sibling, which is flushed and renamed.

    Raises:
        RunFolderError: the disk is full or refuses; the sibling is removed and `target` is as it was.
    """
    staged = stage_folder(target)
    try:
        write(staged)
    except (OSError, safetensors.SafetensorError) as error:
        raise give_up(staged, target, getattr(error, "strerror", None) or str(error)) from error
    settle_folder(staged, target)


def stage_folder(target: Path) -> Path:
    """Make the hidden sibling of a folder that is to appear as a whole; `settle_folder` or `give_up` ends it.

    Raises:
        RunFolderError: the disk refuses.
    """
    staged = target.with_name(f".{target.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        staged.mkdir()
    except OSError as error:
        raise give_up(staged, target, error.strerror) from error
    return staged


def settle_folder(staged: Path, target: Path) -> None:
    """Flush a staged folder to disk and let it appear under its name.

    Raises:
        RunFolderError: the disk refuses; `target` is as it was.
    """
    replaced = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[:8]}")
    try:
        for entry in (*staged.rglob("*"), staged):
            (_sync_folder if entry.is_dir() else _sync_file)(entry)
        if target.exists():
            target.rename(replaced)
        staged.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise give_up(staged, target, error.strerror) from error
    shutil.rmtree(replaced, ignore_errors=True)


def give_up(staged: Path, target: Path, reason: str | None) -> RunFolderError:
    """Remove what was staged and give the error that says so."""
    shutil.rmtree(staged, ignore_errors=True)
    return RunFolderError(
        f"{target} could not be written: {reason}; what was published before is untouched: "
        "free some space or mend the disk, then continue with --resume."
    )


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse to start writing what will not fit: 2.2 x its size must be free.

    Raises:
        RunFolderError: it is not.
    """
    free = shutil.disk_usage(folder).free
    if free < _SPACE * num_bytes:
        raise RunFolderError(
            f"expected {_SPACE * num_bytes / 1e6:.0f} MB free in {folder}, {_SPACE} times a checkpoint, "
            f"got {free / 1e6:.0f} MB: free some space, or choose another --out."
        )


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- checkpoints of a run ---------------------------------------------------------------------------------------------


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Publish `step_000120/{<name>.safetensors, state.json, digests.json}`, point `last` at it, keep the last two.

    Raises:
        RunFolderError: not enough space, or the disk refuses; the last good checkpoint is untouched.
    """
    require_space(run, sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values()))

    def write(folder: Path) -> None:
        for name, group in tensors.items():
            save_file(
                {key: t.detach().cpu().contiguous().clone() for key, t in group.items()}, folder / f"{name}.safetensors"
            )
        seal(folder, step, state, {file.name: file_digest(file) for file in folder.iterdir()})

    target = step_folder(run, step)
    publish_folder(target, write)
    point_at(target)
    return target


def step_folder(run: Path, step: int) -> Path:
    """Name the checkpoint of a step."""
    return run / f"step_{step:06d}"


def is_sharded(folder: Path) -> bool:
    """Say whether a checkpoint is in parts, for `core.engine.sharded_checkpoint`."""
    return (folder / PARTS).is_file()


def seal(folder: Path, step: int, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Add `state.json` to a checkpoint that is being written, and `digests.json` of all its files."""
    path = folder / "state.json"
    path.write_text(json.dumps({"format": FORMAT, "step": step, **state}), encoding="utf-8")
    whole = dict(sorted({**digests, path.name: file_digest(path)}.items()))
    (folder / DIGESTS).write_text(json.dumps(whole), encoding="utf-8")


def point_at(published: Path) -> None:
    """Let `last` name a checkpoint, and delete all but one of those before it.

    Raises:
        RunFolderError: the disk refuses.
    """
    run = published.parent
    publish_text(run / "last", published.name + "\n")
    older = [folder for folder in checkpoints(run) if _step(folder) < _step(published)]
    for folder in older[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """List a run's checkpoint folders, newest step first, whether or not they verify."""
    found = [path for path in run.glob("step_*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def verify(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None: every listed file is there and has the bytes that were written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        for name, digest in digests.items():
            if file_digest(folder / name) != digest:
                return f"the bytes of {name} are not those that were written"
        if digests.keys() != {file.name for file in folder.iterdir()} - {DIGESTS}:
            return f"its files are not those that {DIGESTS} lists"
        if json.loads((folder / "state.json").read_text(encoding="utf-8"))["format"] != FORMAT:
            return f"it is not of format {FORMAT}"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """Find the newest checkpoint that verifies, and say which newer ones were refused and why.

    Raises:
        CheckpointError: there are checkpoints and none verifies.
    """
    refused: list[str] = []
    for folder in checkpoints(run):
        reason = verify(folder)
        if reason is None:
            return folder, refused
        refused.append(f"{folder.name} refused: {reason}")
    if refused:
        raise CheckpointError(
            f"expected a checkpoint that verifies in {run}, got none ({'; '.join(refused)}): "
            "bring one back from a backup, or start again with --overwrite."
        )
    return None, []


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state of a checkpoint that verified."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


# --- export -----------------------------------------------------------------------------------------------------------


def export_encoder(
    encoder: Backbone,
    folder: Path,
    *,
    about: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Publish an encoder as `config.json` (spec, weights' digest, versions) and `model.safetensors`.

    Args:
        encoder: its `spec` is written with its weights.
        folder: created or replaced as a whole.
        about: plain facts to keep beside it, such as the run and step that it comes from.
        weights: all of its weights, where it does not hold them whole itself; none = its own.

    Raises:
        RunFolderError: the disk is full or refuses.
    """

    def write(target: Path) -> None:
        given = encoder.state_dict() if weights is None else weights
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in given.items()}
        save_file(tensors, target / "model.safetensors")
        facts = {
            "format": FORMAT,
            "spec": to_dict(encoder.spec),
            "digests": {"model.safetensors": file_digest(target / "model.safetensors")},
            "versions": {"torch": str(torch.__version__)},
            "about": dict(about or {}),
        }
        (target / "config.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")

    publish_folder(folder, write)
    return folder
