import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, jaccard_score, recall_score

from edgekit.stats import paired_loss, resampled_sums, share, simultaneous_z
from edgekit.tasks import classification, multilabel
from edgekit.validate.behaviour.answers import read
from edgekit.validate.behaviour.classes import class_change

TASK = classification()


def changes(score, before, after, target, task=TASK, *, names=()):
    return class_change(read(score(before, target, task), score(after, target, task), task), names)


def values(rows, side):
    return [getattr(row, side).value for row in rows]


def one_hot(labels, classes):
    return 5.0 * np.eye(classes)[np.asarray(labels)]


def test_each_class_has_the_recall_of_scikit_learn(score, logits):
    target, before, after = logits
    found = changes(score, before, after, target, names=tuple("abcde"))
    assert (found.metric, [row.name for row in found.rows]) == ("accuracy", list("abcde"))
    recalls = [100 * recall_score(target, each.argmax(1), average=None) for each in (before, after)]
    np.testing.assert_allclose(values(found.rows, "reference"), recalls[0])
    np.testing.assert_allclose(values(found.rows, "candidate"), recalls[1])
    np.testing.assert_allclose(values(found.rows, "drop"), recalls[0] - recalls[1])
    assert [row.n for row in found.rows] == np.bincount(target).tolist()
    assert found.worst.index == int(np.argmax(recalls[0] - recalls[1]))
    assert found.worst.compared == 5


def test_wilson_is_the_root_of_its_equation():
    # Wilson: the shares p for which the observed one lies 1.96 of p's own standard errors off.
    for count, n in ((7, 20), (0, 12), (12, 12), (1, 3)):
        found = share(count, n)
        for end, inner in ((found.low / 100, count > 0), (found.high / 100, count < n)):
            if inner:
                assert abs(count / n - end) == pytest.approx(norm.ppf(0.975) * np.sqrt(end * (1 - end) / n))
        assert found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="3 of 2"):
        share(3, 2)


def test_the_paired_interval_covers_what_it_says():
    rng = np.random.default_rng(0)
    true = 100 * (0.06 - 0.02)
    draws = rng.multinomial(80, [0.06, 0.02, 0.92], size=2000)
    inside = [(e := paired_loss(int(lost), int(won), 80)).low <= true <= e.high for lost, won, _ in draws]
    assert 0.93 <= np.mean(inside) <= 0.985
    nothing = paired_loss(0, 0, 10)
    assert nothing.low < nothing.value == 0 < nothing.high
    assert paired_loss(10, 0, 10).high == 100
    with pytest.raises(ValueError, match="of 3 pairs"):
        paired_loss(2, 2, 3)


def test_the_widened_interval_holds_for_all_classes_together():
    z = simultaneous_z(20)
    # 20 independent intervals of that width all hold with 95 %.
    assert (norm.cdf(z) - norm.cdf(-z)) ** 20 == pytest.approx(0.95)


def test_a_class_that_alone_pays_stands_out_from_chance(score):
    target = np.repeat(np.arange(10), 40)
    before, wrong = one_hot(target, 10), target.copy()
    wrong[:20] = 1  # half of class 0
    found = changes(score, before, one_hot(wrong, 10), target)
    assert (found.worst.index, found.worst.drop.value, found.worst.compared) == (0, 50.0, 10)
    assert found.worst.p_value < 0.002
    # 20 changes over 10 classes of 40: the worst class loses about 4 or 5 of 40 by chance.
    assert 7.5 <= found.worst.chance <= 15
    own = found.largest_drop
    assert found.worst.drop.low < own.low < own.value == 50.0 < own.high < found.worst.drop.high


def test_changes_that_are_spread_evenly_are_no_more_than_chance(score):
    target = np.repeat(np.arange(10), 40)
    wrong = target.copy()
    wrong[::40] = (target[::40] + 1) % 10  # one of each class
    found = changes(score, one_hot(target, 10), one_hot(wrong, 10), target)
    assert found.worst.drop.value == 2.5
    assert found.worst.p_value == 1.0


