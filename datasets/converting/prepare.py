"""Converting a collection: every image to a prepared store, then the manifest and the statistics of the whole.

Done images are recognised by their source's digest and their settings, so that an interrupted conversion goes on where it
was; the manifest comes last. The command line is `convert`, one image is `conversion`, who works is `dispatch`.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, DataError, RunFolderError
from datasets.checking.report import size_text
from datasets.collect import MANIFEST, Entry, entries_of
from datasets.converting.conversion import recall
from datasets.converting.dispatch import convert_all
from datasets.converting.job import STATE, Job, Outcome, Settings, is_divided, up_to_date, voxel_bytes
from datasets.examine import Examined, cores, examine_all
from datasets.index import found, put_together
from datasets.manifest import FACTS, Manifest
from datasets.publishing import draft_of, published, sweep
from datasets.readers import configured, suffixes
from datasets.safety import local
from datasets.statistics import Statistics, merge_bands

IMAGES, STATISTICS = "images", "statistics.json"
_CHANGED = tuple(
    name for name in FACTS if name not in ("root", "file", "group", "split", "time")
)  # what a store says anew

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a conversion did.

    Attributes:
        out: the converted collection.
        converted: images written now.
        kept: images that were there already.
        failed: (file, sentence) of those that could not be converted.
        source_bytes: on disk, of the images that are converted now or were before.
        bytes: on disk, of their stores.
        voxel_bytes: of the stores' voxels.
        seconds: it took.
    """

    out: Path
    converted: int
    kept: int
    failed: tuple[tuple[str, str], ...]
    source_bytes: int
    bytes: int
    voxel_bytes: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every image was converted, so that there is a manifest."""
        return not self.failed

    @property
    def ratio(self) -> float:
        """Size of the stores to that of their sources."""
        return self.bytes / self.source_bytes if self.source_bytes else math.nan


def convert(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: Settings | None = None,
    *,
    options: Sequence[str] = (),
    group: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    skip_failed: bool = False,
    exclude: Sequence[str] = (),
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert a collection to prepared stores; the folder `out` becomes one that holds stores, a manifest and statistics.

    The collection is found as by `build_manifest`, whose options these are; images that fail are listed.

    Raises:
        ConfigError: an option does not fit or has no effect, or stores that are there were made otherwise.
        DataError: no image, or a collection that contradicts itself.
        RunFolderError: `out` cannot be written, has no room, or is being written by another process.
    """
    begun = time.monotonic()
    settings = settings or Settings()
    progress = progress or (lambda what, done, total: None)
    out = _place(local(out), paths)
    with _locked(out):
        sweep(out)
        chosen = configured(options) if options else ()
        entries, manifests = found(paths, chosen, options, group, exclude=exclude, allow_outside=allow_outside)
        for entry in (entry for manifest in manifests for entry in entries_of(manifest, allow_outside=allow_outside)):
            entry.safe()
        results = examine_all(
            entries,
            chosen,
            workers=workers,
            progress=lambda done, total: progress("checking", done, total),
            journal=out / STATE / "examined.jsonl",
        )
        failed, good = _sound(entries, results)
        if not good and not manifests:
            raise DataError(f"none of {len(entries)} images can be read. {failed[0][1]}")
        source = put_together(manifests, [entry for entry, _ in good], [facts for _, facts in good], group)
        if not failed:  # whose rank is not known
            settings.refuse_idle(set(source.column("ndim")))
        jobs = _jobs(source, [file for file, _ in failed], out, settings)
        todo, there = _sorted(jobs, overwrite)
        _room(out, todo)
        if todo or failed:
            for name in (MANIFEST, STATISTICS):
                (out / name).unlink(missing_ok=True)  # they come last: as long as they are there, all is well
        outcomes = _recalled(there, workers, progress) | _converted(todo, workers, scheduler, out, progress)
        failed += [(job.file, outcomes[job.target].error) for job in jobs if outcomes[job.target].error]
        whole = [row for row, job in enumerate(jobs) if not outcomes[job.target].error]
        made = [outcomes[jobs[row].target] for row in whole]
        if made and (skip_failed or not failed):
            _write_statistics(out / STATISTICS, made)
            _manifest(source.take(whole), [jobs[row] for row in whole], made, out).write(
                out / MANIFEST, relative_to=out
            )
    return Report(
        out=out,
        converted=sum(not entry.skipped for entry in made),
        kept=sum(entry.skipped for entry in made),
        failed=tuple(failed),
        source_bytes=sum(jobs[row].facts["bytes"] for row in whole),
        bytes=sum(entry.facts["bytes"] for entry in made),
        voxel_bytes=sum(voxel_bytes(entry.facts) for entry in made),
        seconds=time.monotonic() - begun,
    )


