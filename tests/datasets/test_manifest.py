"""The table: selection, labels, Parquet, and the split of groups as a pure function of their names."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


def large(number: int) -> Manifest:
    """Many rows, four to a group, as columns that cost little to make."""
    rows = np.arange(number)
    facts = of(["g"]).table.take(np.zeros(number, dtype=np.int64))
    manifest = Manifest(facts)
    for name, values in {
        "file": [f"{row:07d}.tif" for row in rows],
        "group": [f"patient{row // 4:06d}" for row in rows],
        "digest": [f"{row:064x}" for row in rows],
    }.items():
        manifest = manifest.with_column(name, values)
    return manifest.with_column("grade", rows % 5)


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


def test_an_older_manifest_says_how_to_make_a_new_one(tmp_path: Path) -> None:
    table = of(["a"]).table.select(["file", "group"]).replace_schema_metadata({b"halfseen": b"manifest 1"})
    pq.write_table(table, tmp_path / "old.parquet")
    with pytest.raises(DataError, match=r"old\.parquet: .*\(manifest 2\), got 'manifest 1'.*build it again"):
        Manifest.read(tmp_path / "old.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"written by halfseen, got a Parquet table \['x'\]"):
        Manifest.read(tmp_path / "other.parquet")


def test_roots_may_be_relative_to_the_manifest(tmp_path: Path) -> None:
    manifest = of(["a", "b"]).with_column("root", [str(tmp_path / "set" / "images"), "/elsewhere"])
    (tmp_path / "set").mkdir()
    manifest.write(tmp_path / "set" / "manifest.parquet", relative_to=tmp_path / "set")
    assert pq.read_table(tmp_path / "set" / "manifest.parquet")["root"].to_pylist() == ["images", "/elsewhere"]
    (tmp_path / "set").rename(tmp_path / "moved")
    back = Manifest.read(tmp_path / "moved" / "manifest.parquet")
    assert back.paths == [tmp_path / "moved" / "images" / "0.png", Path("/elsewhere/1.png")]
    assert back.digest == manifest.digest


def test_writing_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of(["a"]).write(tmp_path / "m.parquet")

    def fail(table: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk is full"):
        of(["b"]).write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").column("group") == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


def test_digest_is_of_content_alone() -> None:
    manifest = of(["a", "b"], ["train", None], grade=[1, None], site=["x", None])
    same = [
        manifest.with_column("root", ["/other"] * 2),
        manifest.with_column("mtime_ns", [5, 6]),
        manifest.with_column("options", [[], None]),
        Manifest(manifest.table.select(list(reversed(manifest.table.column_names)))),
        Manifest(pa.concat_tables([manifest.table.slice(0, 1), manifest.table.slice(1, 1)])),
    ]
    assert {entry.digest for entry in same} == {manifest.digest}
    one, other = ["nifti.affine=sform", "nifti.volumes=1"], ["nifti.volumes=1", "nifti.affine=sform"]
    assert manifest.with_column("options", [one, None]).digest == manifest.with_column("options", [other, []]).digest
    different = [
        manifest.with_column("options", [one, None]),
        manifest.with_column("digest", ["0", "2"]),
        manifest.with_column("group", ["ab", ""]),
        manifest.with_column("split", [None, "train"]),
        manifest.with_column("grade", [None, 1]),
        manifest.with_column("grade", [1, 0]),
        manifest.with_column("grade", [1.0, None]),
        manifest.with_column("site", ["x", ""]),
        manifest.take([1, 0]),
    ]
    assert len({entry.digest for entry in different} | {manifest.digest}) == len(different) + 1


def test_rows_find_none_lists_and_other_types() -> None:
    manifest = of(["a", "b", "c"], ["train", None, "train"], grade=[1, None, 3])
    assert manifest.rows(split=None).tolist() == [1]
    assert manifest.rows(grade=3).tolist() == [2]
    assert manifest.rows(grade="3").tolist() == []
    assert manifest.rows(bands=["red", "green", "blue"]).tolist() == [0, 1, 2]
    assert manifest.rows(ndim=2, split="train", grade=1).tolist() == [0]


def test_codes_number_values_by_their_first_row() -> None:
    numbers, values = of(["b", "a", "b"], ["x", None, "y"]).codes("group")
    assert (numbers.tolist(), values) == ([0, 1, 0], ["b", "a"])
    numbers, values = of(["b", "a", "b"], ["x", None, "y"]).codes("split")
    assert (numbers.tolist(), values) == ([0, -1, 1], ["x", "y"])


def test_a_mapped_manifest_is_the_same_and_travels_as_a_path(tmp_path: Path) -> None:
    manifest = of(["a", "b"], grade=[1, None], site=["x", "y"])
    mapped = manifest.mapped(tmp_path)
    assert mapped.table.equals(manifest.table)
    assert mapped.digest == manifest.digest
    assert mapped.mapped(tmp_path) is mapped
    assert manifest.mapped(tmp_path).backing == mapped.backing  # named by content: once
    assert [path.name for path in tmp_path.iterdir()] == [mapped.backing.name if mapped.backing else ""]
    sent = pickle.dumps(mapped)
    assert len(sent) < 300 + len(str(mapped.backing))
    assert pickle.loads(sent).table.equals(manifest.table)
    assert pickle.loads(pickle.dumps(manifest)).table.equals(manifest.table)
    assert mapped.take([1]).backing is None


def private_megabytes() -> float:
    """Memory that only this process holds: written pages. Mapped pages that were only read are the file's, in the cache."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_Dirty:\s+(\d+) kB", text)) / 1024


def open_and_read(sent: bytes, growth: multiprocessing.Queue[float]) -> None:
    pickle.loads(pickle.dumps(of(["a"]))).path(0)  # libraries are in memory before the measurement
    before = private_megabytes()
    manifest = pickle.loads(sent)
    for row in range(0, len(manifest), len(manifest) // 2000):
        manifest.path(row)
        manifest.table["shape"][row].as_py()
    growth.put(private_megabytes() - before)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measures private memory by Linux's smaps")
def test_two_million_rows_are_dealt_and_cost_another_process_less_than_twenty_megabytes(tmp_path: Path) -> None:
    manifest = large(2_000_000)
    split = split_groups(manifest, 0.1, seed=0)
    assert len(split.rows(split="held_out")) == pytest.approx(200_000, rel=0.02)
    assert len(split.digest) == 32
    mapped = split.mapped(tmp_path)
    del manifest, split
    context = multiprocessing.get_context("forkserver")
    growth: multiprocessing.Queue[float] = context.Queue()
    other = context.Process(target=open_and_read, args=(pickle.dumps(mapped), growth))
    other.start()
    assert growth.get(timeout=120) < 20
    other.join()


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
