"""Draws are pure functions of their key, uniform, and independent between streams and samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.rng import SampleRng, _mix_tensor, key, numpy_rng


def _rng(count: int) -> SampleRng:
    return SampleRng(torch.tensor([key(0, "test", i) for i in range(count)]))


def test_known_values_never_change():
    """A resumed run of an older version must see the same masks."""
    assert key(0) == -2152535657050944081
    assert key(1, "sample", 2) == key(1, "sample", 2)
    assert len({key(a, b) for a in range(30) for b in range(30)}) == 900
    assert key(1, 2) != key(2, 1)


def test_a_sample_draws_alone_what_it_draws_in_company():
    together = _rng(5).uniform(7, 3)
    for i in range(5):
        assert torch.equal(SampleRng(_rng(5).keys[i : i + 1]).uniform(7, 3)[0], together[i])


def test_uniform():
    draws = _rng(64).uniform(1000).double()
    assert 0.0 <= float(draws.min())
    assert float(draws.max()) < 1.0
    assert abs(float(draws.mean()) - 0.5) < 0.004  # 3.5 standard errors of 64,000 draws
    counts = torch.histc(draws.float(), bins=20, min=0, max=1) / 64000
    assert float((counts - 0.05).abs().max()) < 0.005
    neighbours = np.corrcoef(draws[:, :-1].flatten(), draws[:, 1:].flatten())[0, 1]
    samples = np.corrcoef(draws[:-1].flatten(), draws[1:].flatten())[0, 1]
    assert abs(neighbours) < 0.015
    assert abs(samples) < 0.015


def test_streams_are_independent():
    one, two = _rng(64).split("a").uniform(500), _rng(64).split("b").uniform(500)
    assert abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.02


def test_numpy_generator_is_a_function_of_its_parts():
    assert numpy_rng(1, "crop", 5).random() == numpy_rng(1, "crop", 5).random()
    assert len({numpy_rng(1, "crop", i).random() for i in range(200)}) == 200


def test_drawing_nothing_and_a_single_number_have_their_shapes():
    assert _rng(3).uniform(0).shape == (3, 0)
    assert _rng(3).uniform().shape == (3,)


def test_a_stream_is_hashed_once_and_stays_the_hash_of_its_name(monkeypatch):
    rng = _rng(3)
    first = rng.split("hashed once").keys
    monkeypatch.setattr("core.rng.key", lambda *parts: pytest.fail("hashed again"))
    assert torch.equal(rng.split("hashed once").keys, first)
    monkeypatch.undo()
    assert torch.equal(first, _mix_tensor(rng.keys ^ key("hashed once")))


@pytest.mark.slow
def test_drawing_from_a_known_stream_breaks_no_compiled_graph():
    keys = _rng(3).keys

    def draw(keys: torch.Tensor) -> torch.Tensor:
        return SampleRng(keys).split("compiled").uniform(4, 2)

    expected = draw(keys)
    assert torch.equal(torch.compile(draw, backend="eager", fullgraph=True)(keys), expected)
