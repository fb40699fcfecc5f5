"""Check a collection of images: decode every one to its last voxel, and say what is there and what is wrong.

    python -m datasets.check PATH [PATH ...] [--out manifest.parquet] [--report check.html] [--json FILE]
    python -m datasets.check --verify manifest.parquet [FOLDER]

PATH is a folder, an image, a store, a list (CSV or Parquet with a column `file`) or a manifest. An image that cannot be
read is a finding; all others are still looked at. `--out` writes the manifest that training takes as --data.
`--verify` reads every file again and compares its digest with a manifest, here or in a copy of the collection.

Exit codes: 0 no error was found, 1 errors were found, 2 the check could not be made (one sentence on standard error),
130 interrupted from the keyboard. The last lines on standard output are the paths of what was written, if anything was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from core.errors import ConfigError, HalfseenError, MissingDataError, nearest
from datasets.assembling import assemble
from datasets.checking.findings import SEVERITIES, Finding, finding, unreadable
from datasets.checking.judge import judge_collection, names_of
from datasets.checking.report import Report, sections_of
from datasets.collect import MANIFEST, Entry, entries_of, gather, refuse_repeats, unlisted
from datasets.content import digest_of, size_of, stamp_of
from datasets.effect import refuse_idle
from datasets.examine import Examined, Progress, cores, examine_all
from datasets.manifest import FACTS, Manifest
from datasets.program import add_reading, add_work, command, exit_code
from datasets.progress import Stages
from datasets.publishing import published
from datasets.readers import configured


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run as a program."""
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    text = "interrupted; --resume goes on where it was, if --out or --journal was given."
    sys.exit(exit_code(lambda: run(arguments), interrupted=text))


def run(options: argparse.Namespace) -> int:
    """Check or verify, show what was found, write what was asked for, and give the exit code.

    Raises:
        HalfseenError: it could not be done.
    """
    for name in ("out", "json", "report", "journal"):
        path = getattr(options, name)
        if path is not None and str(path) != "-" and not path.absolute().parent.is_dir():
            raise MissingDataError(f"expected a folder for --{name}, but {path.absolute().parent} does not exist.")
        if path is not None and str(path) != "-" and path.is_dir():
            raise ConfigError(f"expected a file for --{name}, got the folder {path}: name a file in it.")
    if options.out is not None and options.out.suffix.lower() != ".parquet":
        raise ConfigError(f"--out {options.out}: expected a name that ends in .parquet, by which a manifest is known.")
    _refuse_idle(options)
    manifest: Manifest | None
    if options.verify is not None:
        manifest, report = verified(options)
    else:
        manifest, report = checked(options)
    from datasets.checking.table import show

    show(report, sys.stderr if str(options.json) == "-" else sys.stdout)
    written = [path for path in (options.out, options.json, options.report) if path is not None and str(path) != "-"]
    if options.json is not None:
        _write(options.json, report.to_json() + "\n")
    if options.report is not None:
        from datasets.checking.page import page

        _write(options.report, page(report))
    if options.out is not None:  # last: where no image could be read, the report says why
        if manifest is None:
            raise ConfigError(f"no image could be read, so no manifest is written to {options.out}.")
        manifest.write(options.out, relative_to=options.out.absolute().parent)
    for path in written:
        print(path, file=sys.stderr if str(options.json) == "-" else sys.stdout)
    return 1 if report.count("error") else 0


