"""A list's own split: what its words mean, what is refused, and what is dealt where it says nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError, DataError
from datasets import Manifest, build_manifest
from domains.verbs.parts import Own, copies_between, dealt, meanings, own_split


def listed(folder: Path, words: Sequence[str], groups: Sequence[str] | None = None) -> Manifest:
    """Write images of different pixels and a list with these splits, and read it."""
    lines = ["file,split" + (",group" if groups else "")]
    for number, word in enumerate(words):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{word}" + (f",{groups[number]}" if groups else ""))
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return build_manifest([folder / "list.csv"])


@pytest.mark.parametrize("word", ["val", "valid", "validation", "dev"])
def test_words_of_published_splits_are_understood(tmp_path: Path, word: str) -> None:
    manifest, own = own_split(listed(tmp_path, ["train", word, "test", "train"]), ())
    assert own.split == ("train", "validation", "test", "train") and len(manifest) == 4
    named = "" if word == "validation" else f" ({word})"
    assert own.said == (
        f"the list's own column `split` is used: train 2 images, validation{named} 1 images, test 1 images"
    )
    assert own.shares(0.2, 0.3) == (0, 0) and own.tested("test images") == "the list's test images"


def test_other_words_are_given_a_meaning_or_left_out(tmp_path: Path) -> None:
    manifest = listed(tmp_path, ["train_a", "test_gt", "bolivia", "train", "a=b"])
    left, own = own_split(manifest, ("train_a=train", "test_gt=test", "bolivia=none", "a=b=validation"))
    assert own.split == ("train", "test", "train", "validation")
    assert [Path(path).name for path in left.column("file")] == ["0.png", "1.png", "3.png", "4.png"]
    assert own.said.endswith("train (train_a) 2 images, validation (a=b) 1 images, test (test_gt) 1 images, 1 left out")


@pytest.mark.parametrize(
    ("words", "given", "sentence"),
    [
        (
            ["train", "held_out", "gt", "gt"],
            (),
            r"got 'held_out' \(1 images\), 'gt' \(2 images\), the first is .*1\.png: .* --split held_out=test gt=test, .*dealt",
        ),
        (["train", "Test"], (), r"expected the splits train, val, valid, validation, dev, test, got 'Test'"),
        (["train", "", "test"], (), r"1 of 3 have none, the first is .*1\.png: complete the column"),
        (
            ["val", "test"],
            (),
            r"expected images of the split 'train' to learn from, the list has 'val' \(1\), 'test' \(1\)",
        ),
        (["train", "test"], ("train=none",), "expected images of the split 'train' to learn from"),
    ],
)
def test_splits_that_leave_a_doubt_are_refused(
    tmp_path: Path, words: list[str], given: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        own_split(listed(tmp_path, words), given)


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    manifest = listed(tmp_path, ["train", "test"])
    with pytest.raises(ConfigError, match=r"--split=extra=none has no effect: .* the list has train, test"):
        own_split(manifest, ("extra=none",))
    silent = manifest.with_column("split", [None, None])
    assert own_split(silent, ()) == (silent, Own())
    with pytest.raises(ConfigError, match=r"--split=dealt has no effect: the data has no column `split`"):
        own_split(silent, ("dealt",))


@pytest.mark.parametrize("given", [("test",), ("dealt", "a=test"), ("a=tests",), ("=test",), ("a=held_out",)])
def test_what_is_no_meaning_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(
        ConfigError, match=re.escape("expected dealt, or word=part with a part of train, validation, test")
    ):
        meanings(given)


def test_a_split_that_is_left_aside_leaves_everything_open(tmp_path: Path) -> None:
    manifest = listed(tmp_path, ["train", "whatever"])
    left, own = own_split(manifest, ("dealt",))
    assert left is manifest and own.split == () and "left aside (--split=dealt)" in own.said
    assert own.shares(0.2, 0.3) == (0.2, 0.3) and own.tested("test images") == "test images"


def test_what_a_list_does_not_name_is_dealt_out_of_its_training_groups() -> None:
    groups = [f"g{number // 2}" for number in range(2000)]
    for open_, shares in (("validation", (0.3, 0.0)), ("test", (0.0, 0.2))):
        other = "test" if open_ == "validation" else "validation"
        own = Own(split=tuple("train" if number < 1600 else other for number in range(2000)))  # type: ignore[misc]
        assert own.shares(0.3, 0.2) == shares
        found = dealt(groups, own, 0.3, 0.2, seed=1)
        assert found[1600:] == [other] * 400 and set(found[:1600]) == {"train", open_}
        assert found[::2] == found[1::2], "groups stay together"
        assert found[:1600].count(open_) / 1600 == pytest.approx(max(shares), abs=0.05)
        assert found == dealt(groups, own, 0.3, 0.2, seed=1) != dealt(groups, own, 0.3, 0.2, seed=2)
    everything = dealt(groups, Own(), 0.3, 0.2, seed=1)
    assert [everything.count(part) / 2000 for part in ("validation", "test")] == pytest.approx([0.3, 0.2], abs=0.05)


def test_a_group_in_two_parts_of_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="expected each group in one split, but group 'p' is in 'train' .* and in 'test'"
    ):
        listed(tmp_path, ["train", "test"], ["p", "p"])


def test_copies_are_counted_between_parts_alone() -> None:
    assert copies_between(["a", "a", "b"], ("train", "train", "test")) == []
    (said,) = copies_between(["a", "b", "a", "c"], ("train", "train", "test", "test"))
    assert said.startswith("2 of 4 images are in several parts, byte for byte")
