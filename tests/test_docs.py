"""Pages say what exists: links lead somewhere, modules and make targets that they type are there, Python parses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

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