def checked(options: argparse.Namespace) -> tuple[Manifest | None, Report]:
    """Examine every image that the paths name; the manifest is of those that could be read."""
    free = options.allow_outside
    chosen = configured(options.options) if options.options else ()
    if not options.paths:
        raise ConfigError("expected at least one PATH to check, before the options; --help says what it can be.")
    linked: list[Path] = []
    entries, manifests = gather(
        options.paths, chosen, exclude=options.exclude, allow_outside=free, passed_over=linked.append
    )
    before = [row for manifest in manifests for row in _rows(manifest)]
    if options.trust and not manifests:
        raise ConfigError("--trust has no effect without a manifest among the paths: leave it out.")
    known_entries = [e for m in manifests for e in entries_of(m, options=options.options, allow_outside=free)]
    entries += known_entries
    refuse_repeats(entries, [])
    refuse_idle(options.options, chosen, entries, manifests if options.trust else [])
    _require_columns(options, entries)
    recorded = {entry.path: row for entry, row in zip(known_entries, before, strict=True)}
    journal = _journal(options)
    started = time.monotonic()
    with Stages(quiet=options.quiet) as stages:
        known = (lambda entry: _trusted(entry, recorded)) if options.trust else None
        progress = partial(stages, "checking")
        results = examine_all(entries, chosen, workers=options.workers, progress=progress, journal=journal, known=known)
    names = names_of([entry.root for entry in entries], [entry.file for entry in entries])
    found = [
        replace(entry, file=name) for name, result in zip(names, results, strict=True) for entry in result.findings
    ]
    good = [row for row, result in enumerate(results) if result.facts is not None]
    found += _changed(entries, results, names, recorded)
    if manifests:
        missed = unlisted(options.paths, [path for manifest in manifests for path in manifest.paths], chosen)
        found += [finding("unlisted", path.name, "the manifest beside it does not name it.") for path in missed]
    found += [finding("linked_folder", path.name, f"leads to {path.resolve()}.") for path in linked]
    manifest = None
    if good:
        manifest = assemble([entries[row] for row in good], [results[row].facts or {} for row in good], options.group)
        label, crs = options.label, options.require_crs
        if label is not None and label not in manifest.label_names:
            folders = "folders are classes where there are several, and every image lies in one of them, not deeper"
            hint = f"{folders}." if label == "class" else nearest(label, manifest.label_names)
            raise ConfigError(f"no column is called '{label}' (--label): {hint}")
        found += judge_collection(manifest, [names[row] for row in good], label=label, require_crs=crs)
    if options.require_crs:  # said once, as an error
        found = [entry for entry in found if entry.code != "no_crs" or entry.severity == "error"]
    report = Report(
        paths=tuple(str(path) for path in options.paths),
        made=datetime.now().astimezone(),
        task="check",
        images=len(entries),
        read=len(good),
        bytes=sum(results[row].facts["bytes"] for row in good),  # type: ignore[index]
        seconds=time.monotonic() - started,
        sections=sections_of(manifest, options.group) if manifest is not None else (),
        findings=_sorted(found),
    )
    if journal is not None and options.journal is None:
        journal.unlink(missing_ok=True)  # it served; a journal that was named is kept
    return manifest, report


def verified(options: argparse.Namespace) -> tuple[Manifest, Report]:
    """Compare the digest of every file with a manifest."""
    path = options.verify / MANIFEST if options.verify.is_dir() else options.verify
    if len(options.paths) > 1:
        raise ConfigError(f"expected one folder at most with --verify, got {len(options.paths)} paths.")
    folder = Path(options.paths[0]) if options.paths else None
    if folder is not None and not folder.is_dir():
        raise MissingDataError(f"expected a folder with a copy of the collection, but {folder} is none.")
    manifest = Manifest.read(path)
    started = time.monotonic()
    with Stages(quiet=options.quiet) as stages:
        found = verify(manifest, folder=folder, workers=options.workers, progress=partial(stages, "verifying"))
    report = Report(
        paths=(str(path), *([str(folder)] if folder else [])),
        made=datetime.now().astimezone(),
        task="verify",
        images=len(manifest),
        read=len(manifest) - len(found),
        bytes=sum(manifest.column("bytes")),
        seconds=time.monotonic() - started,
        sections=sections_of(manifest),
        findings=_sorted(found),
    )
    return manifest, report


