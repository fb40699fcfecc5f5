"""The bank of masks: bits that are the masks, kept while nothing changes, refused when stale, in memory that stays flat."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import ConfigError, DataError, ShapeError
from core.mask_bank import Bank, build_bank
from core.maskers._superpixels import RegionCut, cut
from core.rng import SampleRng, key
from core.shapes import patchify
from tests.core.maskers.phantoms import phantoms
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("flat", 1, (8, 8), (64, 72))
SOLID = make_input("solid", 1, (2, 8, 8), (8, 32, 32))
STILL = RegionCut(shift=0.0, grow=0.0)


def _refuse():
    raise AssertionError("a bank that is there was made again")
    yield


def _bits(path, size):
    return np.unpackbits(np.load(path), axis=1, count=int(np.prod(size))).reshape(-1, *size).astype(bool)


@pytest.mark.parametrize("entry", [ENTRY, SOLID], ids=lambda entry: entry.name)
def test_holds_the_kept_regions_of_every_image(tmp_path, entry):
    batch = phantoms(entry, 3)
    path = build_bank([batch.take([0, 1]), batch.take([2])], tmp_path, entry, STILL)
    expected = [
        cut(image, np.ones_like(image, bool), entry.spacing, entry.patch, STILL).masks()
        for image in batch.image.numpy()
    ]
    assert np.array_equal(_bits(path, entry.size), np.concatenate(expected))
    facts = json.loads(path.with_suffix(".json").read_text())
    assert (facts["images"], facts["without"], facts["regions"]) == (3, 0, sum(map(len, expected)))
    assert [file.name for file in sorted(tmp_path.iterdir())] == [path.with_suffix(".json").name, path.name]


def test_shares_are_the_masks_on_tokens(tmp_path):
    path = build_bank([phantoms(ENTRY, 2)], tmp_path, ENTRY)
    bank = Bank.open(str(tmp_path), ENTRY.grid(), RegionCut())
    masks = torch.from_numpy(_bits(path, ENTRY.size))[:, None]
    torch.testing.assert_close(
        bank.shares.float() / 255, patchify(masks, ENTRY.patch).float().mean(2), atol=0.003, rtol=0
    )
    assert bank.coverage == pytest.approx(float(masks.float().mean()), abs=0.002)


def test_is_reused_while_nothing_changes_and_made_again_when_a_parameter_does(tmp_path):
    batches = [phantoms(ENTRY, 1)]
    path = build_bank(batches, tmp_path, ENTRY)
    first = path.read_bytes()
    assert build_bank(_refuse(), tmp_path, ENTRY) == path
    for change in (replace(RegionCut(), compactness=0.2), replace(RegionCut(), shift=0.5)):
        build_bank(batches, tmp_path, ENTRY, change)
        assert path.read_bytes() != first
        Bank.open(str(tmp_path), ENTRY.grid(), change)
    with pytest.raises(AssertionError, match="made again"):
        build_bank(_refuse(), tmp_path, ENTRY)


def test_an_interrupted_build_leaves_no_bank(tmp_path):
    build_bank([phantoms(ENTRY, 1)], tmp_path, ENTRY)

    def broken():
        yield phantoms(ENTRY, 1)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        build_bank(broken(), tmp_path, ENTRY, STILL)
    with pytest.raises(ConfigError, match="got none"):
        Bank.open(str(tmp_path), ENTRY.grid(), STILL)
    assert not list(tmp_path.glob("*partial"))
    build_bank([phantoms(ENTRY, 1)], tmp_path, ENTRY, STILL)
    assert len(Bank.open(str(tmp_path), ENTRY.grid(), STILL).shares) > 2


def test_masks_of_other_parameters_are_refused(tmp_path):
    build_bank([phantoms(ENTRY, 1)], tmp_path, ENTRY)
    with pytest.raises(ConfigError, match="regions_digest differ"):
        Bank.open(str(tmp_path), ENTRY.grid(), STILL)
    with pytest.raises(ConfigError, match="patch differ"):
        Bank.open(str(tmp_path), replace(ENTRY, patch=(4, 4)).grid(), RegionCut())
    with pytest.raises(ConfigError, match=r"\(64, 80\) voxels .* got none"):
        Bank.open(str(tmp_path), ENTRY.grid((64, 80)), RegionCut())


def test_one_folder_serves_several_sizes(tmp_path):
    for entry in (ENTRY, SOLID):
        build_bank([phantoms(entry, 1)], tmp_path, entry)
    for entry in (ENTRY, SOLID):
        assert Bank.open(str(tmp_path), entry.grid(), RegionCut()).shares.shape[1] == entry.grid().num_places


def test_variants_are_moved_differently(tmp_path):
    path = build_bank([phantoms(ENTRY, 1)], tmp_path, ENTRY, replace(RegionCut(), grow=0.0), variants=3)
    copies = np.split(_bits(path, ENTRY.size), 3)
    assert not np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[1], copies[2])


def test_images_without_structure_and_other_sizes_are_refused(tmp_path):
    flat = make_batch(torch.ones(2, 1, 64, 72), ENTRY)
    with pytest.raises(DataError, match="got 2 without any region"):
        build_bank([flat], tmp_path, ENTRY)
    with pytest.raises(ShapeError, match=r"crops of \(64, 72\)"):
        build_bank([phantoms(SOLID, 1)], tmp_path, ENTRY)
    assert not list(tmp_path.iterdir())


def test_memory_stays_flat_however_many_images(tmp_path):
    batch = phantoms(ENTRY, 1)

    def peak(count):
        stream = (replace(batch, key=batch.key + i) for i in range(count))
        tracemalloc.start()
        path = build_bank(stream, tmp_path / str(count), ENTRY, variants=80)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, path.stat().st_size

    (few, _), (many, size) = peak(1), peak(5)
    assert size > 1e6
    assert many - few < 0.2 * size


def test_reading_unpacks_a_few_masks_at_a_time(tmp_path):
    """The file's masks as bytes would be 12 MB; as tokens they are 50 KB."""
    entry = make_input("large", 1, (16, 16), (256, 256))
    path = build_bank([phantoms(entry, 1)], tmp_path, entry, variants=30)
    voxels = 256 * 256 * len(np.load(path, mmap_mode="r"))
    assert voxels > 8e6
    tracemalloc.start()
    Bank.open(str(tmp_path), entry.grid(), RegionCut())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * voxels


