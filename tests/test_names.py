"""Living with the import name `datasets`: the guard of `domains`, and the hint of our own package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = "raise RuntimeError('the guard must not run code of a foreign package')\n"
MARKED = '"""A package that says it is ours."""\n\n__suite__ = "halfseen"\n'


def _package(folder: Path, name: str, source: str) -> Path:
    path = folder / name / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def _checkout(folder: Path, datasets: str | None) -> Path:
    """Copy the guard into a house of its own, beside a `datasets` package with the given source."""
    _package(folder, "domains", (ROOT / "domains" / "__init__.py").read_text(encoding="utf-8"))
    if datasets is not None:
        _package(folder, "datasets", datasets)
    return folder


def _python(code: str, *search: Path, cwd: Path, site: bool = False) -> tuple[int, str]:
    """Run code with a search path of its own; give exit code and the last line of its errors.

    Without `site` nothing that is installed can be found, our own editable install included.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", *([] if site else ["-S"]), "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def test_guard_passes_with_our_package_beside_it(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", MARKED)
    assert _python("import domains", home, cwd=tmp_path) == (0, "")


def test_guard_passes_in_this_checkout(tmp_path: Path) -> None:
    assert _python("import domains.retina", ROOT, cwd=tmp_path) == (0, "")


def test_guard_names_a_foreign_package_that_is_found_first_and_three_cures(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", MARKED)
    foreign = _package(tmp_path / "site", "datasets", FOREIGN)
    code, message = _python("import domains", foreign.parent.parent, home, cwd=tmp_path)
    assert code == 1
    assert message.startswith("ImportError: ")
    assert f"expected its own package 'datasets' at {home / 'datasets' / '__init__.py'}" in message
    assert f"Python finds {foreign}" in message
    assert all(cure in message for cure in ("(1) give halfseen an environment", "(2) start from", "(3) in a notebook"))


def test_guard_checks_the_place_even_of_a_marked_package(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", MARKED)
    other = _package(tmp_path / "other", "datasets", MARKED)
    code, message = _python("import domains", other.parent.parent, home, cwd=tmp_path)
    assert code == 1
    assert f"Python finds {other}" in message


def test_guard_checks_the_marker_even_in_the_right_place(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", FOREIGN)
    code, message = _python("import domains", home, cwd=tmp_path)
    assert code == 1
    assert "no `__suite__` marker" in message
    assert "RuntimeError" not in message


def test_guard_sees_a_foreign_package_that_is_loaded_already(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", MARKED)
    foreign = _package(tmp_path / "site", "datasets", "")
    load_first = f"import sys; sys.path.insert(0, {str(foreign.parent.parent)!r}); import datasets; del sys.path[0]"
    code, message = _python(f"{load_first}; import domains", home, cwd=tmp_path)
    assert code == 1
    assert f"Python finds {foreign}" in message
    assert "restart the kernel first" in message


def test_guard_names_a_missing_package(tmp_path: Path) -> None:
    home = _checkout(tmp_path / "home", None)
    code, message = _python("import domains", home, cwd=tmp_path)
    assert code == 1
    assert "Python finds none that has a file" in message


@pytest.mark.parametrize("name", ["load_dataset", "Dataset", "load_from_disk"])
@pytest.mark.parametrize("form", ["import datasets; datasets.{}", "from datasets import {}"])
def test_our_package_explains_itself_to_who_wanted_hugging_face(form: str, name: str, tmp_path: Path) -> None:
    code, message = _python(form.format(name), ROOT, cwd=tmp_path)
    assert code == 1
    assert "Hugging Face" in message


def test_our_datasets_package_still_says_no_plainly_to_an_unknown_name() -> None:
    import datasets

    assert not hasattr(datasets, "no_such_name")


@pytest.mark.slow
def test_core_is_safe_beside_a_foreign_package(tmp_path: Path) -> None:
    foreign = _package(tmp_path / "site", "datasets", FOREIGN)
    code, message = _python("import core; core.load_encoder", foreign.parent.parent, ROOT, cwd=tmp_path, site=True)
    assert (code, message) == (0, "")


def test_gitignore_hides_none_of_our_packages() -> None:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = {line.strip().strip("/*") for line in lines if line.strip() and not line.startswith("#")}
    assert patterns.isdisjoint({"core", "datasets", "domains", "data", "notebooks", "tests"})
