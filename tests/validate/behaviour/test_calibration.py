import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from edgekit.tasks import classification, multilabel
from edgekit.validate.behaviour.answers import read
from edgekit.validate.behaviour.calibration import BINS, calibration

TASK = classification()


def pair_of(score, before, after, target, task=TASK):
    return read(score(before, target, task), score(after, target, task), task)


def by_hand(confidence, correct):
    """Sort by confidence, cut into 15 equal parts, and add up the distances."""
    order = np.argsort(confidence)
    parts = np.array_split(order, BINS)
    return 100 * sum(len(p) / len(order) * abs(correct[p].mean() - confidence[p].mean()) for p in parts)


def test_bins_of_equal_mass_by_hand(score):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, 600)
    before = (4 * np.eye(4)[target] + 2 * rng.normal(size=(600, 4))).astype(np.float32)
    found = calibration(pair_of(score, before, 3 * before, target))
    for side, outputs in ((found.reference, before), (found.candidate, 3 * before)):
        shares = torch.softmax(torch.from_numpy(outputs).double(), 1).numpy()
        confidence, correct = shares.max(axis=1), outputs.argmax(1) == target
        assert side.ece.value == pytest.approx(by_hand(confidence, correct), abs=1e-4)
        assert [each.n for each in side.bins] == [40] * 15
        assert side.accuracy == pytest.approx(100 * correct.mean())
        assert side.confidence == pytest.approx(100 * confidence.mean(), rel=1e-5)
    assert found.rise.value == pytest.approx(found.candidate.ece.value - found.reference.ece.value)
    # Logits three times as large are far too sure.
    assert found.rise.low > 0


def test_bins_of_equal_width_are_those_of_torchmetrics(score, logits):
    target, before, after = logits
    found = calibration(pair_of(score, before, after, target))
    for side, outputs in ((found.reference, before), (found.candidate, after)):
        want = multiclass_calibration_error(
            torch.softmax(torch.from_numpy(outputs), 1), torch.from_numpy(target), num_classes=5, n_bins=15
        )
        assert side.ece_equal_width == pytest.approx(100 * float(want), abs=1e-3)


def test_the_interval_covers_the_scatter_of_other_samples(score):
    rng = np.random.default_rng(1)

    def draw(n):
        # Right with the confidence's probability, less a tenth: the true error is ten points.
        confidence = rng.uniform(0.6, 0.95, n)
        target = np.where(rng.random(n) < confidence - 0.1, 1, 0)
        outputs = np.stack([np.zeros(n), np.log(confidence / (1 - confidence))], axis=1)
        return calibration(pair_of(score, outputs, outputs, target))

    drawn = [draw(800).reference.ece for _ in range(40)]
    inside = [each.low <= 10 <= each.high for each in drawn]
    assert np.mean(inside) >= 0.8
    assert all(each.low <= each.value <= each.high for each in drawn)


def test_a_file_against_itself_does_not_rise(score, logits):
    target, before, _ = logits
    rise = calibration(pair_of(score, before, before, target)).rise
    assert (rise.value, rise.low, rise.high) == (0, 0, 0)


def test_equal_confidences_stay_in_one_bin(score):
    target = np.array([0] * 30 + [1] * 30)
    outputs = np.tile([50.0, 0.0], (60, 1))  # always class 0, and sure of it; right for the first half
    found = calibration(pair_of(score, outputs, outputs, target)).reference
    assert [(each.n, each.accuracy) for each in found.bins] == [(60, 0.5)]
    assert found.ece.value == pytest.approx(50)


def test_labels_and_a_binary_logit_count_each_decision(score):
    target = np.array([[1], [0], [1], [1]])
    logit = np.log(3) * np.array([[1.0], [1.0], [-1.0], [1.0]])  # three quarters sure, right in half
    found = calibration(pair_of(score, logit, logit, target, multilabel())).reference
    assert (found.confidence, found.accuracy) == (pytest.approx(75), 50)
    assert found.ece.value == pytest.approx(25)
    assert found.ece_equal_width == pytest.approx(25)


@pytest.mark.parametrize("n", [1, 3])
def test_few_samples_have_an_error_too(score, n):
    target = np.zeros(n, dtype=np.int64)
    found = calibration(pair_of(score, 2 * np.eye(2)[target], 2 * np.eye(2)[1 - target], target))
    sure = 100 / (1 + np.exp(-2))
    assert found.reference.ece.value == pytest.approx(100 - sure)
    assert found.candidate.ece.value == pytest.approx(sure)


def test_positions_are_resampled_by_sample(score):
    rng = np.random.default_rng(4)
    target = rng.integers(0, 2, (10, 6, 10))
    outputs = np.eye(2)[target].transpose(0, 3, 1, 2) + rng.normal(size=(10, 2, 6, 10))
    found = calibration(pair_of(score, outputs, outputs, target)).reference
    flat = outputs.transpose(0, 2, 3, 1).reshape(-1, 2)
    shares = torch.softmax(torch.from_numpy(flat), 1).numpy()
    want = by_hand(shares.max(axis=1), flat.argmax(1) == target.reshape(-1))
    assert found.ece.value == pytest.approx(want)
    assert (found.ece.n, sum(each.n for each in found.bins)) == (10, 600)
