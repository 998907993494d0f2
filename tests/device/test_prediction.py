from __future__ import annotations

import json

import numpy as np
import pytest

from edgekit.device.prediction import predictions, probabilities
from edgekit.errors import BundleError

LOGITS = np.array([[1.0, 3.0, 2.0], [-800.0, 0.0, 800.0]])


def test_softmax():
    rows = probabilities(LOGITS, "softmax")
    assert np.allclose(rows[0], np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum())
    assert np.array_equal(rows[1], [0, 0, 1])


def test_sigmoid():
    rows = probabilities(LOGITS, "sigmoid")
    assert np.allclose(rows[0], 1 / (1 + np.exp(-LOGITS[0])))
    assert np.array_equal(rows[1], [0, 0.5, 1])


def test_probabilities_are_taken_as_they_are():
    made = predictions(np.array([[0.25, 0.75]], np.float32), ("a", "b"), "probabilities")
    assert (made[0].label, made[0].index, made[0].confidence) == ("b", 1, 0.75)
    assert str(made[0]) == "b (75.0%)"
    assert json.loads(json.dumps(made[0].to_dict()))["probabilities"] == [0.25, 0.75]


def test_labels_and_scores_must_agree():
    with pytest.raises(BundleError, match="scores \\[2, 3\\] for 2 labels"):
        predictions(LOGITS, ("a", "b"), "softmax")
