from __future__ import annotations

import numpy as np
import pytest
import torch

from core.errors import ConfigError
from core.evaluate import knn
from core.evaluate.knn import NearestNeighbours, vote


def slow_vote(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int, temperature: float, classes: int
) -> np.ndarray:
    """Equation 9 of arXiv 1805.01978, query by query."""
    result = np.zeros((len(queries), classes))
    for row, query in enumerate(queries):
        cosine = [float(query @ b / np.linalg.norm(query) / np.linalg.norm(b)) for b in bank]
        for i in np.argsort(cosine)[::-1][:k]:
            result[row, labels[i]] += np.exp(cosine[i] / temperature)
    return result / result.sum(1, keepdims=True)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (40, 1.0)])
def test_votes_equal_the_formula(k: int, temperature: float) -> None:
    rng = np.random.default_rng(k)
    bank, queries, labels = rng.normal(size=(40, 6)), rng.normal(size=(9, 6)), rng.integers(0, 3, 40)
    got = vote(
        torch.from_numpy(bank),
        torch.from_numpy(labels),
        torch.from_numpy(queries),
        k=k,
        temperature=temperature,
        num_classes=3,
    )
    np.testing.assert_allclose(got.numpy(), slow_vote(bank, labels, queries, k, temperature, 3), atol=1e-10)


def test_length_of_features_and_blocks_of_queries_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, labels = torch.randn(30, 5), torch.arange(30) % 4
    queries = torch.randn(23, 5)
    whole = vote(bank, labels, queries, k=5, temperature=0.07, num_classes=4)
    monkeypatch.setattr(knn, "CHUNK", 4)
    scaled = vote(bank * torch.rand(30, 1).add(0.1), labels, 100 * queries, k=5, temperature=0.07, num_classes=4)
    torch.testing.assert_close(scaled, whole, atol=1e-4, rtol=1e-4)


def test_a_small_temperature_trusts_the_nearest_alone() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.1]])
    sharp = vote(bank, labels, query, k=3, temperature=0.01, num_classes=2)
    soft = vote(bank, labels, query, k=3, temperature=100.0, num_classes=2)
    assert sharp[0, 0] > 0.999
    assert soft[0, 1] == pytest.approx(2 / 3, abs=0.01)


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected 1 <= k <= 3 labelled images .* got k=20"):
        NearestNeighbours().predict(
            np.eye(3, dtype=np.float32), np.array([0, 1, 1]), np.eye(3, dtype=np.float32), num_classes=2, settings=[20]
        )


def test_standardising_removes_a_common_vector_that_hides_the_classes() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 8)) + 2.0 * labels[:, None]
    features = (features + 1e4 * np.eye(8)[0]).astype(np.float32)  # cosines are all 1 to seven digits
    accuracy = []
    for standardise in (False, True):
        method = NearestNeighbours(standardise=standardise)
        found, failed = method.predict(features[:100], labels[:100], features[100:], num_classes=2, settings=[20])
        assert found.shape == (1, 100, 2)
        assert failed == 0
        accuracy.append((found[0].argmax(1) == labels[100:]).mean())
    assert accuracy[1] > 0.95
    assert accuracy[1] >= accuracy[0]
