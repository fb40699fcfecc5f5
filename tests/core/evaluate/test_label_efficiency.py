from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from core.errors import ConfigError, DataError
from core.evaluate import LinearProbe, NearestNeighbours, evaluate
from core.evaluate.effort import Effort
from core.evaluate.folds import OutOfFold, assign_folds, out_of_fold
from core.evaluate.inputs import Labels, encode_labels
from core.evaluate.label_efficiency import _score_all, label_efficiency
from core.evaluate.lessons import choose_lesson, drawn_order
from core.rng import key

PROBE = LinearProbe(settings=(1e-2, 1.0))
NEAREST = NearestNeighbours(settings=(1,))


def cohort(seed: int = 0, *, patients: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images per patient, three classes, and features that carry the class along three directions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % 3, 2)
    features = rng.normal(size=(2 * patients, 8)) + 1.5 * np.eye(8)[labels]
    return features.astype(np.float32), labels, np.repeat([f"p{i:03d}" for i in range(patients)], 2)


def encoded() -> tuple[Labels, np.ndarray]:
    _, labels, groups = cohort()
    return encode_labels(labels, ordinal=False), groups


def test_a_lesson_holds_exactly_k_per_class_of_other_groups_and_fewer_are_a_part_of_more() -> None:
    target, groups = encoded()
    lesson = choose_lesson(target, groups, (2, 5, 9), folds=4, seed=11)
    assert sorted(lesson.taught[2]) == [0, 1, 2, 3]
    for number in range(4):
        test = set(groups[lesson.fold == number])
        for few in (2, 5, 9):
            rows = lesson.taught[few][number]
            assert np.bincount(target.codes[rows]).tolist() == [few] * 3
            assert not test & set(groups[rows])
        assert (lesson.taught[2][number] <= lesson.taught[5][number]).all()
        assert (lesson.taught[5][number] <= lesson.taught[9][number]).all()
    outside = [[int(((lesson.fold != n) & (target.codes == k)).sum()) for k in range(3)] for n in range(4)]
    assert lesson.available.tolist() == outside


def test_images_are_drawn_from_as_many_groups_as_possible() -> None:
    groups = np.array(list("aaaaabbbccd"))
    order = groups[drawn_order(groups, seed=3)]
    assert sorted(order[:4]) == list("abcd")
    assert sorted(order[4:7]) == list("abc")
    assert sorted(order[7:9]) == list("ab")
    assert list(order[9:]) == list("aa")
    assert sorted(drawn_order(groups, seed=3)) == list(range(11))


def test_every_image_is_drawn_first_equally_often() -> None:
    groups = np.array(list("aab"))
    first = np.bincount([drawn_order(groups, seed=key(seed))[0] for seed in range(2000)], minlength=3)
    assert first / 2000 == pytest.approx([0.25, 0.25, 0.5], abs=0.04)


def test_the_choice_does_not_depend_on_the_order_of_rows() -> None:
    target, _ = encoded()
    groups = np.array([f"g{i}" for i in range(len(target.codes))])
    order = np.random.default_rng(1).permutation(len(groups))
    shuffled = Labels(target.codes[order], target.names)
    one = choose_lesson(target, groups, (4,), folds=3, seed=5)
    other = choose_lesson(shuffled, groups[order], (4,), folds=3, seed=5)
    for number in range(3):
        assert set(groups[one.taught[4][number]]) == set(groups[order][other.taught[4][number]])


def test_a_score_is_that_of_the_labelled_images_alone() -> None:
    features, labels, groups = cohort()
    curve = label_efficiency(
        {"encoder": features}, labels, groups, seed=7, shots=(3, 6), repeats=2, folds=3, draws=100, methods=(NEAREST,)
    )
    target = encode_labels(labels, ordinal=False)
    for few in (3, 6):
        values = []
        for repeat in range(2):
            lesson = choose_lesson(target, groups, (few,), folds=3, seed=key(7, repeat))
            answer = np.zeros_like(labels)
            for number in range(3):
                bank, test = lesson.taught[few][number], lesson.fold == number
                unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (features[test], features[bank])]
                answer[test] = labels[bank][(unit[0] @ unit[1].T).argmax(1)]
            values.append(balanced_accuracy_score(labels, answer))
        point = curve.point("encoder", "k-NN", "balanced accuracy", few)
        assert point.value == pytest.approx(np.mean(values), abs=1e-12)
        assert point.spread == pytest.approx(np.std(values, ddof=1), abs=1e-12)