def verify(
    manifest: Manifest, *, folder: Path | None = None, workers: int | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Read every file of a manifest again and compare its size and digest; all that differ are findings.

    Args:
        manifest: what the files should be.
        folder: look for them here instead of where the manifest says.
        workers: threads; default one per available core.
        progress: called with (done, total) after each file.
    """
    roots = [Path(root) for root in manifest.column("root")]
    files = manifest.column("file")
    names = names_of(roots, files)
    expected = zip(manifest.column("bytes"), manifest.column("digest"), strict=True)
    tasks = [
        ((folder or root) / file, name, *facts)
        for root, file, name, facts in zip(roots, files, names, expected, strict=True)
    ]
    found: list[Finding] = []
    with ThreadPoolExecutor(workers or cores(), thread_name_prefix="halfseen-verify") as pool:
        for done, result in enumerate(pool.map(lambda task: _compare(*task), tasks), start=1):
            found += [] if result is None else [result]
            if progress is not None:
                progress(done, len(tasks))
    return found


def _compare(path: Path, name: str, size: int, digest: str) -> Finding | None:
    try:
        if not path.exists():
            return finding("missing", name, f"expected it at {path}.")
        now = size_of(path)
        if now != size:
            return finding("changed", name, f"expected {size:,} bytes, got {now:,}.")
        if digest_of(path) != digest:
            return finding("changed", name, f"expected the digest {digest[:12]}..., got another: its bytes differ.")
    except (HalfseenError, OSError) as error:
        return unreadable(error, name, path)
    return None


def _changed(
    entries: Sequence[Entry], results: Sequence[Examined], names: Sequence[str], recorded: dict[Path, dict[str, Any]]
) -> Iterator[Finding]:
    for entry, result, name in zip(entries, results, names, strict=True):
        row = recorded.get(entry.path)
        if row is not None and result.facts is not None and result.facts["digest"] != row["digest"]:
            yield finding("changed", name, "its bytes differ from those that the manifest was made of.")


def _rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for batch in manifest.table.select(list(FACTS)).to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _trusted(entry: Entry, recorded: dict[Path, dict[str, Any]]) -> Examined | None:
    """What a manifest says of an image whose size and time are still those in it."""
    row = recorded.get(entry.path)
    if row is None:
        return None
    try:
        if stamp_of(entry.safe()) != (row["bytes"], row["mtime_ns"]):
            return None
    except (HalfseenError, OSError):
        return None
    return Examined({name: row[name] for name in FACTS if name not in ("root", "file", "group", "split")}, ())


_FLAGS = ("require_crs", "allow_outside", "resume", "journal", "trust")


def _refuse_idle(options: argparse.Namespace) -> None:
    """An option that was given and would do nothing is a mistake."""
    if options.verify is None:
        return
    for name in ("out", "options", "exclude", "group", "label", *_FLAGS):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect with --verify: leave one of them out.")


def _require_columns(options: argparse.Namespace, entries: Sequence[Entry]) -> None:
    names = dict.fromkeys(name for entry in entries for name in entry.said)
    for option in ("group", "label"):
        name = getattr(options, option)
        if name is not None and name not in names and not (option == "label" and name == "class"):
            raise ConfigError(f"no column is called '{name}' (--{option}): {nearest(name, names)}")


def _journal(options: argparse.Namespace) -> Path | None:
    if options.journal is not None:
        return Path(options.journal)
    if options.out is None:
        if options.resume:
            raise ConfigError(
                "--resume needs to know which check: give the --out or --journal that it was started with."
            )
        return None
    path = Path(options.out).with_name(f".{options.out.name}.journal")
    if not options.resume:
        path.unlink(missing_ok=True)
    elif not path.exists():
        print("nothing to resume: starting from the first image.", file=sys.stderr)
    return path


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda entry: (SEVERITIES.index(entry.severity), entry.code)))


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        sys.stdout.write(text)
        return
    with published(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command("check", __doc__)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="folder, image, store, list (.csv, .parquet) or manifest")
    output = parser.add_argument_group("what is written")
    output.add_argument(
        "--out", type=Path, metavar="FILE", help="the manifest (.parquet), of all images that can be read"
    )
    output.add_argument("--report", type=Path, metavar="FILE", help="one self-contained HTML page, to be read or sent")
    output.add_argument("--json", type=Path, metavar="FILE", help="everything for programs; - = standard output")
    how = parser.add_argument_group("how images are read and judged")
    add_reading(how)
    how.add_argument("--label", metavar="COLUMN", help="a label that every image must have")
    how.add_argument("--require-crs", action="store_true", help="a 2D image without a reference system is an error")
    how.add_argument(
        "--verify", type=Path, metavar="MANIFEST", help="only compare digests with this manifest; see above"
    )
    work = parser.add_argument_group("how the work is done")
    add_work(work)
    work.add_argument(
        "--resume", action="store_true", help="go on with a check that was stopped, given the same --out or --journal"
    )
    work.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="note every image here as soon as it is examined, and do not read again what is in it and unchanged",
    )
    work.add_argument(
        "--trust",
        action="store_true",
        help="of a manifest given as PATH, do not decode images whose size and time are unchanged; what was found on them "
        "before is not said again",
    )
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    main()
