"""The linear probe is scikit-learn's logistic regression; features are what the head reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import Dataset

from edgekit.tasks import classification, regression
from edgekit.transfer import features_of, find_head, probe
from edgekit.workload import Batch


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(90) % 3
    centres = 2 * torch.randn(3, 6, generator=generator)
    features = (centres[targets] + 2 * torch.randn(90, 6, generator=generator)) * torch.tensor([1, 5, 0.1, 1, 1, 0])
    return features, targets


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_a_probe_is_logistic_regression(samples, strength):
    features, targets = samples
    found = probe(features, targets, classification(), outputs=3, held_out=samples, strengths=[strength])
    scaler = StandardScaler().fit(features.numpy())
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(scaler.transform(features.numpy()), targets)
    ours = torch.softmax(features @ found.weight.T + found.bias, 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(scaler.transform(features.numpy())), atol=2e-3)
    expected = 100 * np.mean(theirs.predict(scaler.transform(features.numpy())) == targets.numpy())
    assert found.metric == pytest.approx(expected)


def test_the_strength_that_does_best_on_held_out_samples_is_taken(samples):
    features, targets = samples
    held_out = features[:30].flip(0), targets[:30].flip(0)
    strengths = (1e-6, 1e-2, 10.0)
    each = [
        probe(features, targets, classification(), outputs=3, held_out=held_out, strengths=[one]) for one in strengths
    ]
    best = probe(features, targets, classification(), outputs=3, held_out=held_out, strengths=strengths)
    assert best.metric == pytest.approx(max(one.metric for one in each), abs=4)
    assert best.metric >= each[0].metric


def test_a_task_whose_metric_is_an_error_is_served_as_well():
    x = torch.randn(200, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 4
    found = probe(x, y, regression(), outputs=1, held_out=(x, y), strengths=[1e-3, 1e5])
    torch.testing.assert_close(found.weight, torch.tensor([[1.0, -2.0, 0.5]]), rtol=0.01, atol=0.01)
    assert found.bias.item() == pytest.approx(4, abs=0.01)
    assert found.strength == 1e5


def test_features_are_what_the_head_reads_once_for_each_view(net, example):
    class Noisy(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return example.args[0][index % 2] + torch.rand(()), index

    net.train()
    features, targets = features_of(net, find_head(net, example), Noisy(), views=2)
    assert net.training
    assert features.shape == (10, 8)
    assert targets.tolist() == [0, 1, 2, 3, 4] * 2
    assert not torch.equal(features[:5], features[5:])
    again, _ = features_of(net, find_head(net, example), Noisy(), views=2)
    assert torch.equal(features, again)


def test_features_give_the_networks_answers(net, example):
    items = [(example.args[0][0], 0), (example.args[0][1], 1)]
    features, _ = features_of(net, find_head(net, example), items)
    with torch.no_grad():
        expected = Batch((example.args[0],), {}, None).call(net)
        torch.testing.assert_close(nn.functional.linear(features, net.head.weight, net.head.bias), expected)
