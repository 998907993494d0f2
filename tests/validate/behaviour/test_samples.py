import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from edgekit.spec import IOSpec, TensorSpec
from edgekit.tasks import classification, multilabel, regression
from edgekit.validate.behaviour import Inputs
from edgekit.validate.behaviour.answers import read
from edgekit.validate.behaviour.samples import broken_samples, picture

TASK = classification()
SPEC = IOSpec(inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 3, 32, 32)),), outputs=())


def broken(score, before, after, target, task=TASK, **options):
    scores = score(before, target, task), score(after, target, task)
    pair = read(*scores, task)
    return broken_samples(*scores, None if isinstance(pair, str) else pair, **options)


def decoded(text):
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image.convert("RGB"))


def test_the_most_confidently_broken_come_first(score, logits):
    target, before, after = logits
    found = broken(score, before, after, target, names=tuple("abcde"), shown=5)
    shares = torch.softmax(torch.from_numpy(after).double(), 1).numpy()
    lost = np.flatnonzero((before.argmax(1) == target) & (after.argmax(1) != target))
    order = sorted(lost, key=lambda index: -shares[index].max())
    assert found.n == len(lost) > 5
    assert [each.position for each in found.shown] == order[:5]
    first = found.shown[0]
    assert first.candidate.confidence == pytest.approx(shares[order[0]].max(), rel=1e-5)
    assert (first.label, first.label_name) == (target[order[0]], "abcde"[target[order[0]]])
    assert first.reference.prediction == first.label
    assert first.candidate.prediction == after[order[0]].argmax()
    assert (first.reference.value, first.candidate.value, first.picture) == (100, 0, None)


def test_bands_hold_what_was_right_by_its_confidence(score, logits):
    target, before, after = logits
    found = broken(score, before, after, target)
    confidence = torch.softmax(torch.from_numpy(before).double(), 1).numpy().max(axis=1)
    right = before.argmax(1) == target
    for band in found.by_confidence:
        inside = right & (confidence >= band.low) & (confidence < band.high)
        assert band.n == inside.sum()
        assert band.broken == (inside & (after.argmax(1) != target)).sum()
        assert band.share is None if not band.n else band.share.value == pytest.approx(100 * band.broken / band.n)
    assert sum(band.broken for band in found.by_confidence) == found.n


@pytest.mark.parametrize("all_broken", [False, True])
def test_none_and_all_broken(score, all_broken):
    target = np.arange(30) % 3
    answers = (target + all_broken) % 3
    found = broken(score, 5 * np.eye(3)[target], 5 * np.eye(3)[answers], target)
    assert (found.n, len(found.shown)) == ((30, 24) if all_broken else (0, 0))


def test_labels_are_shown_by_their_surest_wrong_decision(score):
    target = np.array([[1, 0, 0], [1, 0, 1]])
    before = np.where(target, 3.0, -3.0)
    after = np.array([[0.5, 2.0, -4.0], [3.0, -3.0, -1.0]])
    found = broken(score, before, after, target, multilabel(), names=("cat", "dog", "owl"))
    first, second = (each.to_dict() for each in found.shown)
    assert (first["label"], first["label_name"]) == ([0], "cat")
    assert (first["candidate"]["prediction"], first["candidate"]["name"]) == ([0, 1], "cat, dog")
    assert first["candidate"]["confidence"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert first["reference"]["confidence"] == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert (second["label"], second["candidate"]["prediction"]) == ([0, 2], [0])


def test_quantities_and_positions_are_ordered_by_how_much_was_lost(score):
    target = np.array([1.0, 2.0, 3.0, 4.0])
    found = broken(score, target, target + np.array([0.0, 0.2, -0.5, 0.1]), target, regression())
    assert [each.position for each in found.shown] == [2, 1, 3]
    assert (found.shown[0].label, found.shown[0].candidate.prediction) == (None, None)
    assert found.shown[0].candidate.value == pytest.approx(0.5)
    assert found.by_confidence == ()
    positions = np.zeros((2, 4), np.int64)
    said = positions.copy()
    said[1, :3] = 1
    said[0, 0] = 1
    outputs = [np.eye(2)[each].transpose(0, 2, 1) for each in (positions, said)]
    found = broken(score, *outputs, positions)
    assert [(each.position, each.candidate.value) for each in found.shown] == [(1, 25.0), (0, 75.0)]


def test_a_sample_is_found_again_in_the_users_data_with_its_picture(score):
    pictures = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pictures[0], pictures[1] = 0, 255  # so that the range of every channel is known
    values = torch.from_numpy(pictures.transpose(0, 3, 1, 2) / 255.0).float() * 4 - 1
    whole = TensorDataset(values, torch.zeros(9, dtype=torch.int64))
    data = Subset(whole, [8, 0, 6, 1, 2])
    target = np.zeros(5, dtype=np.int64)
    answers = np.eye(2)[[0, 0, 1, 0, 1]] * np.array([1, 1, 3, 1, 9])[:, None]
    found = broken(score, 5 * np.eye(2)[target], answers, target, inputs=Inputs(data=data, spec=SPEC))
    assert [(each.position, each.index) for each in found.shown] == [(4, 2), (2, 6)]
    assert "own range" in found.pictures
    for each in found.shown:
        assert len(each.picture) <= 2048
        np.testing.assert_array_equal(decoded(each.picture), pictures[each.index])


def test_a_limit_takes_every_other_sample_as_scoring_does(score):
    values = torch.zeros(8, 3, 32, 32)
    data = TensorDataset(values, torch.zeros(8, dtype=torch.int64))
    target = np.zeros(4, dtype=np.int64)
    answers = np.eye(2)[[0, 0, 0, 1]]
    inputs = Inputs(data=data, spec=SPEC, limit=4)
    found = broken(score, np.eye(2)[target], answers, target, inputs=inputs)
    assert [(each.position, each.index) for each in found.shown] == [(3, 6)]


@pytest.mark.parametrize("shape", [(32, 32, 3), (224, 160, 3), (1, 400, 1), (64, 64, 1)])
def test_a_picture_is_reduced_until_it_is_small(shape):
    noise = np.random.default_rng(1).random(shape)
    text = picture(noise)
    assert len(text) <= 2048
    height, width = decoded(text).shape[:2]
    assert max(height, width) <= 48
    assert height <= shape[0]
    assert width <= shape[1]