def test_a_class_without_samples_has_no_figures_and_is_not_compared(score):
    target = np.array([0, 0, 2, 2, 2])
    found = changes(score, one_hot(target, 4), one_hot([0, 1, 2, 2, 1], 4), target)
    assert [row.n for row in found.rows] == [2, 0, 3, 0]
    assert [row.drop is None for row in found.rows] == [False, True, False, True]
    assert (found.worst.index, found.worst.compared) == (0, 2)
    assert found.to_dict()["rows"][1] == {
        "index": 1,
        "name": "1",
        "n": 0,
        "reference": None,
        "candidate": None,
        "drop": None,
    }


def test_one_class_is_the_worst_one_and_there_is_no_chance(score):
    target = np.zeros(6, dtype=np.int64)
    found = changes(score, np.ones((6, 1)), np.ones((6, 1)), target)
    assert (found.worst.index, found.worst.drop.value, found.worst.chance) == (0, 0.0, None)


@pytest.mark.parametrize("share_broken", [0.0, 1.0])
def test_none_and_all_broken(score, share_broken):
    target = np.arange(20) % 4
    wrong = (target + 1) % 4 if share_broken else target
    found = changes(score, one_hot(target, 4), one_hot(wrong, 4), target)
    assert values(found.rows, "drop") == [100 * share_broken] * 4
    assert found.worst.drop.low <= 100 * share_broken <= found.worst.drop.high


def test_positions_have_the_iou_of_scikit_learn(score):
    rng = np.random.default_rng(1)
    target = rng.integers(0, 3, (12, 6, 5))
    before = 1.5 * np.eye(3)[target].transpose(0, 3, 1, 2) + rng.normal(size=(12, 3, 6, 5))
    after = before + rng.normal(size=before.shape)
    found = changes(score, before, after, target)
    assert found.metric == "IoU"
    for side, outputs in (("reference", before), ("candidate", after)):
        want = 100 * jaccard_score(target.reshape(-1), outputs.argmax(1).reshape(-1), average=None)
        np.testing.assert_allclose(values(found.rows, side), want)
    assert [row.n for row in found.rows] == np.bincount(target.reshape(-1)).tolist()


def test_labels_have_the_f1_of_scikit_learn(score):
    rng = np.random.default_rng(2)
    target = (rng.random((60, 70)) < 0.3).astype(np.int64)  # more labels than are resampled at once
    target[:, 3] = 0
    before = 2.0 * target - 1 + rng.normal(size=target.shape)
    after = before + 0.7 * rng.normal(size=target.shape)
    found = changes(score, before, after, target, multilabel())
    assert found.metric == "F1"
    assert (found.rows[3].n, found.rows[3].reference) == (0, None)
    kept = [row for row in found.rows if row.n]
    for side, outputs in (("reference", before), ("candidate", after)):
        want = 100 * f1_score(target, outputs > 0, average=None, zero_division=0)
        np.testing.assert_allclose(values(kept, side), np.delete(want, 3))
    assert found.worst.compared == 69
    assert found.worst.drop.value == max(values(kept, "drop"))


def test_a_ratio_is_bootstrapped_over_samples_as_by_hand(score):
    rng = np.random.default_rng(3)
    target = (rng.random((30, 1)) < 0.5).astype(np.int64)
    before = 2.0 * target - 1 + rng.normal(size=target.shape)
    row = changes(score, before, before + rng.normal(size=target.shape), target, multilabel()).rows[0]
    drawn = np.random.default_rng(7).integers(0, 30, (4000, 30))
    by_hand = [100 * f1_score(target[d, 0], before[d, 0] > 0, zero_division=0) for d in drawn[:600]]
    low, high = np.quantile(by_hand, [0.025, 0.975])
    assert row.reference.low == pytest.approx(low, abs=4)
    assert row.reference.high == pytest.approx(high, abs=4)


def test_resampled_sums_are_those_of_rows_drawn_with_replacement():
    rows = np.array([[1.0, 10.0], [2.0, 0.0], [4.0, -1.0]])
    sums = resampled_sums(rows, seed=5)
    assert sums.shape == (2000, 2)
    possible = {(rows[i] + rows[j] + rows[k]).tobytes() for i in range(3) for j in range(3) for k in range(3)}
    assert {each.tobytes() for each in sums} == possible
    np.testing.assert_allclose(sums.mean(axis=0), rows.sum(axis=0), rtol=0.05)
    np.testing.assert_array_equal(sums, resampled_sums(rows, seed=5))
