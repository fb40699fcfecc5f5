"""Cures name options as they are typed: a text of any reader that shows Python, or an option that is none, fails here."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BudgetError, UnsupportedError
from datasets.readers import configured, name_of, readers
from datasets.readers._typed import on_behalf_of, typed

SOURCES = sorted((Path(__file__).parents[3] / "datasets/readers").glob("*.py"))
OPTIONS = {name_of(reader): {field.name for field in dataclasses.fields(reader)} for reader in readers()}  # type: ignore[arg-type]


def texts(source: Path) -> Iterator[str]:
    """Every text of a module that is no docstring; what an f-string fills in is `{}`."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    about = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about | parts:
            yield node.value


def test_options_are_quoted_for_a_shell() -> None:
    assert typed("nifti.affine=sform") == "--options nifti.affine=sform"
    assert typed("hdf.axes=yx", "hdf.variables=[a,b]") == "--options hdf.axes=yx 'hdf.variables=[a,b]'"


def test_no_message_of_a_reader_shows_python() -> None:
    classes = "|".join(type(reader).__name__ for reader in readers())
    shown = [
        f"{source.name}: {text}"
        for source in SOURCES
        for text in texts(source)
        if re.search(rf"\b({classes})\(|options? `", text)
    ]
    assert not shown


def test_every_option_that_is_named_exists() -> None:
    named = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "typed":
                for argument in node.args:
                    text = ast.unparse(argument).lstrip("f").strip("\"'")
                    if not text.startswith("{option}"):
                        named.append(text.partition("=")[0])
    assert len(named) > 25
    assert [name for name in named if name.partition(".")[2] not in OPTIONS.get(name.partition(".")[0], set())] == []


def test_another_reader_speaks_for_itself_where_it_has_the_option() -> None:
    own = OPTIONS["band_files"]
    with (
        pytest.raises(UnsupportedError, match=r"^a: --options band_files\.sparse=invalid$"),
        on_behalf_of("band_files", own),
    ):
        raise UnsupportedError(f"a: {typed('geotiff.sparse=invalid')}")
    with pytest.raises(BudgetError, match=r"--options geotiff\.max_bytes=9"), on_behalf_of("band_files", own):
        raise BudgetError(f"a: {typed('geotiff.max_bytes=9')}")


def test_what_is_typed_is_what_is_read() -> None:
    words = typed("hdf.variables=[b2,b1]").split(" ", 1)[1].strip("'")
    chosen = {name_of(reader): reader for reader in configured([words])}["hdf"]
    assert chosen.variables == ("b2", "b1")  # type: ignore[attr-defined]
