from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional import accuracy
from torchmetrics.functional.classification import multilabel_accuracy

from edgekit import tasks
from edgekit.errors import DataError, WorkloadError

RNG = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_top1_is_that_of_torchmetrics():
    logits, labels = RNG.normal(size=(200, 7)).astype("float32"), RNG.integers(0, 7, 200)
    expected = accuracy(torch.from_numpy(logits), torch.from_numpy(labels), task="multiclass", num_classes=7)
    assert tasks.classification().value((logits,), labels) == pytest.approx(100 * expected.item())


def test_cross_entropy_is_minus_the_log_of_the_labels_probability():
    logits, labels = RNG.normal(size=(20, 5)), RNG.integers(0, 5, 20)
    expected = -np.log(softmax(logits)[np.arange(20), labels]).mean()
    loss = tasks.classification().loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    logits, labels = RNG.normal(size=(20, 5)), RNG.integers(0, 5, 20)
    log_p = np.log(softmax(logits))
    expected = (0.9 * -log_p[np.arange(20), labels] + 0.1 * -log_p.mean(axis=1)).mean()
    loss = tasks.classification(label_smoothing=0.1).loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_distillation_is_t_squared_times_the_divergence_of_softened_distributions():
    ours, theirs = RNG.normal(size=(20, 5)), RNG.normal(size=(20, 5))
    q, p = softmax(ours / 4), softmax(theirs / 4)
    expected = 16 * (p * np.log(p / q)).sum(axis=1).mean()
    value = tasks.classification().distillation(torch.from_numpy(ours), torch.from_numpy(theirs), 4.0)
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_segmentation_counts_the_share_of_positions():
    logits = np.zeros((2, 2, 4), "float32")
    logits[:, 1, :2] = 1
    labels = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    assert tasks.classification().per_sample((logits,), labels).tolist() == [1.0, 0.5]


def test_positions_without_a_label_do_not_count():
    logits, labels = RNG.normal(size=(6, 4, 9)).astype("float32"), RNG.integers(0, 4, (6, 9))
    labels[:, 5:] = -100
    labels[2, 1:] = -100
    task = tasks.classification()
    found = task.per_sample((logits,), labels)
    for row, (own, truth) in enumerate(zip(logits, labels, strict=True)):
        kept = truth != -100
        assert found[row] == pytest.approx((own.argmax(0)[kept] == truth[kept]).mean())
    assert task.value((logits,), labels) == pytest.approx(100 * found.mean())
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits.transpose(0, 2, 1)[labels != -100]), torch.from_numpy(labels[labels != -100])
    )
    loss = task.loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_sample_without_any_label_is_refused():
    logits, labels = np.zeros((3, 4, 5), "float32"), np.zeros((3, 5), int)
    labels[1] = -100
    with pytest.raises(DataError, match="sample 1 of a batch has no label at any position"):
        tasks.classification().check((logits,), labels)
    # Without positions -100 is a number like others, and out of range.
    with pytest.raises(DataError, match="label -100 of sample 1 is out of range"):
        tasks.classification().check((logits[..., 0],), np.array([0, -100, 1]))


def test_models_agree_where_their_top_label_is_the_same():
    a, b = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 2.0], [1.0, 0.0]])
    assert tasks.classification().agreement((a,), (b,)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.array([0, 3]), "label 3 of sample 1 is out of range"),
        (np.array([-1, 0]), "label -1 of sample 0 is out of range"),
        (np.array([0.0, 1.0]), "labels have dtype float64"),
        (np.array([[0], [1]]), "the target [2, 1]"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, text):
    with pytest.raises(DataError) as caught:
        tasks.classification().check((np.zeros((2, 3), "float32"),), labels)
    assert text in str(caught.value)


def test_outputs_that_are_not_finite_are_counted():
    outputs = np.zeros((3, 2), "float32")
    outputs[1] = np.nan
    with pytest.raises(DataError, match="NaN or infinite for 1 of 3 samples"):
        tasks.classification().check((outputs,), np.zeros(3, int))


def test_multilabel_is_that_of_torchmetrics():
    logits, targets = RNG.normal(size=(50, 6)).astype("float32"), RNG.integers(0, 2, (50, 6))
    expected = multilabel_accuracy(
        torch.from_numpy(logits).sigmoid(), torch.from_numpy(targets), num_labels=6, average="micro"
    )
    task = tasks.multilabel()
    assert task.value((logits,), targets) == pytest.approx(100 * expected.item())
    p = 1 / (1 + np.exp(-logits.astype(float)))
    loss = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    assert task.loss(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(loss, rel=1e-5)
    assert task.agreement((logits,), (logits,)).tolist() == [1.0] * 50
    changed = logits.copy()
    changed[0, 0] *= -1
    assert task.agreement((changed,), (logits,))[0] == 0.0


def test_multilabel_distillation_is_smallest_at_the_teacher():
    teacher = torch.from_numpy(RNG.normal(size=(8, 4)))
    student = teacher.clone().requires_grad_()
    tasks.multilabel().distillation(student, teacher, 2.0).backward()
    assert student.grad.abs().max() < 1e-6


def test_multilabel_targets_are_0_or_1():
    with pytest.raises(DataError, match="a target is 2"):
        tasks.multilabel().check((np.zeros((1, 2)),), np.array([[0, 2]]))


def test_outputs_are_flattened_in_their_own_order():
    raw = {"b": torch.zeros(1), "a": [torch.zeros(2), (None, torch.zeros(3))]}
    assert [len(tensor) for tensor in tasks.outputs_of(raw)] == [1, 2, 3]
    with pytest.raises(WorkloadError, match="returned a str"):
        tasks.outputs_of(["text"])
    with pytest.raises(WorkloadError, match="no tensor"):
        tasks.outputs_of(())
