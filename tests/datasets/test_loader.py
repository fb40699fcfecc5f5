"""Batches are a function of (seed, step): not of workers, ranks or where reading began; errors name the file."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.batch import Batch
from core.contract import Input
from core.errors import BandError, ConfigError, DataError
from datasets.index import build_manifest
from datasets.loader import TileLoader, whole_batches
from datasets.manifest import Manifest, split_groups
from datasets.sample import StreamSpec
from datasets.samplers import Order
from datasets.workers import WorkerKind
from tests.datasets.faults import damage


@pytest.fixture
def streams(photograph_input: Input, volume_input: Input) -> list[StreamSpec]:
    return [
        StreamSpec(input=photograph_input, batch_size=8, turns=2, flips=(False, True)),
        StreamSpec(input=volume_input, batch_size=4, flips=(True, True, True)),
    ]


@pytest.fixture
def halves(manifest: Manifest) -> Manifest:
    return split_groups(manifest, 0.3, seed=1)


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("image", "valid", "spacing", "offset", "scale", "key", "index", "row", "origin")
    )


def all_same(some: Iterable[Batch], others: Iterable[Batch]) -> bool:
    return all(same(one, other) for one, other in zip(some, others, strict=True))


def test_streams_alternate_and_count_on(halves: Manifest, streams: list[StreamSpec]) -> None:
    loader = TileLoader(halves, streams, seed=3)
    batches = list(loader.batches(0, 7))
    assert [b.image.ndim for b in batches] == [4, 4, 5, 4, 4, 5, 4]
    photographs = torch.cat([b.index for b in batches if b.image.ndim == 4])
    assert photographs.tolist() == list(range(40))
    rows = [row for row in halves.rows(ndim=2, split="train")]
    order = Order(len(rows), 3)
    assert torch.cat([b.row for b in batches if b.image.ndim == 4]).tolist() == [
        rows[order.at(i)[1]] for i in range(40)
    ]
    assert loader.num_rows("photograph") == len(rows)


def test_only_training_rows_are_trained_on(halves: Manifest, streams: list[StreamSpec]) -> None:
    rows = torch.cat([b.row for b in TileLoader(halves, streams, seed=3).batches(0, 12)])
    assert set(rows.tolist()) == set(halves.rows(split="train").tolist())


def test_starting_late_replays_nothing_and_gives_the_same(halves: Manifest, streams: list[StreamSpec]) -> None:
    loader = TileLoader(halves, streams, seed=3)
    whole = list(loader.batches(0, 9))
    for start in (1, 2, 5):
        assert all_same(whole[start:], loader.batches(start, 9))
    far = next(loader.batches(3 * 10**9, 3 * 10**9 + 1))
    assert far.index.tolist() == list(range(16 * 10**9, 16 * 10**9 + 8))


@pytest.mark.parametrize(
    ("workers", "kind"),
    [
        (1, "thread"),
        (2, "thread"),
        (3, "thread"),
        pytest.param(1, "process", marks=pytest.mark.slow),
        pytest.param(2, "process", marks=pytest.mark.slow),
    ],
)
def test_batches_are_the_same_for_any_workers(
    workers: int, kind: WorkerKind, halves: Manifest, streams: list[StreamSpec]
) -> None:
    reference = list(TileLoader(halves, streams, seed=3).batches(1, 8))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loader = TileLoader(halves, streams, seed=3, workers=workers, worker_kind=kind)
    assert all_same(reference, loader.batches(1, 8))
    assert torch.equal(torch.get_rng_state(), before)  # the loader draws nothing from the global generator


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_global_batch(world_size: int, halves: Manifest, streams: list[StreamSpec]) -> None:
    reference = TileLoader(halves, streams, seed=3).batches(0, 6)
    shares = [
        TileLoader(halves, streams, seed=3, rank=rank, world_size=world_size).batches(0, 6)
        for rank in range(world_size)
    ]
    for whole, *parts in zip(reference, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert len(part) == len(whole) // world_size
            for name in ("image", "valid", "key", "index", "row"):
                assert torch.equal(getattr(part, name), getattr(whole, name)[rank::world_size])


def test_held_out_is_fixed_whole_and_unseen(halves: Manifest, streams: list[StreamSpec]) -> None:
    loader = TileLoader(halves, streams, seed=3)
    held = list(loader.held_out("photograph", 2))
    rows = torch.cat([b.row for b in held]).tolist()
    assert rows == halves.rows(ndim=2, split="held_out").tolist()
    assert all(b.image.dtype == torch.float32 and b.size == (32, 32) for b in held)
    assert all_same(held, loader.held_out("photograph", 2))
    assert all_same(held, TileLoader(halves, streams, seed=3, rank=1, world_size=2).held_out("photograph", 2))
    assert sum(len(b) for b in loader.held_out("photograph", 2, limit=1)) == 1
    volumes = list(loader.held_out("volume", 8))
    assert volumes[0].size == (8, 12, 16)
    with pytest.raises(ConfigError, match="no stream is called 'photo': did you mean 'photograph'"):
        loader.held_out("photo", 2)


def test_whole_batches_follow_the_rows(manifest: Manifest, photograph_input: Input) -> None:
    photographs = manifest.select(ndim=2)
    batches = list(whole_batches(photographs, photograph_input, 4))
    assert torch.cat([b.row for b in batches]).tolist() == list(range(10))
    assert [len(b) for b in batches] == [4, 4, 2]
    with pytest.raises(DataError, match=r"v0\.nii: the image is 3D and nothing in this run reads 3D"):
        whole_batches(manifest, photograph_input, 4)
    with pytest.raises(ConfigError, match="batch_size >= 1"):
        whole_batches(photographs, photograph_input, 0)


def _threads() -> int:
    return sum(thread.name == "halfseen-prefetch" for thread in threading.enumerate())


def test_leaving_early_ends_the_thread(halves: Manifest, streams: list[StreamSpec]) -> None:
    loader = TileLoader(halves, streams, seed=3)
    before = _threads()
    made = loader.batches(0, 1000)
    next(made)
    assert _threads() == before + 1
    made.close()
    assert _threads() == before
    for _ in loader.batches(0, 1000):
        break
    deadline = time.monotonic() + 5
    while _threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _threads() == before
    list(loader.batches(0, 3))
    assert _threads() == before


@pytest.fixture
def broken(collection: Path, tmp_path: Path) -> Manifest:
    shutil.copytree(collection, tmp_path / "copy")
    manifest = build_manifest([tmp_path / "copy" / f"p{number}.png" for number in range(4)])
    damage(tmp_path / "copy" / "p2.png")
    return manifest


@pytest.mark.parametrize(
    ("workers", "kind"), [(0, "thread"), (2, "thread"), pytest.param(2, "process", marks=pytest.mark.slow)]
)
def test_reading_errors_arrive_as_one_sentence_naming_the_file(
    workers: int, kind: WorkerKind, broken: Manifest, streams: list[StreamSpec]
) -> None:
    loader = TileLoader(broken, streams[:1], seed=3, workers=workers, worker_kind=kind)
    with pytest.raises(DataError, match=r"^\S*p2\.png: expected") as caught:
        list(loader.batches(0, 4))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_what_does_not_fit_fails_when_it_is_built(
    manifest: Manifest, streams: list[StreamSpec], photograph_input: Input, volume_input: Input
) -> None:
    photograph = streams[0]
    with pytest.raises(ConfigError, match="that 3 processes share evenly, got 8; choose a multiple of 3"):
        TileLoader(manifest, streams, seed=0, world_size=3)
    with pytest.raises(ConfigError, match="different names"):
        TileLoader(manifest, [photograph, photograph], seed=0)
    with pytest.raises(DataError, match=r"v0\.nii: the image is 3D and nothing in this run reads 3D images"):
        TileLoader(manifest, [photograph], seed=0)
    with pytest.raises(DataError, match=r"stream 'volume': expected 3D images .* the 10 images of the data have none"):
        TileLoader(manifest.select(ndim=2), streams, seed=0)
    gray = StreamSpec(input=replace(photograph_input, bands=("red", "green", "gray")), batch_size=8)
    with pytest.raises(BandError, match=r"p0\.png: expected bands \('red', 'green', 'gray'\), the image has"):
        TileLoader(manifest.select(ndim=2), [gray], seed=0)
    large = StreamSpec(input=replace(photograph_input, patch=(64, 64), size=(64, 64)), batch_size=8)
    with pytest.raises(
        DataError, match=r"p0\.png: expected at least one patch of \(64, 64\) voxels, the image has \(60, 80\)"
    ):
        TileLoader(manifest.select(ndim=2), [large], seed=0)
    metres = StreamSpec(input=replace(volume_input, unit="m"), batch_size=8)
    with pytest.raises(DataError, match=r"v0\.nii: expected spacing in m for input 'volume', the file has mm"):
        TileLoader(manifest.select(ndim=3), [metres], seed=0)
    dark = replace(volume_input, background="dark")
    with pytest.raises(ConfigError, match="2D images only"):
        StreamSpec(input=dark, batch_size=1)
