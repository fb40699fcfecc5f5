"""Bad samples: the same substitute for any workers and ranks, a line for each, an end above the budget; never in an exam."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError, DataError
from datasets.index import build_manifest
from datasets.loader import TileLoader, whole_batches
from datasets.manifest import Manifest
from datasets.quarantine import Quarantine, with_substitutes
from datasets.sample import Incident, Item, StreamSpec
from datasets.workers import WorkerKind, in_order
from tests.datasets.faults import Faulty, damage

BAD = 2


@pytest.fixture
def broken(collection: Path, tmp_path: Path) -> Manifest:
    """Ten photographs of which one rotted after the manifest was built."""
    shutil.copytree(collection, tmp_path / "copy")
    manifest = build_manifest([tmp_path / "copy" / f"p{number}.png" for number in range(10)])
    damage(tmp_path / "copy" / f"p{BAD}.png")
    return manifest


@pytest.fixture
def stream(photograph_input: Input) -> StreamSpec:
    return StreamSpec(input=photograph_input, batch_size=4, flips=(False, True))


def _same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("image", "valid", "key", "index", "row"))


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("workers", "kind", "ranks"),
    [
        (0, "thread", 1),
        (2, "thread", 1),
        (0, "thread", 2),
        (0, "thread", 4),
        pytest.param(2, "process", 2, marks=pytest.mark.slow),
    ],
)
def test_substitutes_are_the_same_for_any_workers_and_ranks(
    broken: Manifest, stream: StreamSpec, tmp_path: Path, workers: int, kind: WorkerKind, ranks: int
) -> None:
    plain = {"seed": 3, "bad_samples": "quarantine"}
    reference = list(TileLoader(broken, [stream], quarantine=tmp_path / "one.jsonl", **plain).batches(0, 10))  # type: ignore[arg-type]
    shares: list[Iterator[Batch]] = [
        TileLoader(
            broken,
            [stream],
            workers=workers,
            worker_kind=kind,
            rank=rank,
            world_size=ranks,
            quarantine=tmp_path / "all.jsonl",
            **plain,  # type: ignore[arg-type]
        ).batches(0, 10)
        for rank in range(ranks)
    ]
    for whole, *parts in zip(reference, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert _same(part, whole.take(slice(rank, None, ranks)))
    one, several = _lines(tmp_path / "one.jsonl"), _lines(tmp_path / "all.jsonl")
    told = [{name: entry[name] for name in ("step", "index", "file", "reason", "substitute")} for entry in one]
    assert sorted(told, key=str) == sorted(({n: entry[n] for n in told[0]} for entry in several), key=str)
    assert len(one) == 4  # once in each of four epochs
    assert {entry["rank"] for entry in several} <= set(range(ranks))


def test_a_line_says_what_happened_and_the_rest_of_the_run_is_unchanged(
    broken: Manifest, stream: StreamSpec, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = build_manifest([collection / f"p{number}.png" for number in range(10)])
    expected = TileLoader(whole, [stream], seed=3).batches(0, 10)
    loader = TileLoader(broken, [stream], seed=3, bad_samples="quarantine", quarantine=tmp_path / "quarantine.jsonl")
    replaced = []
    for good, batch in zip(expected, loader.batches(0, 10), strict=True):
        assert torch.equal(good.index, batch.index)
        for place, row in enumerate(good.row.tolist()):
            if row == BAD:
                replaced.append((int(batch.index[place]), int(batch.row[place])))
                assert batch.row[place] != BAD
                assert batch.key[place] != good.key[place]
            else:
                assert _same(good.take([place]), batch.take([place]))
    assert len(replaced) == 4
    for entry, (index, row) in zip(_lines(tmp_path / "quarantine.jsonl"), replaced, strict=True):
        assert entry["file"] == str(broken.path(BAD))
        assert entry["substitute"] == str(broken.path(row))
        assert entry["index"] == index
        assert entry["step"] == index // 4
        assert entry["stream"] == "photograph"
        assert entry["window"] == ""  # PNG data is checked when the file is opened
        assert "p2.png: expected" in str(entry["reason"])
        assert entry["time"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("quarantined: ")]
    assert len(told) == 1
    assert "p2.png" in told[0]


def test_a_substitute_is_another_crop_than_the_image_gives_anyway(broken: Manifest, stream: StreamSpec) -> None:
    dataset = TileLoader(broken, [stream], seed=3)._dataset
    own = dataset[Item(stream=0, row=5, index=0)]
    stand_in = dataset[Item(stream=0, row=5, index=0, instead_of=BAD)]
    assert own.key != stand_in.key
    assert not np.array_equal(own.image, stand_in.image)


def test_raise_is_the_default_and_exams_always_raise(broken: Manifest, stream: StreamSpec) -> None:
    with pytest.raises(DataError, match=r"p2\.png: expected"):
        list(TileLoader(broken, [stream], seed=3).batches(0, 10))
    splits = ["held_out" if row in (BAD, 3) else "train" for row in range(10)]
    loader = TileLoader(broken.with_column("split", splits), [stream], seed=3, bad_samples="quarantine")
    assert len(list(loader.batches(0, 10))) == 10
    with pytest.raises(DataError, match=r"p2\.png: expected"):
        list(loader.held_out("photograph", 2))
    with pytest.raises(DataError, match=r"p2\.png: expected"):
        list(whole_batches(broken, stream.input, 4))


def test_the_run_ends_above_its_budget_also_when_it_is_continued(
    broken: Manifest, stream: StreamSpec, tmp_path: Path
) -> None:
    path = tmp_path / "quarantine.jsonl"

    def loader(budget: float) -> TileLoader:
        return TileLoader(broken, [stream], seed=3, bad_samples="quarantine", bad_budget=budget, quarantine=path)

    list(loader(0.001).batches(0, 10))
    assert len(_lines(path)) == 4
    list(loader(0.001).batches(6, 12))  # what is read again counts once
    with pytest.raises(DataError, match=r"p2\.png: expected at most 5 samples that cannot be read, this is number 6 "):
        list(loader(0.001).batches(10, 25))
    assert len({entry["index"] for entry in _lines(path)}) == 6 < len(_lines(path))
    assert len(list(loader(0.2).batches(0, 25))) == 25  # a fifth of 100 samples


def test_other_ranks_count_too(tmp_path: Path) -> None:
    ranks = [Quarantine(tmp_path / "q.jsonl", budget=0.0, rank=rank) for rank in range(2)]
    for number in range(5):
        incident = Incident("photograph", number, "a.png", "", "a.png: is bad.", "b.png")
        ranks[number % 2].record([incident], step=number, samples=100)
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write('{"cut short')
    with pytest.raises(DataError, match="this is number 6"):
        ranks[0].record([Incident("photograph", 9, "c.png", "", "c.png: is bad.", "b.png")], step=9, samples=100)


def test_our_own_mistakes_and_missing_bands_are_never_replaced(manifest: Manifest, stream: StreamSpec) -> None:
    dataset = Faulty(manifest.select(ndim=2), [stream], seed=0)
    dataset.fault, dataset.row = "assertion", 1
    rows = np.arange(10)
    items = [with_substitutes(Item(stream=0, row=row, index=row), "photograph", rows, 0) for row in (0, 1)]
    made = in_order(dataset, iter([items]), workers=0, kind="thread", timeout_s=60, name=str)
    assert "our own mistake" in next(made).message  # type: ignore[union-attr]
    infrared = replace(stream, input=replace(stream.input, bands=("red", "green", "infrared")))
    other = Faulty(manifest.select(ndim=2), [infrared], seed=0)
    made = in_order(other, iter([items]), workers=0, kind="thread", timeout_s=60, name=str)
    assert next(made).kind == "BandError"  # type: ignore[union-attr]


def test_substitutes_are_others_and_depend_on_the_row_and_epoch() -> None:
    rows = np.array([3, 5, 8, 13, 21])
    item = Item(stream=0, row=8, index=7, epoch=2)
    chosen = with_substitutes(item, "photograph", rows, 1).substitutes
    assert chosen == with_substitutes(item, "photograph", rows, 1).substitutes
    assert set(chosen) <= {3, 5, 13, 21}
    firsts = {with_substitutes(replace(item, epoch=e), "photograph", rows, 1).substitutes[0] for e in range(30)}
    assert firsts == {3, 5, 13, 21}
    assert with_substitutes(replace(item, row=3), "photograph", np.array([3]), 1).substitutes == ()


def test_the_budget_is_a_share() -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Quarantine(None, budget=1.5)
