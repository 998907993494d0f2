from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from edgekit.errors import DataError
from edgekit.workload import labels_of, make_splits


def numbered(n, start=0, classes=4):
    numbers = torch.arange(start, start + n)
    data = TensorDataset(numbers[:, None].float(), numbers)
    data.labels = (numbers % classes).tolist()
    return data


def members(part):
    return {int(part[i][1]) for i in range(len(part))}


@pytest.mark.parametrize("source", ["test", "train"])
@pytest.mark.parametrize("limits", [{}, {"limit_train": 100, "limit_test": 60}])
def test_no_sample_is_in_two_parts(source, limits):
    parts = make_splits(numbered(200), numbered(100, 1000), selection_from=source, calibration_size=30, **limits)
    groups = [members(part) for part in (parts.train, parts.calibration, parts.selection, parts.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == (160 if limits else 300)
    assert all(number < 200 for number in groups[0] | groups[1])
    assert all(number >= 1000 for number in groups[3])
    assert all((number >= 1000) == (source == "test") for number in groups[2])


def test_selection_takes_half_of_test_in_proportion_and_depends_on_the_seed():
    parts = make_splits(numbered(100), numbered(80, 1000, classes=2))
    assert np.bincount(labels_of(parts.selection)).tolist() == [20, 20]
    assert len(parts.test) == 40
    other = make_splits(numbered(100), numbered(80, 1000, classes=2), seed=1)
    assert members(other.selection) != members(parts.selection)
    again = make_splits(numbered(100), numbered(80, 1000, classes=2))
    assert again.digests() == parts.digests()


def test_selection_has_at_most_5000_samples():
    parts = make_splits(numbered(100), numbered(12_000, 1000))
    assert (len(parts.selection), len(parts.test)) == (5000, 7000)


def test_a_selection_of_the_users_own_leaves_test_whole():
    own = numbered(20, 5000)
    parts = make_splits(numbered(100), numbered(40, 1000), own)
    assert parts.selection is own
    assert len(parts.test) == 40


def test_a_limit_keeps_the_share_of_every_class():
    train = numbered(90, classes=3)
    parts = make_splits(train, numbered(40, 1000), limit_train=30, calibration_size=3)
    labels = np.concatenate([labels_of(parts.train), labels_of(parts.calibration)])
    assert np.bincount(labels).tolist() == [10, 10, 10]


def test_digests_tell_data_indexes_and_source_apart():
    train, test = numbered(100), numbered(40, 1000)
    digests = make_splits(train, test, sources={"train": "a", "test": "b"}).digests()
    assert {name: entry["n"] for name, entry in digests.items()} == {
        "train": 75,
        "calibration": 25,
        "selection": 20,
        "test": 20,
    }
    assert digests["selection"]["source"] == "b"
    assert len({entry["sha256"] for entry in digests.values()}) == 4
    changed = TensorDataset(train.tensors[0] + 1, train.tensors[1])
    changed.labels = train.labels
    other = make_splits(changed, test, sources={"train": "a", "test": "b"}).digests()
    assert other["train"]["sha256"] != digests["train"]["sha256"]
    assert other["test"] == digests["test"]


@pytest.mark.parametrize(
    ("train", "test", "limits", "text"),
    [
        (10, 40, {}, "10 samples\n  where: train data\n  rule: at least 16"),
        (100, 3, {}, "3 samples\n  where: test data\n  rule: at least 8"),
        (100, 40, {"limit_test": 2}, "2 samples of 40, since the limit is 2"),
    ],
)
def test_too_little_data_says_how_many_there_are_and_how_many_are_needed(train, test, limits, text):
    with pytest.raises(DataError) as caught:
        make_splits(numbered(train), numbered(test, 1000), **limits)
    assert text in str(caught.value)


def test_labels_are_found_where_they_cost_nothing():
    data = numbered(6)
    assert labels_of(Subset(data, [5, 0])).tolist() == [1, 0]
    assert labels_of([(torch.zeros(1), 0)]) is None
    assert labels_of(TensorDataset(torch.zeros(3, 2))) is None


def test_the_first_calibration_samples_are_of_all_classes_even_if_the_data_lie_class_by_class():
    data = numbered(400)
    data.labels = sorted(data.labels)
    labels = labels_of(make_splits(data, numbered(80, 1000), calibration_size=80).calibration)
    assert np.bincount(labels).tolist() == [20] * 4
    assert min(np.bincount(labels[:20], minlength=4)) >= 1
