"""Pages say what exists: links lead somewhere, modules and make targets that they type are there, Python parses."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core import registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "changes").glob("*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/how-to/pretrain.md"} <= set(IDS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_to_a_file(page: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", _text(page))]
    inside = [target for target in targets if target and "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_name_modules_and_targets_that_exist(page: Path) -> None:
    modules = set(re.findall(r"-m ((?:domains|benchmarks)(?:\.\w+)+)", _text(page)))
    missing = [m for m in modules if not (ROOT / m.replace(".", "/")).with_suffix(".py").is_file()]
    targets = set(re.findall(r"(?:^\s*|`)make ([a-z-]+)", _text(page), flags=re.MULTILINE))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert (missing, targets - known) == ([], set())


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_parse(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", _text(page), flags=re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_index_leads_to_every_how_to_page() -> None:
    index = _text(ROOT / "docs" / "index.md")
    assert [p.name for p in (ROOT / "docs" / "how-to").glob("*.md") if f"how-to/{p.name}" not in index] == []


def test_the_masker_of_the_how_to_page_passes_the_exam_and_is_found_by_its_name(tmp_path: Path) -> None:
    block = re.search(r"^```python\n(.*?)^```", _text(ROOT / "docs" / "how-to" / "add-a-masker.md"), re.M | re.S)
    assert block is not None
    (tmp_path / "middle.py").write_text(block.group(1), encoding="utf-8")
    code = f"import core.maskers; core.maskers.__path__.append({str(tmp_path)!r}); import pytest, sys; "
    code += "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/contracts/test_maskers.py', '-k', 'middle']))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"(\d+) passed", run.stdout).group(1)) >= 10


def test_the_gallery_shows_every_masker_and_target() -> None:
    page = _text(ROOT / "docs" / "gallery.md")
    for kind in ("maskers", "targets"):
        assert [name for name in registry.names(kind) if f"\n### {name}\n" not in page] == []
    assert [name for name in registry.names("recipes") if f"\n| {name} |" not in page] == []
