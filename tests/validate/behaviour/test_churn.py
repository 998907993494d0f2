import itertools

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.tasks import classification, custom, imitation, multilabel, regression
from edgekit.validate import compare
from edgekit.validate.behaviour.answers import read
from edgekit.validate.behaviour.churn import churn, disagreement

TASK = classification()


def pair_of(score, before, after, target, task=TASK):
    return read(score(before, target, task), score(after, target, task), task)


def softmax(values):
    powers = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_every_way_to_change_is_counted_once(score):
    # All combinations of truth, answer before and answer after over three classes.
    combinations = np.array(list(itertools.product(range(3), repeat=3)))
    truth, old, new = combinations.T
    found = churn(pair_of(score, np.eye(3)[old], np.eye(3)[new], truth))
    expected = {"n": 27, "changed": 0, "fixed": 0, "broken": 0, "both_wrong": 0}
    for true, before, after in combinations.tolist():
        expected["changed"] += before != after
        expected["fixed"] += before != true and after == true
        expected["broken"] += before == true and after != true
        expected["both_wrong"] += true not in (before, after) and before != after
    assert found.counts == expected
    assert found.changed.value == pytest.approx(100 * expected["changed"] / 27)
    assert found.needed == 0
    assert expected["changed"] == expected["fixed"] + expected["broken"] + expected["both_wrong"]


def test_churn_is_what_is_left_of_agreement(score, logits):
    target, before, after = logits
    reference, candidate = score(before, target), score(after, target)
    found, known = churn(read(reference, candidate, TASK)), compare(candidate, reference, TASK)
    assert found.changed.value == pytest.approx(100 - known.agreement.value)
    assert (found.counts["fixed"], found.counts["broken"]) == (known.fixed, known.broken)
    assert found.needed == pytest.approx(abs(known.drop.value))


def test_none_and_all_broken(score):
    target = np.arange(10) % 2
    right, wrong = np.eye(2)[target], np.eye(2)[1 - target]
    same = churn(pair_of(score, right, right, target))
    assert (same.changed.value, same.changed.low, same.counts["broken"]) == (0, 0, 0)
    assert same.changed.high > 0
    all_broken = churn(pair_of(score, right, wrong, target))
    assert (all_broken.broken.value, all_broken.broken.high, all_broken.needed) == (100, 100, 100)


def test_positions_count_each_by_itself(score):
    target = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    old, new = target.copy(), target.copy()
    new[0, 0, 0] = 1
    old[1, 1, 1] = 0
    pair = pair_of(score, *(np.eye(2)[each].transpose(0, 3, 1, 2) for each in (old, new)), target)
    found = churn(pair)
    assert (found.of, found.counts) == (
        "positions",
        {"n": 8, "changed": 2, "fixed": 1, "broken": 1, "both_wrong": 0},
    )
    assert found.changed.value == 25


def test_a_sample_with_labels_is_right_when_all_are(score):
    target = np.array([[1, 0], [1, 1], [0, 0]])
    old = np.array([[1, 0], [1, 0], [0, 1]])
    new = np.array([[0, 0], [1, 1], [1, 0]])
    found = churn(pair_of(score, 2.0 * old - 1, 2.0 * new - 1, target, multilabel()))
    assert found.counts == {"n": 3, "changed": 3, "fixed": 1, "broken": 1, "both_wrong": 1}


def test_a_binary_logit_is_a_label_whose_threshold_is_zero(score):
    target = np.array([[1], [0], [1], [0]])
    logit = np.array([[2.0], [-1.0], [-3.0], [700.0]])
    pair = pair_of(score, logit, -logit, target, multilabel())
    assert pair.reference.kind == "labels"
    assert pair.reference.predicted[:, 0].tolist() == [1, 0, 0, 1]
    want = [1 / (1 + np.exp(-abs(value))) for value in (2.0, 1.0, 3.0, 700.0)]
    np.testing.assert_allclose(pair.reference.confidence[:, 0], want)
    assert churn(pair).counts == {"n": 4, "changed": 4, "fixed": 2, "broken": 2, "both_wrong": 0}


