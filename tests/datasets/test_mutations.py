"""Mutation test: flipped bits and cut-off ends in six formats; what is wrong is refused or found, and nothing dies.

For every damaged file: `datasets.check --verify` must find it; reading it must end in an error of ours or in voxels, within
5 s and little memory; and a prepared store or a `.nii.gz` must never give other voxels than the undamaged one.

The default suite tries a few, the slow one 3,000; `HALFSEEN_MUTATIONS=15000` tries that many.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.errors import HalfseenError
from datasets.check import verify
from datasets.content import digest_of, size_of
from datasets.image import LazyImage
from datasets.index import build_manifest
from datasets.manifest import Manifest
from datasets.readers import open_image
from datasets.readers._store import attributes_of, create, finish

FORMATS = ("nii", "nii.gz", "tif", "zarr", "png", "jpg")
SEALED = ("nii.gz", "zarr")  # every damage must be refused when it is read, or be harmless
PACKING = (None, "deflate", "zstd")  # of the GeoTIFFs, in turn
TRUNCATED = 5  # one case of so many is a cut-off end
HANG_S, MEMORY_MIB = 5.0, 200.0
PATIENCE_S = 60.0  # after which a silent worker is given up and killed; a machine may be busy

Outcome = Literal["refused", "equal", "altered", "unnamed"]


@dataclass(frozen=True)
class Case:
    """One damage: which format, and the seed of what is done to it."""

    format: str
    seed: int


@dataclass(frozen=True)
class Result:
    """What became of it.

    Attributes:
        found: whether `verify` found the damage.
        outcome: of reading: an error of ours, the same voxels, other voxels, or an error that is not ours.
        seconds: of reading.
        memory: MiB that the worker has grown by since it began, at most.
        text: the error's.
    """

    case: Case
    found: bool
    outcome: Outcome
    seconds: float
    memory: float
    text: str = ""


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """Voxels that compress a little, as images do."""
    rng = np.random.Generator(np.random.Philox(key=7))
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return sum(np.sin((2 + k) * axis) for k, axis in enumerate(axes)) * 50 + 120 + rng.normal(0, 4, shape)


def originals(folder: Path) -> Path:
    """Make one undamaged image per format and packing."""
    import rasterio

    voxels = smooth((20, 24, 22)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0]))
    nib.save(image, folder / "a.nii")
    nib.save(image, folder / "a.nii.gz")
    pixels = smooth((3, 64, 72)).clip(0, 255).astype(np.uint8)
    facts = {"driver": "GTiff", "count": 3, "height": 64, "width": 72, "dtype": "uint8", "crs": "EPSG:32615"}
    facts |= {"transform": rasterio.Affine(30, 0, 5e5, 0, -30, 2e6), "tiled": True, "blockxsize": 32, "blockysize": 32}
    for packing in PACKING:
        with rasterio.open(
            folder / f"{packing}.tif", "w", **facts, **({"compress": packing} if packing else {})
        ) as file:
            file.write(pixels)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "a.png")
    Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "a.jpg")
    source = open_image(folder / "a.nii")
    group = create(folder / "a.zarr", source.shape, source.dtype)
    group["image"][:] = source.read()
    finish(folder / "a.zarr", attributes_of(source))
    return folder


def name_of(case: Case) -> str:
    return f"{PACKING[case.seed % len(PACKING)]}.tif" if case.format == "tif" else f"a.{case.format}"


def damage(path: Path, seed: int) -> None:
    """Flip one bit, or cut the end off; of a store, in one of its files: the large one, or any."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    sizes = np.array([file.stat().st_size for file in files])
    target = files[int(rng.choice(len(files), p=sizes / sizes.sum() if rng.random() < 0.5 else None))]
    data = bytearray(target.read_bytes())
    if seed % TRUNCATED == 0:
        data = data[: int(rng.integers(0, len(data)))]
    else:  # half of them early: headers are short and matter most
        place = int(rng.integers(0, min(len(data), 512) if rng.random() < 0.5 else len(data)))
        data[place] ^= 1 << int(rng.integers(0, 8))
    target.write_bytes(data)


def facts_of(image: LazyImage) -> tuple[object, ...]:
    return image.bands, image.spacing, image.affine, image.georeference, image.nodata, image.scaling, image.units


def attempt(case: Case, source: Path, folder: Path, truths: dict[str, np.ndarray], before: float) -> Result:
    name = name_of(case)
    path = folder / name
    if (source / name).is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source / name, path)
    else:
        shutil.copy(source / name, path)
    damage(path, case.seed)
    manifest = Manifest.read(source / f"{name}.parquet")
    found = len(verify(manifest, folder=folder, workers=1)) == 1
    start = time.perf_counter()
    text = ""
    try:
        image = open_image(path)
        voxels = image.read()
        same = voxels.dtype == truths[name].dtype and np.array_equal(voxels, truths[name])
        if case.format in SEALED:
            same &= facts_of(image) == facts_of(open_image(source / name))
        outcome: Outcome = "equal" if same else "altered"
    except HalfseenError as error:
        outcome, text = "refused", str(error)
    except Exception as error:
        outcome, text = "unnamed", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Result(
        case, found, outcome, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, text
    )


def work(inbox: Connection, source: Path, folder: Path) -> None:
    """Live through many cases; one reply for each."""
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - libraries in C complain to the descriptor
        os.dup2(nowhere.fileno(), 2)
    names = {name_of(Case(kind, seed)) for kind in FORMATS for seed in range(len(PACKING))}
    truths = {name: open_image(source / name).read() for name in names}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    inbox.send("ready")
    while (case := inbox.recv()) is not None:
        inbox.send(attempt(case, source, folder, truths, before))