def test_draws_belong_to_the_sample(tmp_path):
    build_bank([phantoms(ENTRY, 4)], tmp_path, ENTRY)
    bank = Bank.open(str(tmp_path), ENTRY.grid(), RegionCut())
    keys = torch.tensor([key("draw", i) for i in range(50)])
    drawn = bank.draw(SampleRng(keys), 0.6)
    assert torch.equal(bank.draw(SampleRng(keys[7:8]), 0.6)[0], drawn[7])
    assert len({row.numpy().tobytes() for row in drawn}) == 50
    used = {tuple(mask) for row in drawn.tolist() for mask in row}
    assert used == {tuple(mask) for mask in bank.shares.tolist()}
    union = (drawn.int().sum(1) >= 128).float().mean(1)
    assert float((union >= 0.6).float().mean()) > 0.5


def test_opening_again_reads_no_file_until_the_bank_is_made_again(tmp_path, monkeypatch):
    path = build_bank([phantoms(ENTRY, 1)], tmp_path, ENTRY)
    first = Bank.open(str(tmp_path), ENTRY.grid(), RegionCut())
    with monkeypatch.context() as patch:
        for name in ("json.loads", "digest", "np.load"):
            patch.setattr(f"core.mask_bank.{name}", lambda *_, **__: pytest.fail("read again"))
        assert Bank.open(str(tmp_path), ENTRY.grid(), RegionCut()) is first
    path.with_suffix(".json").unlink()
    build_bank([phantoms(ENTRY, 2)], tmp_path, ENTRY)
    assert len(Bank.open(str(tmp_path), ENTRY.grid(), RegionCut()).shares) > len(first.shares)
    path.unlink()
    with pytest.raises(ConfigError, match=r"got none: make it with core\.mask_bank\.build_bank\."):
        Bank.open(str(tmp_path), ENTRY.grid(), RegionCut())