def test_multilabel_takes_logits_as_its_metric_does(score):
    values, target = np.array([[0.2], [0.9]]), np.array([[1], [0]])
    pair = pair_of(score, values, values, target, multilabel())
    assert pair.reference.predicted[:, 0].tolist() == [1, 1]
    assert 100 * pair.reference.correct.mean() == score(values, target, multilabel()).metric.value == 50
    assert pair.note == ""


def test_half_precision_is_summed_in_full(score):
    values = np.tile(np.array([[9.0, 0.0]], np.float16), (2, 1))
    pair = pair_of(score, values, values, np.array([0, 1]))
    np.testing.assert_allclose(pair.reference.confidence, 1 / (1 + np.exp(-9.0)), rtol=1e-6)


def test_confidence_is_the_largest_of_the_softmax(score, logits):
    target, before, after = logits
    pair = pair_of(score, before, after, target)
    np.testing.assert_allclose(pair.reference.confidence[:, 0], softmax(before).max(axis=1), rtol=1e-5)
    huge = pair_of(score, 1e4 * before, after, target)
    assert np.isfinite(huge.reference.confidence).all()


def test_probabilities_are_taken_as_they_are(score, logits):
    target, before, after = logits
    pair = pair_of(score, softmax(before), softmax(after), target)
    assert "probabilities" in pair.note
    np.testing.assert_allclose(pair.candidate.confidence[:, 0], softmax(after).max(axis=1))


def own(per_sample):
    return custom(loss=lambda out, y: (out - y).sum(), per_sample=per_sample, name="own")


def test_a_task_of_the_users_is_read_by_its_shapes_and_said_to_be(score):
    target = np.array([0, 2, 1])
    task = own(lambda out, y: (out[0].argmax(1) == y).astype(float))
    pair = pair_of(score, np.eye(3), np.eye(3), target, task)
    assert pair.reference.kind == "classes"
    assert pair.note.startswith("the outputs of the task own are read as those of classes")
    binary = own(lambda out, y: (out[0][:, 0] > 0.5) == y)
    pair = pair_of(score, np.array([[0.4], [0.6]]), np.array([[0.6], [0.9]]), np.array([0, 1]), binary)
    assert (pair.reference.kind, pair.reference.predicted[:, 0].tolist()) == ("labels", [0, 1])
    assert pair.candidate.predicted[:, 0].tolist() == [1, 1]


def test_positions_without_a_label_are_refused_in_words(score):
    values = np.random.default_rng(0).normal(size=(4, 3, 5))
    target = np.random.default_rng(1).integers(0, 3, (4, 5))
    assert pair_of(score, values, values, target, classification()).reference.kind == "positions"
    target[:, 4] = -100
    said = pair_of(score, values, values, target, classification())
    assert said == "none for the task classification: 20% of the positions have no label (-100)"


@pytest.mark.parametrize("task", [regression(), imitation()])
def test_quantities_are_refused_in_words(score, task):
    values = np.random.default_rng(0).normal(size=(9, 2))
    assert f"none for the task {task.name}: its " in pair_of(score, values, values, values, task)
    odd = own(lambda out, y: -np.abs(out[0] - y).mean(axis=1))
    assert "are not those of classes or labels" in pair_of(score, values, values, values, odd)


def test_without_classes_the_task_says_who_disagrees():
    found = disagreement(np.array([1.0, 0.0, 1.0, 0.5]))
    assert (found.changed.value, found.counts, found.broken) == (50.0, {"n": 4, "changed": 2}, None)


def test_outputs_that_are_no_numbers_are_refused(score):
    before, target = np.eye(3), np.arange(3)
    after = before.copy()
    after[1] = np.nan
    with pytest.raises(DataError, match=r"^the outputs are NaN or infinite for 1 of 3 samples"):
        pair_of(score, before, after, target)


def test_scores_of_other_samples_are_refused(score):
    with pytest.raises(DataError, match="2 samples against 3"):
        read(score(np.eye(3), np.arange(3)), score(np.eye(3)[:2], np.arange(2)), TASK)