def test_with_all_labels_it_is_the_evaluation_of_the_house() -> None:
    features, labels, groups = cohort()
    options = {"seed": 3, "repeats": 1, "folds": 4, "draws": 200, "methods": (NEAREST, PROBE)}
    table = evaluate({"encoder": features, "noise": features[:, 3:]}, labels, groups, **options)
    sets = {"encoder": features, "noise": features[:, 3:]}
    curve = label_efficiency(sets, labels, groups, shots=(30,), **options)
    assert len(curve.points) == len(table.rows) == 8
    for row, point in zip(table.rows, curve.points, strict=True):
        assert (row.features, row.method, row.metric) == (point.features, point.method, point.metric)
        assert (row.value, row.low, row.high) == pytest.approx((point.value, point.low, point.high), abs=1e-12)
    for one, other in zip(table.differences, curve.differences, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12)


def test_scores_rise_with_labels_and_noise_stays_at_chance() -> None:
    features, labels, groups = cohort()
    noise = np.random.default_rng(9).normal(size=features.shape).astype(np.float32)
    sets = {"encoder": features, "random weights": [noise, noise[::-1]]}
    methods = (NEAREST, LinearProbe(settings=(0.1,)))
    curve = label_efficiency(sets, labels, groups, seed=0, shots=(30, 2, 8), repeats=3, draws=200, methods=methods)
    assert curve.shots == (2, 8, 30)
    found = [curve.point("encoder", "linear probe", "AUROC", few) for few in curve.shots]
    assert found[0].value + 0.05 < found[1].value < found[2].value
    assert all(p.low < p.value < p.high and p.low > 0.5 for p in found)
    for few in curve.shots:
        point = curve.point("random weights", "linear probe", "AUROC", few)
        assert point.value == pytest.approx(0.5, abs=0.07)
        assert point.sets == 2
    gains = {(d.method, d.metric, d.shots): d for d in curve.differences}
    assert len(gains) == len(curve.differences) == 2 * 2 * 3
    for (method, metric, few), gain in gains.items():
        pair = [curve.point(name, method, metric, few).value for name in sets]
        assert gain.value == pytest.approx(pair[0] - pair[1])
    assert gains["linear probe", "AUROC", 30].excludes_zero


def test_all_feature_sets_learn_from_the_same_images() -> None:
    features, labels, groups = cohort()
    curve = label_efficiency(
        {"a": features, "b": 2 * features}, labels, groups, seed=1, shots=(2, 5), draws=100, methods=(NEAREST,)
    )
    for d in curve.differences:
        assert (d.value, d.low, d.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
        assert not d.excludes_zero


def test_the_interval_covers_the_choice_of_labelled_images() -> None:
    """One choice that teaches everything and one that teaches all wrong: the truth may be anywhere between."""
    labels, groups = np.arange(40) % 2, np.array([f"g{i}" for i in range(40)])
    right = np.eye(2)[labels]
    sets = [[OutOfFold(p, (1.0,), 1, 0) for p in (right, 1 - right)]]
    scores = _score_all(
        {("encoder", "k-NN", 5): sets},
        Labels(labels, ("0", "1")),
        groups,
        ("balanced accuracy",),
        draws=400,
        seed=0,
        effort=Effort(None, [right], [NEAREST], taught=[5], folds=2, repeats=2, scored=400 * 40 * 2),
    )
    points, resampled = scores["encoder", "k-NN", 5, "balanced accuracy"]
    assert points.tolist() == [1.0, 0.0]
    assert set(resampled.tolist()) == {0.0, 0.5, 1.0}
    assert (resampled == 0.5).mean() == pytest.approx(0.5, abs=0.08)


def test_a_class_with_too_few_images_gives_all_and_is_named() -> None:
    features, labels, groups = cohort()
    keep = np.r_[np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:12]]
    curve = label_efficiency(
        {"encoder": features[keep]},
        labels[keep],
        groups[keep],
        seed=0,
        shots=(4, 20, 500),
        folds=3,
        draws=100,
        methods=(NEAREST,),
    )
    assert curve.shots == (4, 20)
    assert {p.shots for p in curve.points} == {4, 20}
    assert curve.notes[0].startswith("500 labels per class: left out, as no class has more than 26 images")
    assert curve.notes[1] == (
        "Class '2' has 8 images outside some fold: where 20 are asked for, it gives all that it has."
    )


