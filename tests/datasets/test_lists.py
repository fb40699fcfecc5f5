"""Lists as people's programs write them: what their columns become, and what of them is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.errors import DataError
from datasets.index import build_manifest
from datasets.lists import columns_of
from datasets.manifest import Manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((8, 9), 40 + number, np.uint8)).save(tmp_path / name)
    return tmp_path


def csv(folder: Path, text: str) -> Path:
    (folder / "list.csv").write_bytes(text.encode())
    return folder / "list.csv"


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"file": ["a.png", "b.png"], **columns}), folder / "list.parquet")
    return folder / "list.parquet"


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,kind\r\na.png,1\r\nb.png,\r\n",
        "file,kind\ra.png,1\rb.png,\r",
        "\nfile , kind\n a.png , 1\n\nb.png,  \n\n",
        '"file","kind"\n"a.png","1"\n"b.png",""',
    ],
)
def test_lines_end_as_they_do_anywhere_and_space_around_a_text_is_none_of_it(text: str, folder: Path) -> None:
    assert columns_of(csv(folder, text)) == (["a.png", "b.png"], {"kind": ["1", None]})


def test_a_quoted_text_may_hold_commas_quotes_and_lines(folder: Path) -> None:
    _, columns = columns_of(csv(folder, 'file,kind\na.png,"a, ""b""\r\nc"\nb.png,x\n'))
    assert columns == {"kind": ['a, "b"\r\nc', "x"]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("1", "-2"), [1, -2]),
        (("1", ""), [1, None]),
        (("1", "2.5"), [1.0, 2.5]),
        (("1e3", ".5"), [1000.0, 0.5]),
        (("-inf", "2"), [-math.inf, 2.0]),
        (("NaN", "2"), [None, 2]),
        (("nan", "2.5"), [None, 2.5]),
        (("NaN", "cat"), ["NaN", "cat"]),
        (("007", "12"), ["007", "12"]),
        (("-007", "12.5"), ["-007", "12.5"]),
        (("0", "0.5"), [0.0, 0.5]),
        (("True", "False"), ["True", "False"]),
        (("9223372036854775807", "-9223372036854775808"), [2**63 - 1, -(2**63)]),
        (("9223372036854775808", "2"), ["9223372036854775808", "2"]),
        (("12345678901234567890", "2.5"), ["12345678901234567890", "2.5"]),
        (("-9223372036854775809", "2"), ["-9223372036854775809", "2"]),
        (("٣", "٤"), ["٣", "٤"]),
        (("1.2.840", "2"), ["1.2.840", "2"]),
    ],
)
def test_a_column_is_whole_numbers_or_real_numbers_or_text(
    given: tuple[str, str], expected: list[Any], folder: Path
) -> None:
    manifest = build_manifest([csv(folder, f"file,kind\na.png,{given[0]}\nb.png,{given[1]}\n")])
    assert manifest.column("kind") == expected
    assert [type(value) for value in manifest.column("kind")] == [type(value) for value in expected]
    manifest.write(folder / "manifest.parquet")
    again = Manifest.read(folder / "manifest.parquet")
    assert again.table.equals(manifest.table)
    assert again.digest == manifest.digest


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1.0, math.nan]), [1.0, None]),
        (pa.array(["", " x "]), [None, "x"]),
        (pa.array([True, None]), [1, None]),
        (pa.array([1, 2**64 - 1], pa.uint64()), ["1", str(2**64 - 1)]),
        (pa.array(["u", None]).dictionary_encode(), ["u", None]),
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01 00:00:00", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_columns_of_parquet_become_what_the_same_texts_would(values: Any, expected: list[Any], folder: Path) -> None:
    assert build_manifest([parquet(folder, kind=values)]).column("kind") == expected


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([[1], [2]]), "list<"),
        (pa.array([{"x": 1}, None]), "struct<"),
        (pa.array([b"x", b"y"]), "binary"),
        (pa.array([b"x", b"y"], pa.large_binary()), "large_binary"),
    ],
)
def test_a_column_of_several_values_a_row_is_refused(values: Any, kind: str, folder: Path) -> None:
    with pytest.raises(DataError, match=rf"each row of the column 'kind', got values of type {kind}"):
        columns_of(parquet(folder, kind=values))


def test_a_time_that_python_cannot_hold_is_refused_by_its_column(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"list\.parquet: the column 'time' of type timestamp.* cannot be read .*; mend it"
    ):
        columns_of(parquet(folder, time=pa.array([2**50, 0], pa.timestamp("s"))))


def test_parquet_that_names_a_column_twice_is_refused_as_csv_is(folder: Path) -> None:
    table = pa.table([pa.array(["a.png"]), pa.array([1]), pa.array([2])], names=["file", "kind", "kind"])
    pq.write_table(table, folder / "list.parquet")
    with pytest.raises(DataError, match=r"list\.parquet: expected each column once, but 'kind' occurs twice"):
        columns_of(folder / "list.parquet")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (",file,kind\n0,a.png,1\n", r"column 1 of 3 has none; .*index=False"),
        ("file,kind,\na.png,1,\n", r"column 3 of 3 has none"),
        ("file;kind\na.png;1\n", r"expected commas between the columns, got ';'"),
        ("file\tkind\na.png\t1\n", r"expected commas between the columns, got '\\t'"),
        ("file,kind\na.png,1\n,\n", r"row 2 names no file; fill it in, or remove the row"),
        ('file,kind\n"a.png,1\nb.png,2\n', r"expected 2 values in each row, as in the header, row 1 has 1"),
        ("file,kind\nsub\\a.png,1\n", r"not at .*; divide folders by '/'\."),
        ("file,kind\n.,1\n", r"names '\.', which is not at .*; mend the list"),
        ("file,split\na.png,Train\n", r"expected the split 'train', got 'Train'"),
        ("file,split\na.png,held-out\n", r"expected the split 'held_out', got 'held-out'"),
        ("file,group\na.png,x\nb.png, \n", r"b\.png has no 'group'"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_cure(text: str, sentence: str, folder: Path) -> None:
    with pytest.raises(DataError, match=r"list\.csv: .*" + sentence):
        build_manifest([csv(folder, text)])


def test_splits_of_other_names_are_kept(folder: Path) -> None:
    manifest = build_manifest([csv(folder, "file,split\na.png,train\nb.png,test\n")])
    assert manifest.column("split") == ["train", "test"]


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_told(on_disk: str, in_list: str, folder: Path) -> None:
    (folder / "a.png").rename(folder / normalize(on_disk, "über.png"))  # type: ignore[arg-type]
    path = csv(folder, f"file\n{normalize(in_list, 'über.png')}\n")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"looks the same, but is written in Unicode's form {on_disk}"):
        build_manifest([path])