class Worker:
    """A long-lived process under watch: it answers, or it died or hung, and another one takes its place."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder, self.lost = source, folder, 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        folder = self.folder / f"life{self.lost}"
        self.process = context.Process(target=work, args=(theirs, self.source, folder), daemon=True)
        self.process.start()
        theirs.close()
        assert self.pipe.poll(120), "the worker does not start"
        assert self.pipe.recv() == "ready"

    def ask(self, case: Case) -> None:
        self.pipe.send(case)

    def answer(self, case: Case) -> Result | str:
        """The result, or how the process was lost."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self.pipe.poll(PATIENCE_S):
                result: Result = self.pipe.recv()
                return result
        how = "hung" if self.process.is_alive() else f"died ({self.process.exitcode})"
        self.process.kill()
        self.process.join()
        self.lost += 1
        self._start()
        return f"{case}: the process {how}"

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join(timeout=20)
        self.process.kill()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = originals(tmp_path_factory.mktemp("originals"))
    for path in [path for path in folder.iterdir() if path.suffix != ".parquet"]:
        build_manifest([path]).write(folder / f"{path.name}.parquet")
    return folder


def run(number: int, source: Path, folder: Path) -> tuple[list[Result], list[str]]:
    """Try `number` cases of each format on two processes."""
    cases = [Case(kind, seed) for seed in range(number) for kind in FORMATS]
    workers = [Worker(source, folder / f"worker{n}") for n in range(2)]
    results, lost = [], []
    for start in range(0, len(cases), len(workers)):
        pairs = list(zip(workers, cases[start : start + len(workers)], strict=False))
        for worker, case in pairs:
            worker.ask(case)
        for worker, case in pairs:
            answer = worker.answer(case)
            if isinstance(answer, Result):
                results.append(answer)
            else:
                lost.append(answer)
    for worker in workers:
        worker.end()
    return results, lost


def examine(results: list[Result], lost: list[str], number: int) -> Iterator[str]:
    """Every breach of what was promised, as a sentence."""
    yield from lost
    for result in results:
        name = f"{result.case} ({name_of(result.case)})"
        if not result.found:
            yield f"{name}: verify did not find it"
        if result.outcome == "altered" and result.case.format in SEALED:
            yield f"{name}: other voxels were read"
        if result.outcome == "unnamed":
            yield f"{name}: an error that is not ours: {result.text}"
        if result.seconds > HANG_S:
            yield f"{name}: {result.seconds:.1f} s"
        if result.memory > MEMORY_MIB:
            yield f"{name}: {result.memory:.0f} MiB"
    if len(results) + len(lost) != number * len(FORMATS):
        yield f"{len(results)} results"


def table(results: list[Result]) -> str:
    counts = Counter((result.case.format, result.outcome) for result in results)
    lines = ["format   refused  equal  altered  unnamed"]
    for kind in FORMATS:
        refused, equal, altered, unnamed = (counts[kind, how] for how in ("refused", "equal", "altered", "unnamed"))
        lines.append(f"{kind:8s} {refused:7d} {equal:6d} {altered:8d} {unnamed:8d}")
    slowest, most = max(result.seconds for result in results), max(result.memory for result in results)
    return "\n".join([*lines, f"slowest {slowest:.2f} s, memory {most:.0f} MiB"])


@pytest.mark.filterwarnings("ignore")  # what libraries say of damaged files
def test_a_few_damages_are_found_and_refused(source: Path, tmp_path: Path) -> None:
    names = {name_of(Case(kind, seed)) for kind in FORMATS for seed in range(len(PACKING))}
    truths = {name: open_image(source / name).read() for name in names}
    cases = [Case(kind, seed) for seed in range(10) for kind in FORMATS]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results = [
        attempt(case, source, tmp_path, truths, before) for case in cases
    ]  # here: a process of its own takes 2 s
    breaches = list(examine(results, [], 10))
    assert not breaches, "\n".join(breaches[:20])
    refused = Counter(result.case.format for result in results if result.outcome == "refused")
    assert refused["zarr"] >= 8, table(results)  # the test itself can fail: damage is seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_damages_are_found_and_refused(source: Path, tmp_path: Path) -> None:
    number = math.ceil(int(os.environ.get("HALFSEEN_MUTATIONS", "3000")) / len(FORMATS))
    results, lost = run(number, source, tmp_path)
    print(table(results))
    breaches = list(examine(results, lost, number))
    assert not breaches, f"{len(breaches)} breaches\n" + "\n".join(breaches[:20]) + "\n" + table(results)


def test_damage_is_repeatable_and_real(source: Path, tmp_path: Path) -> None:
    for kind in FORMATS:
        for seed in (5, 6):  # an end cut off, a bit flipped
            name = name_of(Case(kind, seed))
            copies = []
            for turn in "ab":
                path = tmp_path / f"{turn}{seed}" / name
                path.parent.mkdir(exist_ok=True)
                (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, path)
                damage(path, seed)
                copies.append(digest_of(path))
                assert (size_of(path) < size_of(source / name)) == (seed == 5)
            assert copies[0] == copies[1] != digest_of(source / name)


@pytest.mark.slow
def test_a_worker_that_dies_is_counted_and_replaced(source: Path, tmp_path: Path) -> None:
    worker = Worker(source, tmp_path)
    worker.process.kill()
    answer = worker.answer(Case("png", 1))
    assert answer == "Case(format='png', seed=1): the process died (-9)" or "hung" in str(answer)
    worker.ask(Case("png", 1))
    assert isinstance(worker.answer(Case("png", 1)), Result)
    worker.end()
