from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from core.errors import ConfigError, DataError
from core.evaluate import LinearProbe, NearestNeighbours, Table, evaluate
from core.evaluate.folds import assign_folds, out_of_fold
from core.evaluate.protocol import deal
from core.rng import key

PROBE = LinearProbe(settings=(1e-3, 1e-1))


def cohort(seed: int = 0, *, patients: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images per patient, three ordered grades, and features that carry the grade along one direction."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i:03d}" for i in range(patients)], 2)
    labels = np.repeat(rng.choice(3, patients, p=[0.5, 0.3, 0.2]), 2)
    features = rng.normal(size=(2 * patients, 6)) + np.repeat(rng.normal(size=(patients, 6)), 2, axis=0)
    features[:, 0] += 1.5 * labels
    return features.astype(np.float32), labels, groups


@cache
def table() -> Table:
    features, labels, groups = cohort()
    noise = [np.random.default_rng(s).normal(size=(160, 6)).astype(np.float32) for s in range(3)]
    return evaluate(
        {"encoder": features, "random weights": noise},
        labels,
        groups,
        seed=1,
        ordinal=True,
        draws=500,
        methods=(NearestNeighbours(), PROBE),
        notes=("the encoder never saw these images.",),
    )


def test_scores_equal_scikit_learn_on_the_pooled_out_of_fold_predictions() -> None:
    features, labels, groups = cohort()
    names = ("0", "1", "2")
    fold = assign_folds(labels, groups, folds=5, seed=key(1, 0), class_names=names)
    p = out_of_fold(PROBE, features, labels, groups, fold, seed=key(1, 0), class_names=names).probabilities
    expected = {
        "balanced accuracy": balanced_accuracy_score(labels, p.argmax(1)),
        "AUROC": roc_auc_score(labels, p, multi_class="ovr"),
        "quadratic kappa": cohen_kappa_score(labels, p.argmax(1), weights="quadratic"),
    }
    for metric, value in expected.items():
        assert table().row("encoder", "linear probe", metric).value == pytest.approx(value, abs=1e-12)


def test_informative_features_beat_chance_and_noise_does_not() -> None:
    for method in ("k-NN", "linear probe"):
        for metric, level in table().chance.items():
            encoder, noise = (table().row(name, method, metric) for name in ("encoder", "random weights"))
            assert encoder.low > level
            assert noise.low < level < noise.high
            assert encoder.low < encoder.value < encoder.high


def test_differences_are_the_differences_of_the_scores_and_paired() -> None:
    assert {(d.features, d.baseline) for d in table().differences} == {("encoder", "random weights")}
    assert len(table().differences) == 6
    for d in table().differences:
        encoder, noise = (table().row(name, d.method, d.metric) for name in ("encoder", "random weights"))
        assert d.value == pytest.approx(encoder.value - noise.value)
        assert d.excludes_zero
        assert d.low < d.value < d.high


def test_a_feature_set_minus_itself_is_exactly_zero() -> None:
    features, labels, groups = cohort()
    twice = evaluate({"a": features, "b": features}, labels, groups, seed=0, draws=100, methods=(NearestNeighbours(),))
    for d in twice.differences:
        assert (d.value, d.low, d.high) == (0.0, 0.0, 0.0)
        assert not d.excludes_zero


def test_several_seeds_are_averaged_and_their_spread_is_shown() -> None:
    features, labels, groups = cohort()
    sets = [features, features + np.random.default_rng(5).normal(size=features.shape).astype(np.float32)]
    options = {"seed": 0, "draws": 100, "methods": (NearestNeighbours(),)}
    both = evaluate({"encoder": sets}, labels, groups, **options).row("encoder", "k-NN", "AUROC")
    single = [evaluate({"encoder": s}, labels, groups, **options).row("encoder", "k-NN", "AUROC") for s in sets]
    values = [row.value for row in single]
    assert both.value == pytest.approx(np.mean(values))
    assert both.spread == pytest.approx(np.std(values, ddof=1))
    assert (both.sets, single[0].sets, single[0].spread) == (2, 1, None)


def test_repeats_average_over_assignments_of_folds() -> None:
    features, labels, groups = cohort()
    options = {"draws": 100, "methods": (NearestNeighbours(),)}
    names = ("0", "1", "2")
    values = []
    for repeat in range(3):
        fold = assign_folds(labels, groups, folds=5, seed=key(7, repeat), class_names=names)
        p = out_of_fold(NearestNeighbours(), features, labels, groups, fold, seed=0, class_names=names).probabilities
        values.append(balanced_accuracy_score(labels, p.argmax(1)))
    assert len(set(values)) > 1
    got = evaluate({"encoder": features}, labels, groups, seed=7, repeats=3, **options)
    assert got.row("encoder", "k-NN", "balanced accuracy").value == pytest.approx(np.mean(values))


def test_the_table_is_reproducible_and_the_order_of_images_does_not_matter() -> None:
    features, labels, groups = cohort()
    order = np.random.default_rng(3).permutation(len(labels))
    options = {"seed": 2, "draws": 200, "methods": (NearestNeighbours(), PROBE)}
    first = evaluate({"encoder": features}, labels, groups, **options)
    assert evaluate({"encoder": features}, labels, groups, **options) == first
    shuffled = evaluate({"encoder": features[order]}, labels[order], groups[order], **options)
    for a, b in zip(first.rows, shuffled.rows, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=2e-3)
    other = evaluate({"encoder": features}, labels, groups, **{**options, "seed": 3})
    assert other.rows != first.rows


