"""Streaming statistics: exact for whole numbers whatever the blocks, bounded error for percentiles, honest about NaN."""

from __future__ import annotations

import json
import math
import pickle
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest

from core.errors import ConfigError, DataError
from datasets.statistics import Statistics, merge_bands, of_bands

WHOLE = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"]


def values(dtype: str, number: int = 5000, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    if dtype == "bool":
        return rng.random(number) < 0.3
    if np.dtype(dtype).kind == "f":
        return (rng.normal(0, 1, number) * 10.0 ** rng.integers(-3, 4, number)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, number, dtype=dtype, endpoint=True)


def blocks(whole: np.ndarray, seed: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=seed))
    cuts = np.sort(rng.integers(0, len(whole), 7))
    parts = np.split(whole, cuts)
    return [parts[number] for number in rng.permutation(len(parts))]


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_are_exact_whatever_the_blocks(dtype: str) -> None:
    data = values(dtype)
    exact = [int(v) for v in data]
    mean = Fraction(sum(exact), len(exact))
    variance = sum((Fraction(v) - mean) ** 2 for v in exact) / len(exact)
    at_once = Statistics.of(data)
    assert at_once.mean == float(mean)
    assert at_once.std == math.sqrt(variance)
    assert (at_once.low, at_once.high) == (float(min(exact)), float(max(exact)))
    for seed in range(5):
        merged = reduce(Statistics.merge, map(Statistics.of, blocks(data, seed)), Statistics.empty(data.dtype))
        assert merged == at_once


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_real_numbers_agree_to_the_last_digits(dtype: str) -> None:
    data = values(dtype)
    for seed in range(5):
        merged = reduce(Statistics.merge, map(Statistics.of, blocks(data, seed)))
        assert merged.mean == pytest.approx(data.mean(dtype=np.float64), rel=1e-12)
        assert merged.std == pytest.approx(data.std(dtype=np.float64), rel=1e-12)
        assert (merged.low, merged.high) == (float(data.min()), float(data.max()))


def test_a_large_offset_costs_no_digits() -> None:
    data = (1e8 + np.arange(4096) % 16).astype(np.float64)
    parts = [Statistics.of(part) for part in np.split(data, 32)]
    assert reduce(Statistics.merge, parts).std == pytest.approx(data.std(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
@pytest.mark.parametrize("q", [0, 0.5, 25, 50, 99.5, 100])
def test_percentiles_of_small_whole_numbers_are_exact(dtype: str, q: float) -> None:
    data = values(dtype, 3001, seed=3)
    assert Statistics.of(data).percentile(q) == np.percentile(data, q, method="inverted_cdf")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint64"])
@pytest.mark.parametrize("q", [0, 1, 25, 50, 75, 99, 100])
def test_percentiles_of_all_others_are_within_one_part_in_256(dtype: str, q: float) -> None:
    data = values(dtype, 4001, seed=5)
    true = float(np.percentile(data, q, method="inverted_cdf"))
    assert Statistics.of(data).percentile(q) == pytest.approx(true, rel=2**-8)


def test_only_valid_voxels_count() -> None:
    data = np.array([[1.0, np.nan, 3.0, np.inf, -9999.0, 5.0]], dtype=np.float32)
    valid = np.array([[True, True, True, True, False, True]])
    found = Statistics.of(data, valid)
    assert (found.count, found.valid, found.nonfinite) == (6, 3, 2)
    assert (found.mean, found.low, found.high) == (3.0, 1.0, 5.0)
    assert found.valid_share == 0.5
    assert found.nonfinite_share == pytest.approx(1 / 3)
    assert found.std == pytest.approx(math.sqrt(8 / 3))


def test_no_valid_voxel_gives_nan_not_zero() -> None:
    found = Statistics.of(np.full(4, np.nan, np.float32))
    assert (found.valid, found.valid_share, found.nonfinite_share) == (0, 0.0, 1.0)
    assert all(math.isnan(v) for v in (found.mean, found.std, found.low, found.high, found.percentile(50)))
    joined = found.merge(Statistics.of(np.float32([2, 4])))
    assert (joined.mean, joined.std, joined.count, joined.low) == (3.0, 1.0, 6, 2.0)
    assert found.merge(found).valid == 0


def test_huge_values_neither_warn_nor_hide() -> None:
    found = Statistics.of(np.array([1e300, -1e300, 0.0])).merge(Statistics.of(np.array([1e300])))
    assert found.high == 1e300
    assert math.isinf(found.std)
    assert found.percentile(100) == pytest.approx(np.finfo(np.float32).max, rel=2**-8)


def test_constant_and_most_common_share() -> None:
    found = Statistics.of(np.array([7, 7, 7, 9], np.uint16))
    assert found.mode_share == 0.75
    assert Statistics.of(np.full(9, -3, np.int8)).std == 0.0


@pytest.mark.parametrize("dtype", [*WHOLE, "float32", "float64"])
def test_json_and_pickle_bring_everything_back(dtype: str) -> None:
    found = Statistics.of(values(dtype))
    assert Statistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert pickle.loads(pickle.dumps(found)) == found


def test_altered_json_is_refused() -> None:
    entries = Statistics.of(values("uint8")).to_dict()
    with pytest.raises(DataError, match="does not add up"):
        Statistics.from_dict(entries | {"valid": 3})
    with pytest.raises(DataError, match="expected statistics as written before"):
        Statistics.from_dict(entries | {"bins": "!"})
    with pytest.raises(DataError, match="expected statistics as written before"):
        Statistics.from_dict({name: entries[name] for name in ("dtype", "count")})


def test_bands_are_kept_apart() -> None:
    voxels = np.stack([values("uint16").reshape(50, 100), values("uint16", seed=1).reshape(50, 100)])
    halves = merge_bands(of_bands(voxels[:, :20]), of_bands(voxels[:, 20:]))
    assert [band.mean for band in halves] == [float(band.mean(dtype=np.float64)) for band in voxels]
    shared = of_bands(voxels, np.arange(100)[None, None] % np.ones((1, 50, 1), np.int64) > -1)
    assert [band.valid for band in shared] == [5000, 5000]


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="statistics of uint8 to merge, got some of int16"):
        Statistics.of(values("uint8")).merge(Statistics.of(values("int16")))
    with pytest.raises(ConfigError, match=r"in \[0, 100\], got 101"):
        Statistics.of(values("uint8")).percentile(101)


def test_byte_order_is_no_other_type() -> None:
    data = values("int16")
    assert Statistics.of(data.astype(">i2")) == Statistics.of(data)
