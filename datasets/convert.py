"""Convert a collection of images to prepared stores: sharded, checksummed Zarr that is fast to read in windows.

    python -m datasets.convert SRC [SRC ...] DST

SRC is a folder, an image, a list (.csv, .parquet) or a manifest. DST becomes a collection that every verb takes as its
data: images/*.zarr, manifest.parquet (same order, groups, splits and labels) and statistics.json. Originals are only read.
Files that a column of labels names, such as label rasters, stay where they are: copy them beside the stores.

Every image is decoded and checked before and after it is written. A store appears whole or not at all; after an interrupt,
a crash or a kill, give the same command again: what is done is kept, and the result is the same to the byte. An image that
is there and was made from other content or with other settings is refused, or replaced with --overwrite.

Exit codes: 0 all converted (the last line on standard output is DST), 1 some images failed (they are listed; the others
are converted), 2 the command cannot be carried out (one sentence says why), 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.errors import ConfigError
from datasets.checking.report import size_text
from datasets.converting.job import Settings
from datasets.converting.prepare import Report, convert
from datasets.program import add_reading, add_work, command, exit_code
from datasets.progress import Stages

_FAILURES = 20  # that are listed for people; --json lists all


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run as a program."""
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    text = "interrupted; the same command goes on where it was."
    sys.exit(exit_code(lambda: run(arguments), interrupted=text))


def run(options: argparse.Namespace) -> int:
    """Convert, say what was done, and give the exit code.

    Raises:
        HalfseenError: it could not be done.
    """
    with Stages(quiet=options.quiet) as progress:
        report = convert(
            options.sources,
            options.out,
            _settings(options),
            options=options.options,
            group=options.group,
            workers=options.workers,
            scheduler=options.scheduler,
            overwrite=options.overwrite,
            skip_failed=options.skip_failed,
            exclude=options.exclude,
            allow_outside=options.allow_outside,
            progress=progress,
        )
    for line in _lines(report, options.skip_failed):
        print(line, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(as_dict(report)))
    if report.complete or options.skip_failed:
        print(report.out)
    return 1 if report.failed else 0


def as_dict(report: Report) -> dict[str, object]:
    """The report for programs."""
    names = ("converted", "kept", "source_bytes", "bytes", "voxel_bytes", "seconds")
    found: dict[str, object] = {name: getattr(report, name) for name in names}
    ratio = report.ratio if report.source_bytes else None
    failed = [{"file": file, "error": error} for file, error in report.failed]
    return {"out": str(report.out), **found, "ratio": ratio, "failed": failed}


def _lines(report: Report, skip_failed: bool) -> list[str]:
    """What was done, for people."""
    done = report.converted + report.kept
    kept = f", {report.kept} kept from before" if report.kept else ""
    lines = [f"{report.converted} images converted{kept}, {len(report.failed)} failed, in {report.seconds:.1f} s"]
    if done:
        lines.append(
            f"{size_text(report.bytes)} in all: {report.ratio:.2f} times the originals ({size_text(report.source_bytes)}), "
            f"{report.bytes / report.voxel_bytes:.2f} times the bare voxels"
        )
    lines += [f"failed: {file}: {error}" for file, error in report.failed[:_FAILURES]]
    if len(report.failed) > _FAILURES:
        lines.append(f"... and {len(report.failed) - _FAILURES} more; --json lists all")
    if report.failed and not skip_failed:
        lines.append(
            "no manifest was written, because images failed: mend or remove them and give the same command again, or leave "
            "them out with --skip-failed"
        )
    return lines


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        chunk=tuple(_whole("--chunk", text) for text in options.chunk),
        shard=tuple(_whole("--shard", text) for text in options.shard),
        codec=options.codec,
        spacing=tuple(_real("--spacing", text) for text in options.spacing),
        order=options.order,
        dtype=options.dtype or "",
        clip=options.clip,
        crop=options.crop_to_content,
    )


def _whole(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"{name}: expected whole numbers such as 48,48,48 or 128,128, got '{text}'.") from None


def _real(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"{name}: expected numbers such as 1,1,1 or 30,30, got '{text}'.") from None


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command("convert", __doc__)
    parser.add_argument("sources", nargs="+", metavar="SRC", help="folder, image, list or manifest; several are joined")
    parser.add_argument("out", metavar="DST", type=Path, help="folder to write; an earlier conversion there goes on")
    values = parser.add_argument_group(
        "what changes the voxels (all off by default: voxels stay as they are, bit for bit)"
    )
    values.add_argument(
        "--spacing",
        action="append",
        default=[],
        metavar="Z,Y,X",
        help="resample to this spacing, in the image's own unit (mm, m), array order; once for 3D, once for 2D (Y,X). "
        "Linear, with antialiasing where it becomes coarser; only measured voxels are averaged",
    )
    values.add_argument("--order", choices=("linear", "nearest"), default="linear", help="nearest: for label volumes")
    values.add_argument("--dtype", metavar="NAME", choices=_DTYPES, help=f"type of the voxels: {', '.join(_DTYPES)}")
    values.add_argument(
        "--clip", action="store_true", help="round and clip what --dtype does not hold; without it such images fail"
    )
    values.add_argument(
        "--crop-to-content", action="store_true", help="keep only the box that holds every measured voxel"
    )
    layout = parser.add_argument_group("how stores are laid out")
    layout.add_argument(
        "--chunk",
        action="append",
        default=[],
        metavar="Z,Y,X",
        help="what is decoded at once; once for 3D, once for 2D (Y,X); default about 40,40,40 and 128,128, as measured",
    )
    layout.add_argument(
        "--shard", action="append", default=[], metavar="Z,Y,X", help="what is one file; default up to 64 MiB"
    )
    layout.add_argument(
        "--codec", choices=("small", "fast"), default="small", help="fast: decodes several times faster, may be larger"
    )
    how = parser.add_argument_group("how sources are read")
    add_reading(how)
    work = parser.add_argument_group("who works, and what happens to what fails or is there")
    add_work(work)
    work.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="use the workers of a running dask.distributed scheduler, such as tcp://host:8786; they need this checkout and "
        "the same paths (pip install 'halfseen[cluster]')",
    )
    work.add_argument(
        "--overwrite", action="store_true", help="replace stores that were made from other content or settings"
    )
    work.add_argument("--skip-failed", action="store_true", help="write the manifest without the images that failed")
    work.add_argument(
        "--json", action="store_true", help="a report for programs on standard output, before the last line"
    )
    return parser.parse_args(argv)


_DTYPES = (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip


if __name__ == "__main__":
    main()
