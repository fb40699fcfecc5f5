"""Files that lie where a scene does: their place, their names, and that none is replaced unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from core.cli import Options
from core.engine.run_folder import check_writable
from core.errors import ConfigError, DataError, RunFolderError
from core.geometry import Spacing
from core.inference import Windows
from datasets import LazyImage
from datasets.writers import Facts


def placed(image: LazyImage, windows: Windows, values: int) -> Facts:
    """Describe a float32 file of `values` bands that lies where the scene does, one number per cell."""
    steps = zip(image.spacing.values, windows.cell, strict=True)
    where = image.georeference
    return Facts(
        shape=(values, *windows.result),
        dtype=np.dtype(np.float32),
        bands=tuple(f"band_{number + 1}" for number in range(values)),
        spacing=Spacing(tuple(step * cell for step, cell in steps), image.spacing.unit),
        georeference=None if where is None else where.scaled((windows.cell[0], windows.cell[1])),
    )


def targets(images: Sequence[LazyImage], out: Path, ending: str) -> list[Path]:
    """Give the file of each scene's result: `out` itself where it names a file and there is one scene, else a file in `out`.

    Raises:
        ConfigError: `out` names one file for several scenes.
        DataError: two scenes have one name.
    """
    if out.suffix:
        if len(images) > 1:
            raise ConfigError(f"--out {out}: expected a folder for {len(images)} scenes, got the name of a file.")
        return [out]
    names = [image.path.stem for image in images]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"expected scenes of different names, but two are called '{twice}'; map them one by one.")
    return [out / f"{name}{ending}" for name in names]


def refuse_existing(paths: Sequence[Path], options: Options) -> None:
    """Refuse to replace files unasked, and folders that cannot be written into, before any work.

    Raises:
        RunFolderError: one is there already, or its folder refuses.
    """
    for folder in {path.parent for path in paths}:
        check_writable(folder)
    there = next((path for path in paths if path.exists()), None)
    if there is not None and not options.overwrite:
        raise RunFolderError(f"{there} exists: replace it with --overwrite, or name another file with --out.")


def remove(paths: Iterable[Path]) -> None:
    """Delete files that are no longer right."""
    for path in paths:
        path.unlink()
