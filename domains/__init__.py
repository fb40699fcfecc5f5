"""The name guard, and nothing else: a domain works only with the `datasets` package that stands beside it.

Hugging Face publishes a package of the same name. Where both are importable, the order of the search path decides which
one answers, and two installed wheels overwrite each other without a word; so a domain looks before it touches anything.
"""

import importlib.util
import sys
from pathlib import Path

__suite__ = "halfseen"


def _check_datasets() -> None:
    """Look at the place and the `__suite__` marker of the package `datasets`, without running any of its code.

    Raises:
        ImportError: it is another project's package; the message gives three cures.
    """
    home = Path(__file__).resolve().parent.parent
    expected = home / "datasets" / "__init__.py"
    try:
        spec = importlib.util.find_spec("datasets")
    except ValueError:  # an already imported module without a __spec__, such as a stand-in put into sys.modules
        spec = None
    found = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
    in_place = found == expected
    if in_place and f'__suite__ = "{__suite__}"' in expected.read_text(encoding="utf-8").splitlines():
        return

    origin = str(found) if found else "none that has a file"
    if in_place:
        problem = f"{origin} is in the right place but not ours (no `__suite__` marker): another wheel overwrote it"
    else:
        problem = f"Python finds {origin}"
    raise ImportError(
        f"halfseen expected its own package 'datasets' at {expected}, but {problem}. "
        "The usual reason is Hugging Face's package of the same name. Cures, any one of them: "
        "(1) give halfseen an environment of its own: `make install` in the checkout makes .venv; "
        f"(2) start from the checkout: `cd {home}` and `python -m domains.<domain>.<verb>`, which finds ours first; "
        f"(3) in a notebook or script, before every other import: `import sys; sys.path.insert(0, {str(home)!r})`"
        f"{' (restart the kernel first: the other package is loaded already)' if 'datasets' in sys.modules else ''}.",
        name="datasets",
    )


_check_datasets()