def _place(out: Path, paths: Sequence[str | Path]) -> Path:
    """Refuse a folder inside a source, and one that holds other things."""
    for path in map(local, paths):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"expected a folder outside the source {path}, got {out}; convert to another place.")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out}: expected a folder to write to, it is a file.")
    strange = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    strange = [name for name in strange if name not in (IMAGES, MANIFEST, STATISTICS) and not name.startswith(".")]
    if strange:
        raise RunFolderError(
            f"{out}: expected no folder, an empty one or a converted collection, but it holds '{strange[0]}'; choose another."
        )
    try:
        (out / STATE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out}: cannot be written ({error.strerror}); choose a writable folder.") from None
    return out


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other conversions out; the system gives the lock back when this process ends, however it does."""
    import fcntl

    with (out / STATE / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunFolderError(f"{out}: another process converts to this folder; wait for it, or end it.") from None
        yield


def _sound(
    entries: Sequence[Entry], results: Sequence[Examined]
) -> tuple[list[tuple[str, str]], list[tuple[Entry, dict[str, Any]]]]:
    """What is wrong with some images, by file, and the others with their facts."""
    wrong = [_wrong(entry, result) for entry, result in zip(entries, results, strict=True)]
    failed = [(entry.file, text) for entry, text in zip(entries, wrong, strict=True) if text]
    facts = [result.facts or {} for result in results]
    return failed, [(entry, fact) for entry, fact, text in zip(entries, facts, wrong, strict=True) if not text]


def _wrong(entry: Entry, result: Examined) -> str:
    if result.facts is None:
        return str(result.error or result.findings[0].text)
    nothing = next((finding for finding in result.findings if finding.code == "no_data"), None)
    return f"{entry.path}: {nothing.text}" if nothing is not None else ""


def _jobs(source: Manifest, failed: Sequence[str], out: Path, settings: Settings) -> list[Job]:
    rows = source.table.select(FACTS).to_pylist()
    names = _names([(row["root"], row["file"]) for row in rows], failed)
    jobs = []
    for row, name in zip(rows, names, strict=True):
        target = out / IMAGES / name
        job = Job(
            path=Path(row["root"], row["file"]), file=row["file"], target=target, root=out, facts=row, settings=settings
        )
        jobs.append(replace(job, draft=draft_of(target)) if is_divided(job) else job)
    return jobs


def _names(places: Sequence[tuple[str, str]], failed: Sequence[str]) -> list[str]:
    """A store's name per image: its own without the ending; with it, or with its root's, where two would be the same."""
    endings = sorted(suffixes(), key=len, reverse=True)

    def bare(file: str) -> str:
        return file[: -len(next((e for e in endings if file.lower().endswith(e)), "")) or None]

    choices = [(bare(file), file, f"{Path(root).name}/{file}") for root, file in places]
    taken = [Counter(choice[level].casefold() for choice in choices) for level in range(3)]
    taken[0].update(bare(file).casefold() for file in failed)  # mending a file later must not rename others
    names = []
    for (root, file), choice in zip(places, choices, strict=True):
        name = next((n for n, times in zip(choice, taken, strict=True) if times[n.casefold()] == 1), None)
        if name is None:
            raise DataError(f"{root}/{file}: another image has the same name and folder; convert the roots one by one.")
        names.append(f"{name}.zarr")
    return names


def _sorted(jobs: list[Job], overwrite: bool) -> tuple[list[Job], list[Job]]:
    """Jobs to do, and those that are done."""
    states = [up_to_date(job) for job in jobs]
    other = [(job, state) for job, state in zip(jobs, states, strict=True) if state]
    if other and not overwrite:
        job, state = other[0]
        raise ConfigError(
            f"{job.target} is there and was made otherwise ({state}){f', and {len(other) - 1} more' * (len(other) > 1)}; "
            "choose another folder, or replace them with --overwrite."
        )
    todo = [job for job, state in zip(jobs, states, strict=True) if state != ""]
    return todo, [job for job, state in zip(jobs, states, strict=True) if state == ""]


def _room(out: Path, todo: Sequence[Job]) -> None:
    """Refuse to begin what cannot end: the stores are expected to be as large as their sources, pictures larger."""
    expected = 0.0
    for job in todo:
        packed = 1.1 * job.facts["bytes"] * (10 if job.facts["reader"] == "raster_image" else 1)
        expected += min(job.voxel_bytes, packed) * _growth(job)
    free = shutil.disk_usage(out).free
    if expected > free:
        raise RunFolderError(
            f"{out}: expected about {size_text(round(expected))} of free space, there are {size_text(free)}; free some, or "
            "choose another disk."
        )


def _growth(job: Job) -> float:
    """How many bytes of voxels one of the source becomes."""
    settings, facts = job.settings, job.facts
    spacing = settings.of_rank("spacing", facts["ndim"]) or facts["spacing"]
    volume: float = math.prod(old / new for old, new in zip(facts["spacing"], spacing, strict=True))
    after, before = (np.dtype(name).itemsize for name in (settings.dtype or facts["dtype"], facts["dtype"]))
    return volume * int(after) / int(before)


def _recalled(there: Sequence[Job], workers: int | None, progress: Progress) -> dict[Path, Outcome]:
    found = {}
    with ThreadPoolExecutor(workers or cores()) as pool:
        for done, (job, outcome) in enumerate(zip(there, pool.map(recall, there), strict=True), start=1):
            found[job.target] = outcome
            progress("already there", done, len(there))
    return found


def _converted(
    todo: Sequence[Job], workers: int | None, scheduler: str | None, out: Path, progress: Progress
) -> dict[Path, Outcome]:
    counted = 0

    def heard(outcome: Outcome) -> None:
        nonlocal counted
        counted += 1
        progress("converting", counted, len(todo))

    outcomes = convert_all(todo, workers=workers or cores(), scheduler=scheduler, out=out, done=heard)
    return {job.target: outcome for job, outcome in zip(todo, outcomes, strict=True)}


def _manifest(source: Manifest, jobs: Sequence[Job], outcomes: Sequence[Outcome], out: Path) -> Manifest:
    """The source's table with the stores' facts: order, groups, splits and labels are untouched."""
    manifest = source.with_column("root", [str(out.resolve())] * len(jobs))
    manifest = manifest.with_column("file", [job.target.relative_to(out).as_posix() for job in jobs])
    for name in _CHANGED:
        manifest = manifest.with_column(name, [outcome.facts[name] for outcome in outcomes])
    return manifest


def _write_statistics(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Statistics per band over all images of a kind: the same rank, bands, type and scaling."""
    kinds: dict[str, list[Any]] = {}
    for outcome in outcomes:
        facts = outcome.facts
        kind = {name: facts[name] for name in ("ndim", "bands", "dtype", "scaling")}
        entry = kinds.setdefault(json.dumps(kind), [kind, 0, outcome.statistics])
        entry[2] = merge_bands(entry[2], outcome.statistics) if entry[1] else entry[2]
        entry[1] += 1
    content = [
        {**kind, "images": count, "statistics": dict(zip(kind["bands"], map(_figures, bands), strict=True))}
        for kind, count, bands in kinds.values()
    ]
    with published(path) as partial:
        partial.write_text(json.dumps({"version": 1, "kinds": content}, indent=1) + "\n", encoding="utf-8")


def _figures(band: Statistics) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in band.summary().items()}
