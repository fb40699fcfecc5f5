"""The table: selection, labels, Parquet, and the split of groups as a pure function of their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, DataError, MissingDataError
from datasets.manifest import FACTS, Manifest, split_groups


def of(groups: list[str], splits: list[str | None] | None = None, **labels: list[object]) -> Manifest:
    number = len(groups)
    facts = {
        "root": ["/somewhere"] * number,
        "file": [f"{row}.png" for row in range(number)],
        "group": groups,
        "split": splits or [None] * number,
        "ndim": [2] * number,
        "shape": [[3, 10, 12]] * number,
        "dtype": ["uint8"] * number,
        "spacing": [[1.0, 1.0]] * number,
        "unit": ["px"] * number,
        "bands": [["red", "green", "blue"]] * number,
        "mean": [None] * number,
        "std": [None] * number,
        "bytes": [100] * number,
        "digest": [f"{row:x}" for row in range(number)],
    }
    return Manifest.of(facts | labels)


def sides(manifest: Manifest) -> dict[str, set[str]]:
    where: dict[str, set[str]] = {}
    for group, split in zip(manifest.column("group"), manifest.column("split"), strict=True):
        where.setdefault(group, set()).add(split)
    return where


def test_parquet_round_trip_keeps_everything(tmp_path: Path) -> None:
    manifest = of(["a", "b"], grade=[1, None], site=["x", "y"])
    manifest.write(tmp_path / "data.parquet")
    back = Manifest.read(tmp_path / "data.parquet")
    assert back.table.equals(manifest.table)
    assert back.digest == manifest.digest
    assert back.label_names == ("grade", "site")


def test_reading_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.parquet does not exist"):
        Manifest.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"text\.parquet: expected a Parquet manifest"):
        Manifest.read(tmp_path / "text.parquet")


def test_select_take_and_paths() -> None:
    manifest = of(["a", "b", "c"], ["train", "held_out", "train"], grade=[5, 6, 7])
    assert manifest.rows(split="train").tolist() == [0, 2]
    assert manifest.select(split="train", group="c").labels("grade").tolist() == [7]
    assert manifest.take([2, 0]).column("file") == ["2.png", "0.png"]
    assert manifest.paths[1] == manifest.path(1) == Path("/somewhere/1.png")
    with pytest.raises(ConfigError, match="no column is called 'grup': did you mean 'group'"):
        manifest.select(grup="a")


def test_labels_are_complete_or_an_error() -> None:
    manifest = of(["a", "b"], grade=[1, 2], site=["x", None])
    assert manifest.labels("grade").dtype == np.int64
    with pytest.raises(ConfigError, match="no label column is called 'grad': did you mean 'grade'"):
        manifest.labels("grad")
    with pytest.raises(DataError, match=r"1 of 2 have none, the first is /somewhere/1\.png"):
        manifest.labels("site")


def test_digest_sees_content_and_not_place() -> None:
    manifest = of(["a", "b"], grade=[1, 2])
    assert manifest.with_column("root", ["/elsewhere"] * 2).digest == manifest.digest
    assert manifest.with_column("grade", [1, 3]).digest != manifest.digest
    assert manifest.with_column("digest", ["0", "9"]).digest != manifest.digest
    assert manifest.with_column("split", ["train", None]).digest != manifest.digest


def test_with_column_keeps_the_order_of_facts() -> None:
    manifest = of(["a"]).with_column("extra", [1]).with_column("split", ["train"])
    assert tuple(manifest.table.column_names) == (*FACTS, "extra")


def test_split_never_divides_a_group_and_meets_its_share() -> None:
    manifest = split_groups(of([f"g{row // 3}" for row in range(3000)]), 0.2, seed=1)
    where = sides(manifest)
    assert all(len(split) == 1 for split in where.values())
    share = np.mean([split == {"held_out"} for split in where.values()])
    assert share == pytest.approx(0.2, abs=0.04)


def test_split_of_a_group_depends_on_its_name_and_the_seed_alone() -> None:
    many = sides(split_groups(of([f"g{row}" for row in range(400)]), 0.3, seed=1))
    some = sides(split_groups(of([f"g{row}" for row in reversed(range(0, 400, 3))]), 0.3, seed=1))
    assert all(many[group] == split for group, split in some.items())
    other = sides(split_groups(of([f"g{row}" for row in range(400)]), 0.3, seed=2))
    assert sum(many[group] != other[group] for group in many) > 80


def test_small_collections_have_both_sides() -> None:
    for seed in range(30):
        for share in (0.01, 0.5, 0.99):
            splits = split_groups(of(["a", "b", "c"]), share, seed).column("split")
            assert set(splits) == {"train", "held_out"}
    assert split_groups(of(["a", "b"]), 0.0, 0).column("split") == ["train", "train"]


def test_both_sides_have_both_ranks() -> None:
    manifest = of([f"g{row}" for row in range(40)]).with_column("ndim", [2] * 37 + [3] * 3)
    for seed in range(30):
        splits = split_groups(manifest, 0.1, seed).column("split")
        assert set(splits[:37]) == set(splits[37:]) == {"train", "held_out"}


def test_given_splits_are_kept() -> None:
    manifest = of(["a", "b", "c", "d"], ["test", "held_out", None, None])
    assert split_groups(manifest, 0.5, 0).column("split")[:2] == ["test", "held_out"]


def test_half_given_splits_and_bad_shares_are_refused() -> None:
    with pytest.raises(DataError, match="group 'a' has rows with and without"):
        split_groups(of(["a", "a"], ["train", None]), 0.5, 0)
    with pytest.raises(ConfigError, match=r"in \[0, 1\), got 1"):
        split_groups(of(["a"]), 1.0, 0)
