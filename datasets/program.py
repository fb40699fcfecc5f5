"""The end of a command: whatever happens becomes an exit code and at most one sentence on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from core.errors import HalfseenError


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
