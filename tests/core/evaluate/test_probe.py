from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from core.evaluate import logistic
from core.evaluate.probe import LinearProbe, standardise


def clouds(seed: int, *, images: int = 150, width: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images, p=np.r_[[0.6], np.full(classes - 1, 0.4 / (classes - 1))])
    centres = 3 * np.random.default_rng(99).normal(size=(classes, width))
    features = 5 + 3 * (centres[labels] * 0.3 + rng.normal(size=(images, width)))
    return features.astype(np.float32), labels.astype(np.int64)


def torch_optimum(features: np.ndarray, labels: np.ndarray, queries: np.ndarray, c: float, classes: int) -> np.ndarray:
    """Minimise the documented objective with another optimiser, in float64."""
    mean, std = features.astype(np.float64).mean(0), features.astype(np.float64).std(0)
    x, q = (torch.from_numpy((f - mean) / std) for f in (features, queries))
    y = torch.from_numpy(labels)
    weight = torch.tensor([len(labels) / classes / (labels == k).sum() for k in range(classes)], dtype=torch.float64)
    w = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [w, b], max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ w + b, y, weight=weight, reduction="sum") + w.square().sum() / (2 * c)
        loss.backward()
        return loss

    optimiser.step(closure)
    return torch.softmax(q @ w + b, 1).detach().numpy()


@pytest.mark.parametrize("c", [1e-3, 1e-1, 10.0])
def test_probe_is_the_optimum_of_the_documented_objective(c: float) -> None:
    features, labels = clouds(0)
    queries, truth = clouds(1)
    found, failed = LinearProbe().predict(features, labels, queries, num_classes=3, settings=[c])
    expected = torch_optimum(features, labels, queries, c, 3)
    assert failed == 0
    np.testing.assert_allclose(found[0], expected, atol=2e-3)
    accuracy = [(p.argmax(1) == truth).mean() for p in (found[0], expected)]
    assert abs(accuracy[0] - accuracy[1]) <= 0.01


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("width", [12, 200])
@pytest.mark.parametrize("c", [1e-3, 1e-1, 10.0])
def test_probe_equals_scikit_learn_with_few_and_with_many_features(classes: int, width: int, c: float) -> None:
    features, labels = clouds(10, images=90, width=width, classes=classes)
    queries, _ = clouds(11, images=90, width=width, classes=classes)
    train, test = standardise(features, queries)
    reference = LogisticRegression(C=c, class_weight="balanced", tol=1e-9, max_iter=20_000).fit(train, labels)
    expected = reference.predict_proba(test)
    exact, failed = LinearProbe(tol=1e-6).predict(features, labels, queries, num_classes=classes, settings=[c])
    usual, _ = LinearProbe().predict(features, labels, queries, num_classes=classes, settings=[c])
    assert failed == 0
    np.testing.assert_allclose(exact[0], expected, atol=2e-5)
    np.testing.assert_allclose(usual[0], expected, atol=3e-3)


def test_features_that_are_nearly_the_same_converge_in_few_steps_of_few_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten directions of spread 1 beside many of 0.1: gradients that are not divided by curvature get nowhere."""
    monkeypatch.setattr(logistic, "MAX_DIRECTIONS", 20)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(400, 10)) @ rng.normal(size=(10, 120)) + 0.1 * rng.normal(size=(400, 120))
    labels = (np.arange(400) % 4).astype(np.int64)
    features = (mixed + 0.5 * np.eye(120)[labels]).astype(np.float32)
    _, failed = LinearProbe(max_iter=12).predict(
        features, labels, features, num_classes=4, settings=LinearProbe().settings
    )
    assert failed == 0


def test_settings_in_any_order_give_the_same_answers_as_one_at_a_time() -> None:
    features, labels = clouds(2)
    queries, _ = clouds(3)
    together, _ = LinearProbe().predict(features, labels, queries, num_classes=3, settings=[1.0, 1e-3, 0.1])
    for row, c in enumerate([1.0, 1e-3, 0.1]):
        alone, _ = LinearProbe().predict(features, labels, queries, num_classes=3, settings=[c])
        np.testing.assert_allclose(together[row], alone[0], atol=2e-3)


def test_scale_and_offset_of_each_feature_do_not_matter() -> None:
    features, labels = clouds(4)
    queries, _ = clouds(5)
    factor = np.logspace(-2, 2, 12, dtype=np.float32)
    plain, _ = LinearProbe().predict(features, labels, queries, num_classes=3, settings=[0.1])
    scaled, _ = LinearProbe().predict(features * factor, labels, queries * factor, num_classes=3, settings=[0.1])
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_a_feature_constant_in_training_has_no_say_in_the_test() -> None:
    features, labels = clouds(6)
    queries, _ = clouds(7)
    plain, _ = LinearProbe().predict(features, labels, queries, num_classes=3, settings=[0.1])
    constant = np.full((150, 1), 0.1, dtype=np.float32)
    wild = np.random.default_rng(0).normal(size=(150, 1)).astype(np.float32) * 1e6
    more, _ = LinearProbe().predict(
        np.hstack([features, constant]), labels, np.hstack([queries, wild]), num_classes=3, settings=[0.1]
    )
    np.testing.assert_allclose(more, plain, atol=1e-6)
    assert (standardise(constant, wild)[1] == 0).all()


def test_a_fit_that_stops_early_is_counted_and_does_not_warn() -> None:
    features, labels = clouds(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, failed = LinearProbe(max_iter=2).predict(features, labels, features, num_classes=3, settings=[1e-4, 10.0])
    assert failed >= 1


def test_more_features_than_images_converge() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 300)).astype(np.float32), np.arange(60) % 4
    found, failed = LinearProbe().predict(features, labels, features, num_classes=4, settings=LinearProbe().settings)
    assert failed == 0
    np.testing.assert_allclose(found.sum(2), 1.0, atol=1e-9)


def test_a_class_without_training_images_gets_probability_zero() -> None:
    features, labels = clouds(9)
    keep = labels != 1
    found, _ = LinearProbe().predict(features[keep], labels[keep], features, num_classes=3, settings=[0.1])
    assert (found[0, :, 1] == 0).all()


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_features_that_are_all_alike_give_the_shares_of_the_classes(classes: int, tol: float) -> None:
    for seed in range(12):  # rounding leaves another direction over in each
        rng = np.random.default_rng(seed)
        labels = np.r_[np.arange(classes), rng.integers(0, classes, int(rng.integers(20, 90)))].astype(np.int64)
        weights = np.ones(len(labels)) if seed % 2 else 1 / np.bincount(labels)[labels]
        features = np.full((len(labels), 1 + 7 * (seed % 3)), rng.normal())
        fits = logistic.fit_path(
            features, labels, weights, num_classes=classes, settings=[1e-3, 0.1, 10.0], max_iter=100, tol=tol
        )
        assert all(fit.converged for fit in fits)
        expected = np.bincount(labels, weights) / weights.sum()
        np.testing.assert_allclose(fits[-1].probabilities(features[:1])[0], expected, atol=1e-6 if tol < 1e-3 else 1e-2)
