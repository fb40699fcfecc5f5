"""What command lines of `datasets` have in common: options are spelled and read as in the verbs of domains."""

from __future__ import annotations

import argparse

import pytest

from datasets.program import add_reading, add_work, command


def given(*words: str) -> argparse.Namespace:
    parser = command("check", "What it does.")
    parser.add_argument("paths", nargs="*")
    add_reading(parser.add_argument_group("how"))
    add_work(parser.add_argument_group("work"))
    return parser.parse_args(list(words))


@pytest.mark.parametrize(
    "words",
    [
        ("--options", "a.b=[1,2]", "c.d=x"),
        ("--options=['a.b=[1,2]', c.d=x]",),
    ],
)
def test_several_options_follow_one_another_or_are_a_list(words: tuple[str, ...]) -> None:
    assert given("set", *words, "--quiet").options == ("a.b=[1,2]", "c.d=x")


def test_one_option_may_hold_a_list() -> None:
    assert given("--options=geotiff.bands=[red,nir]").options == ("geotiff.bands=[red,nir]",)
    assert given("--options", "geotiff.bands=[red, nir]").options == ("geotiff.bands=[red, nir]",)
    assert given("set").options == given("set").exclude == ()


def test_names_to_leave_out_are_taken_as_they_are() -> None:
    assert given("set", "--exclude", "*_seg.nii.gz", "labelsTr").exclude == ("*_seg.nii.gz", "labelsTr")
    assert given("set", "--exclude", "*").exclude == ("*",)
    assert given("set", "--exclude", "1").exclude == ("1",)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--options", "a.b=1", "--options", "c.d=2"), "--options is given twice: give it once"),
        (("--exclude", "x", "--exclude=y"), "--exclude is given twice"),
        (("--options",), "expected at least one argument"),
        (("--option", "a.b=1"), "unrecognized arguments: --option"),
        (("--workers", "0"), "whole number of at least 1, got '0'"),
    ],
)
def test_what_cannot_be_meant_is_said(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        given("set", *words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err