def test_what_cannot_be_done_is_refused_before_any_fit() -> None:
    features, labels, groups = cohort()
    sets, said = {"encoder": features}, []
    options = {"seed": 0, "draws": 100, "progress": lambda *told: said.append(told)}
    with pytest.raises(DataError, match=r"with 400 labelled images or more outside every fold, but none has more than"):
        label_efficiency(sets, labels, groups, shots=(400,), **options)
    with pytest.raises(ConfigError, match=r"2 labels per class or more for 'linear probe'.*got 1"):
        label_efficiency(sets, labels, groups, shots=(1, 5), methods=(PROBE,), **options)
    with pytest.raises(ConfigError, match=r"at most 6 neighbours, as 2 labels of 3 classes.*got k=7"):
        label_efficiency(sets, labels, groups, shots=(2,), methods=(NearestNeighbours(settings=(7,)),), **options)
    for wrong in ({"shots": ()}, {"shots": (0, 5)}, {"repeats": 0}):
        with pytest.raises(ConfigError, match="expected numbers of labels per class of 1 or more and 1 repeat or more"):
            label_efficiency(sets, labels, groups, **{**options, **wrong})
    with pytest.raises(ConfigError, match="no feature set is called 'encodr'"):
        label_efficiency(sets, labels, groups, reference="encodr", **options)
    rare = np.where(np.isin(groups, ["p002", "p005"]), "rare", labels.astype(str))
    with pytest.raises(DataError, match="2 groups of each class for 2 folds, but class 'rare' has 1"):
        label_efficiency(sets, rare, groups, folds=2, shots=(2,), methods=(PROBE,), **options)
    with pytest.raises(ConfigError, match="at least 100 bootstrap draws"):
        label_efficiency(sets, labels, groups, shots=(2,), **{**options, "draws": 10})
    assert said == []


def test_a_test_group_among_the_labelled_images_is_refused() -> None:
    features, labels, groups = cohort()
    fold = assign_folds(labels, groups, folds=3, seed=0, class_names=("0", "1", "2"))
    everything = dict.fromkeys(range(3), np.ones(len(fold), dtype=bool))
    with pytest.raises(DataError, match="is on both sides of a split"):
        out_of_fold(NEAREST, features, labels, groups, fold, seed=0, class_names=("0", "1", "2"), taught=everything)


def test_fits_that_stopped_and_resamples_without_a_class_are_told() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 3)).astype(np.float32), np.array([0] * 9 + [1] * 3)
    hasty = LinearProbe(settings=(10.0,), max_iter=1)
    curve = label_efficiency(
        {"encoder": features}, labels, range(12), seed=0, shots=(2,), repeats=2, folds=3, draws=1000, methods=(hasty,)
    )
    assert curve.notes[0].startswith("The intervals rest on 12 groups. With fewer than 20 they are too narrow")
    assert curve.notes[1] == "encoder, linear probe, 2 labels: 6 of 6 fits stopped before their optimum."
    share = float(curve.notes[2].split("AUROC: not defined in ")[1].split(" % of the resamples")[0])
    assert share == pytest.approx(100 * (9 / 12) ** 12, abs=2.5)


def test_progress_and_facts() -> None:
    features, labels, groups = cohort()
    told: list[tuple[str, float]] = []
    curve = label_efficiency(
        {"a": features},
        labels,
        groups,
        seed=4,
        shots=(2, 3),
        repeats=1,
        draws=100,
        methods=(NEAREST,),
        notes=("one sentence.",),
        progress=lambda *piece: told.append(piece),
    )
    assert [what for what, _ in told] == ["a, k-NN, 2 labels per class", "a, k-NN, 3 labels per class", "intervals"]
    shares = [share for _, share in told]
    assert shares[2] / shares[1] == pytest.approx((2 + 3) / 2)
    assert (curve.images, curve.groups, curve.folds, curve.repeats, curve.draws, curve.seed) == (120, 60, 5, 1, 100, 4)
    assert [(c.name, c.images, c.groups) for c in curve.classes] == [("0", 40, 20), ("1", 40, 20), ("2", 40, 20)]
    assert curve.notes == ("one sentence.",)
    assert curve.points[0].spread is None
    assert "repeated" not in curve.protocol[1]
    assert "another choice of labelled images" in curve.protocol[2]
