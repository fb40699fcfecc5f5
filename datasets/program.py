"""What commands have in common: how they begin, the options by which all of them find and read images, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.config import Typed, override
from core.errors import HalfseenError


def command(name: str, description: str | None) -> argparse.ArgumentParser:
    """Begin a command whose module's docstring is its help."""
    return argparse.ArgumentParser(
        prog=f"python -m datasets.{name}",
        description=(description or "").strip(),
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_reading(how: argparse._ArgumentGroup) -> None:
    """Add the options by which every command finds and reads images, spelled as in the verbs of domains."""
    how.add_argument(
        "--options",
        action=_Texts,
        metavar="READER.NAME=VALUE",
        help="options of readers, such as nifti.affine=sform 'geotiff.bands=[red,nir]'; several follow one another, and are "
        "kept in the manifest",
    )
    how.add_argument(
        "--exclude",
        action=_Texts,
        metavar="NAME",
        help="leave these out of folders that are searched: names of files or folders, or paths below the folder, with * "
        "and ?: '*_seg.nii.gz' labelsTr",
    )
    how.add_argument(
        "--group", metavar="COLUMN", help="column of the unit that must not be split: patient, scene, slide"
    )
    how.add_argument(
        "--allow-outside", action="store_true", help="accept links and lists that lead out of the folder they are in"
    )


def add_work(work: argparse._ArgumentGroup) -> None:
    """Add the options on threads and progress."""
    work.add_argument("--workers", type=_positive, metavar="N", help="threads; default one per core that may be used")
    work.add_argument("--quiet", action="store_true", help="no progress")


@dataclass(frozen=True)
class _Given:
    """Texts as `core.config` reads them, so that a list is typed here as in the verbs of domains."""

    texts: tuple[str, ...] = ()


class _Texts(argparse.Action):
    """Several texts after one option, which is given once."""

    def __init__(self, **given: Any) -> None:
        super().__init__(nargs="+", default=(), **given)

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None) -> None:
        if getattr(namespace, self.dest):
            parser.error(f"{option} is given twice: give it once; several values follow one another.")
        typed = [Typed(value) for value in values]
        setattr(namespace, self.dest, override(_Given(), {"texts": typed[0] if len(typed) == 1 else typed}).texts)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return number


def exit_code(work: Callable[[], int], *, interrupted: str = "interrupted.") -> int:
    """Do the work and give its exit code; 2 where it cannot be done, 130 from the keyboard, 141 where nobody reads on.

    Args:
        work: gives the exit code of what it did.
        interrupted: what to say to who pressed control-C.
    """
    try:
        code = work()
        sys.stdout.flush()
    except HalfseenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        what = error.filename or "a file"
        print(f"error: {what} cannot be written or read ({error.strerror or error}).", file=sys.stderr)
        return 2
    return code