def test_grouped_folds_do_not_reward_recognising_the_patient() -> None:
    """Features that identify the patient and nothing else: grouped folds say chance, folds by image do not."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.permutation(np.arange(60) % 2), 4)
    features = (np.repeat(rng.normal(size=(60, 16)), 4, axis=0) + 0.05 * rng.normal(size=(240, 16))).astype(np.float32)
    options = {"seed": 0, "draws": 200, "methods": (NearestNeighbours(settings=(3,)),)}
    grouped = evaluate({"encoder": features}, labels, np.repeat(np.arange(60), 4), **options)
    split = evaluate({"encoder": features}, labels, np.arange(240), **options)
    assert split.row("encoder", "k-NN", "AUROC").value > 0.95
    row = grouped.row("encoder", "k-NN", "AUROC")
    assert row.low < 0.5 < row.high


def test_table_states_images_groups_classes_and_protocol() -> None:
    _, labels, _ = cohort()
    assert (table().images, table().groups, table().folds, table().draws) == (160, 80, 5, 500)
    assert [(c.name, c.images, c.groups) for c in table().classes] == [
        (str(k), int((labels == k).sum()), int((labels == k).sum()) // 2) for k in range(3)
    ]
    assert table().chance == {"balanced accuracy": pytest.approx(1 / 3), "AUROC": 0.5, "quadratic kappa": 0.0}
    assert table().notes == ("the encoder never saw these images.",)


def test_fits_that_did_not_converge_are_told_under_the_table() -> None:
    features, labels, groups = cohort()
    hasty = LinearProbe(settings=(10.0,), max_iter=1)
    notes = evaluate({"encoder": features}, labels, groups, seed=0, draws=100, methods=(hasty,)).notes
    assert notes == ("encoder, linear probe: 5 of 5 fits stopped before their optimum.",)


def test_resamples_without_a_class_are_counted_in_a_note() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 3)).astype(np.float32), np.array([0] * 9 + [1] * 3)
    method = NearestNeighbours(settings=(3,))
    got = evaluate({"encoder": features}, labels, range(12), seed=0, folds=3, draws=1000, methods=(method,))
    few, note = got.notes
    assert few.startswith("The intervals rest on 12 groups. With fewer than 20 they are too narrow")
    assert {row.groups for row in got.rows} == {12}
    share = float(
        note.split("encoder, k-NN, AUROC: not defined in ")[1].split(" % of the resamples, which are left out")[0]
    )
    assert share == pytest.approx(100 * (9 / 12) ** 12, abs=2.5)
    assert got.row("encoder", "k-NN", "AUROC").undefined == pytest.approx(share / 100)


def test_features_labels_and_options_that_do_not_fit_are_refused() -> None:
    features, labels, groups = cohort()
    with pytest.raises(ConfigError, match=r"no feature set is called 'encodr': did you mean 'encoder'\?"):
        evaluate({"encoder": features}, labels, groups, seed=0, reference="encodr")
    with pytest.raises(DataError, match="got shape"):
        evaluate({"encoder": features[:-1]}, labels, groups, seed=0)
    with pytest.raises(ConfigError, match="at least 1 repeat"):
        evaluate({"encoder": features}, labels, groups, seed=0, repeats=0)
    said: list[tuple[str, float]] = []
    with pytest.raises(ConfigError, match="at least 100 bootstrap draws"):
        evaluate({"encoder": features}, labels, groups, seed=0, draws=99, progress=lambda *told: said.append(told))
    assert said == []


def test_progress_names_each_piece_of_work_and_how_much_is_done() -> None:
    features, labels, groups = cohort()
    told: list[tuple[str, float]] = []
    evaluate(
        {"a": features, "b": [features[:, :2], features[:, 2:]]},
        labels,
        groups,
        seed=0,
        draws=100,
        methods=(NearestNeighbours(), LinearProbe(settings=(0.1, 1.0))),
        progress=lambda what, share: told.append((what, share)),
    )
    assert [what for what, _ in told] == [
        *("a, k-NN", "a, linear probe", "b, k-NN", "b, k-NN", "b, linear probe", "b, linear probe", "intervals")
    ]
    shares = [share for _, share in told]
    assert shares[0] == 0
    assert all(before < after < 1 for before, after in pairwise(shares))
    # width counts, and a probe that chooses between two settings is fitted 1 + 3 x 2 times
    wide = features.shape[1]
    expected = [wide, 7 * wide, 2, wide - 2, 7 * 2, 7 * (wide - 2)]
    assert np.diff(shares) / shares[1] * wide == pytest.approx(expected)


def test_folds_and_methods_that_cannot_be_are_refused_without_any_feature() -> None:
    _, labels, groups = cohort()
    options = {"seed": 0, "folds": 5, "draws": 100}
    target, group, dealt = deal(labels, groups, repeats=2, methods=(NearestNeighbours(settings=(100,)),), **options)
    assert (target.names, len(group), len(dealt)) == (("0", "1", "2"), 160, 2)
    fewest = 160 - max(int(np.bincount(fold).max()) for fold in dealt.values())
    deal(labels, groups, repeats=2, methods=(NearestNeighbours(settings=(fewest,)),), **options)
    with pytest.raises(ConfigError, match=f"at most {fewest} neighbours, as a fold leaves that many of 160 images"):
        deal(labels, groups, repeats=2, methods=(NearestNeighbours(settings=(fewest + 1,)),), **options)
    inner = NearestNeighbours(settings=(2, fewest))
    with pytest.raises(ConfigError, match=r"expected at most \d\d neighbours"):
        deal(labels, groups, methods=(inner,), **options)
    rare = np.where(np.isin(groups, np.unique(groups)[:5]), "rare", labels.astype(str))
    with pytest.raises(DataError, match="class 'rare' has"):
        deal(rare, groups, methods=(LinearProbe(),), **{**options, "folds": 6})
