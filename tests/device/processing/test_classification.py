from __future__ import annotations

import json

import numpy as np
import pytest

from edgekit.device import ClassificationPostprocessing
from edgekit.device.processing.classification import FEW, probabilities
from edgekit.errors import BundleError, DataError

LOGITS = np.array([[1.0, 3.0, 2.0], [-800.0, 0.0, 800.0]])


def test_softmax():
    rows = probabilities(LOGITS, "softmax")
    assert np.allclose(rows[0], np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum())
    assert np.array_equal(rows[1], [0, 0, 1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (4, 8), (1, FEW), (1, FEW + 1), (7, 5), (2, 1000)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_few_scores_and_many_have_the_same_softmax(shape, dtype):
    """A few scores go another way than many; both give what extended precision does."""
    scores = (8 * np.random.default_rng(shape[1]).standard_normal(shape)).astype(dtype)
    powers = np.exp(scores.astype(np.longdouble))
    truth = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float64)
    labels = tuple(map(str, range(shape[1])))
    made = ClassificationPostprocessing(output="y").apply({"y": scores}, labels)
    assert len(made) == shape[0]
    for row, wanted in zip(made, truth, strict=True):
        assert row.probabilities.dtype == np.float64
        assert np.allclose(row.probabilities, wanted, rtol=1e-14, atol=0)
        assert (row.index, row.label) == (int(wanted.argmax()), str(wanted.argmax()))
        assert row.confidence == row.probabilities[row.index] == row.probabilities.max()


def test_scores_at_the_ends_of_their_range():
    read = ClassificationPostprocessing(output="y")
    (tie,) = read.apply({"y": np.array([[2.0, 3.0, 3.0]], np.float32)}, ("a", "b", "c"))
    assert (tie.index, tie.probabilities[1]) == (1, tie.probabilities[2])
    (far,) = read.apply({"y": np.array([[-np.inf, 3.4e38, -3.4e38]], np.float32)}, ("a", "b", "c"))
    assert far.probabilities.tolist() == [0, 1, 0]
    (broken,) = read.apply({"y": np.array([[1.0, np.nan]], np.float32)}, ("a", "b"))
    assert np.isnan(broken.probabilities).all()


def test_sigmoid():
    rows = probabilities(LOGITS, "sigmoid")
    assert np.allclose(rows[0], 1 / (1 + np.exp(-LOGITS[0])))
    assert np.array_equal(rows[1], [0, 0.5, 1])


def test_probabilities_are_taken_as_they_are():
    read = ClassificationPostprocessing(output="y", scores="probabilities")
    made = read.apply({"y": np.array([[0.25, 0.75]], np.float32)}, ("a", "b"))
    assert (made[0].label, made[0].index, made[0].confidence) == ("b", 1, 0.75)
    assert str(made[0]) == "b (75.0%)"
    about = json.loads(json.dumps(made[0].to_dict()))
    assert about["probabilities"] == [0.25, 0.75]
    assert about["top"] == [{"label": "b", "confidence": 0.75}]


def test_the_likeliest_come_first_and_of_equal_ones_the_first():
    read = ClassificationPostprocessing(output="y", scores="probabilities", top=3)
    (made,) = read.apply({"y": np.array([[0.1, 0.4, 0.1, 0.4]])}, tuple("abcd"))
    assert made.top() == (("b", 0.4), ("d", 0.4), ("a", 0.1))
    assert made.top(1) == (("b", 0.4),)
    assert [label for label, _ in made.top(99)] == ["b", "d", "a", "c"]
    assert str(made) == "b (40.0%), d (40.0%), a (10.0%)"
    assert (made.label, made.index) == ("b", 1)


def test_labels_and_scores_must_agree():
    read = ClassificationPostprocessing(output="y")
    with pytest.raises(BundleError, match="scores \\[2, 3\\] for 2 labels\n  where: output 'y'"):
        read.apply({"y": LOGITS}, ("a", "b"))


def test_round_trip_and_strictness():
    read = ClassificationPostprocessing(output="y", scores="sigmoid", top=5)
    assert ClassificationPostprocessing.from_dict(json.loads(json.dumps(read.to_dict()))) == read
    for change, text in (
        ({"top": 0}, "got 0\n  where: b.after.top\n  rule: an integer from 1 to 100"),
        ({"top": True}, "b.after.top"),
        ({"scores": None}, "b.after.scores"),
        ({"output": ""}, "b.after.output\n  rule: a text"),
        ({"kind": "text"}, "got 'text'\n  where: b.after.kind"),
        ({"more": 1}, "unknown key 'more'\n  where: b.after"),
    ):
        with pytest.raises(DataError) as caught:
            ClassificationPostprocessing.from_dict({**read.to_dict(), **change}, "b.after")
        assert text in str(caught.value)
    with pytest.raises(DataError, match=r"missing\n  where: postprocessing\.top"):
        ClassificationPostprocessing.from_dict({"kind": "classification", "output": "y", "scores": "softmax"})
