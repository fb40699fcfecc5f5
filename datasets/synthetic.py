"""The embedded sample set: labelled procedural photographs and volumes, written once; default data of every verb."""

from __future__ import annotations

import csv
import json
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, RunFolderError
from core.rng import numpy_rng

_VERSION = 1  # of what is drawn: a folder of another version is another sample set
_GRADE_SHARES = (0.30, 0.16, 0.22, 0.16, 0.16)
_README = """halfseen sample set: SYNTHETIC images, drawn by a program

No patient, eye or scanner was involved. Use it to run and test software; nothing measured on it says anything about
medicine. Licence: CC0 1.0 (public domain).

photographs/  colour fundus photographs, JPEG and PNG; grade 0-4 by their lesions
volumes/      OCT-like volumes, NIfTI; grade 0-4 by drusen and fluid. x runs along a B-scan, y into the depth, z from
              B-scan to B-scan; world directions are nominal.
labels.csv    file, grade, patient (keep a patient's images together when splitting), kind
"""


def sample_set(root: Path, *, photographs: int = 240, volumes: int = 48, seed: int = 0) -> Path:
    """Write the sample set into the folder `root` unless it is there; gives `root`.

    `root/photographs`, `root/volumes` (.nii.gz), `root/labels.csv` (file, grade, patient, kind), `root/README.txt`. Two
    images per patient. Same arguments, same bytes on one software version. The folder appears complete or not at all.

    Raises:
        ConfigError: fewer than one photograph or volume in all, or `root` holds something else.
        RunFolderError: `root` cannot be written.
    """
    root = Path(root)
    facts = {"version": _VERSION, "photographs": photographs, "volumes": volumes, "seed": seed}
    if photographs < 0 or volumes < 0 or photographs + volumes < 1:
        raise ConfigError(f"expected at least one photograph or volume, got {photographs} and {volumes}.")
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        return _verified(root, facts)
    draft = root.parent / f".{root.name}.{uuid.uuid4().hex[:12]}"
    try:
        (draft / "photographs").mkdir(parents=True)
        (draft / "volumes").mkdir()
        _write(draft, photographs, volumes, seed)
        (draft / "README.txt").write_text(_README)
        (draft / "sample_set.json").write_text(json.dumps(facts) + "\n")
        try:
            draft.rename(root)
        except OSError:
            if not (root / "sample_set.json").exists():
                raise
            return _verified(root, facts)  # another process was first
    except OSError as error:
        raise RunFolderError(f"{root}: the sample set cannot be written ({error}); choose a writable folder.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _verified(root: Path, facts: dict[str, int]) -> Path:
    mark = root / "sample_set.json"
    try:
        found = json.loads(mark.read_text())
    except (OSError, ValueError):
        found = None
    if found != facts:
        raise ConfigError(
            f"{root}: expected no folder or the sample set {facts}, found {found}; choose another folder."
        )
    return root


def _write(folder: Path, photographs: int, volumes: int, seed: int) -> None:
    lines: list[tuple[str, int, str, str]] = []
    jobs: list[Callable[[], None]] = []
    for kind, letter, total in (("photograph", "P", photographs), ("volume", "V", volumes)):
        grades = _grades(kind, (total + 1) // 2, seed)
        for number in range(total):
            patient, side = number // 2, "RL"[number % 2]
            stem = f"{letter}{patient + 1:04d}_{side}"
            grade = _second_eye(kind, patient, grades[patient], seed) if side == "L" else grades[patient]
            ending = ".nii.gz" if kind == "volume" else ".png" if number % 8 == 7 else ".jpg"
            file = f"{kind}s/{stem}{ending}"
            lines.append((file, grade, f"{letter}{patient + 1:04d}", kind))
            jobs.append(_job(folder / file, kind, stem, grade, seed))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    with (folder / "labels.csv").open("w", newline="") as file_out:
        writer = csv.writer(file_out, lineterminator="\n")
        writer.writerow(("file", "grade", "patient", "kind"))
        writer.writerows(lines)


def _grades(kind: str, patients: int, seed: int) -> list[int]:
    """A grade per patient: the shares are met as nearly as whole numbers allow, the order is random."""
    edges = np.round(np.cumsum((0.0, *_GRADE_SHARES)) * patients).astype(int)
    grades = np.repeat(np.arange(len(_GRADE_SHARES)), np.diff(edges))
    return [int(grade) for grade in numpy_rng(seed, "sample set", kind, "grades").permutation(grades)]


def _second_eye(kind: str, patient: int, grade: int, seed: int) -> int:
    """The other eye usually has the same grade, else a neighbouring one."""
    rng = numpy_rng(seed, "sample set", kind, "second eye", patient)
    return int(np.clip(grade + rng.choice((-1, 0, 0, 0, 1)), 0, len(_GRADE_SHARES) - 1))


def _job(path: Path, kind: str, stem: str, grade: int, seed: int) -> Callable[[], None]:
    rng = numpy_rng(seed, "sample set", stem)
    if kind == "volume":
        return lambda: _write_volume(path, rng, grade)
    return lambda: _write_photograph(path, rng, grade)


def _write_photograph(path: Path, rng: np.random.Generator, grade: int) -> None:
    from PIL import Image

    from datasets.synthetic_fundus import photograph

    pixels = photograph(rng, grade, right_eye="_R." in path.name)
    options: dict[str, Any] = {"compress_level": 3} if path.suffix == ".png" else {"quality": int(rng.integers(84, 95))}
    Image.fromarray(pixels).save(path, **options)


def _write_volume(path: Path, rng: np.random.Generator, grade: int) -> None:
    """Save as NIfTI; every other patient as LPS, as some scanners do, so that readers have something to turn."""
    import gzip

    import nibabel as nib

    from datasets.synthetic_oct import SPACING_MM, volume

    voxels = volume(rng, grade).transpose(2, 1, 0)  # stored (x, y, z)
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    if int(path.name[1:5]) % 2 == 0:
        shape = np.array(voxels.shape)
        voxels = voxels[::-1, ::-1]
        affine[:2, 3] = affine[[0, 1], [0, 1]] * (shape[:2] - 1)
        affine[:2, :2] *= -1
    image = nib.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.header.set_xyzt_units("mm")
    # mtime=0 and no file name in the gzip header: the same volume is the same bytes.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))
