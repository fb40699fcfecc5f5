"""The error tree: every failure a user can cause, as one sentence with a cure. Our own mistakes stay `assert`.

Each class also inherits the builtin that callers already catch, carries one plain string (so that it crosses process
borders by pickle) and ends a command line verb with exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HalfseenError(Exception):
    """Root of every error that is the user's to mend; the message says what was expected, what came and what to do."""


class ConfigError(HalfseenError, ValueError):
    """An option, preset or part name or value that does not exist or does not fit."""


class DataError(HalfseenError, ValueError):
    """A file, label list or collection whose content cannot be used; the message names the file."""


class DamagedError(DataError):
    """A file that is truncated, altered or contradicts itself."""


class GeometryError(DataError):
    """Orientation, spacing, affine or CRS that is missing where it is needed, not finite, singular or contradictory."""


class BudgetError(DataError):
    """A file that declares or inflates to more than the bytes or pixels that it may take."""


class UnsafeError(DataError):
    """A path or a content that could reach outside what was named: `/vsi`, VRT, a URL, a link that leaves its root."""


class UnsupportedError(DataError):
    """A well-formed file of a kind that is not read: another type of voxel, more axes, several pages."""


class MissingDataError(HalfseenError, FileNotFoundError):
    """A path that was named and is not there."""


class RunFolderError(HalfseenError, OSError):
    """A run folder that exists, is locked by another writer, or cannot be written."""


class CheckpointError(HalfseenError, RuntimeError):
    """Weights that do not verify, or do not fit the object they are meant for."""


class ShapeError(HalfseenError, ValueError):
    """An image, patch or grid whose sizes do not fit together."""


class BandError(HalfseenError, ValueError):
    """Bands that an encoder names and an image lacks, or bands without a name."""


class NumericsError(HalfseenError, FloatingPointError):
    """A loss or gradient that stopped being finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Compose the tail of a lookup error: names that begin so, else the nearest if one is near, else all of them."""
    options = sorted(known)
    begun = [option for option in options if name and option.startswith(name)]
    if 0 < len(begun) <= 3:
        return f"did you mean {' or '.join(repr(option) for option in begun)}?"
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(options)}." if options else "none are known."
