"""Which layers are compared, and how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit import tasks
from edgekit.distill import DistillConfig, Match, distill, distillation_objective, matched, traced, with_layers
from edgekit.errors import TrainingError
from edgekit.training import FitConfig
from edgekit.workload import Batch, digest_of

FIT = FitConfig(epochs=2, batch_size=8, precision="fp32", channels_last=False, threads=1, workers=0, learning_rate=0.05)


class Net(nn.Module):
    """Three stages, each half as large as the one before it."""

    def __init__(self, width, blocks=1):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.one, self.two = (
            nn.Sequential(
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.ReLU(),
                *(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks)),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


@pytest.fixture
def example():
    return Batch((torch.randn(4, 3, 16, 16),), {}, torch.tensor([0, 1, 2, 3]))


def normalized(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_calls_come_in_the_order_in_which_they_end_and_leave_no_hooks(example):
    net = Net(4)
    calls, answer = traced(net, example)
    names = [call.name for call in calls]
    assert names == ["stem", "one.0", "one.1", "one.2", "one", "two.0", "two.1", "two.2", "two", "head"]
    assert all(call.began < call.ended for call in calls)
    torch.testing.assert_close(calls[-1].output, answer)
    torch.testing.assert_close(nn.functional.linear(calls[-1].given, net.head.weight, net.head.bias), answer)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_the_last_layers_of_each_spatial_size_belong_together(example):
    pairs = matched(Net(4), Net(6, blocks=3), example)
    assert [(pair.student, pair.teacher) for pair in pairs] == [("stem", "stem"), ("one", "one"), ("two", "two")]
    assert all(pair.projected for pair in pairs)


def test_without_a_common_size_relative_depth_decides(example):
    class Coarse(Net):
        def forward(self, x):
            return super().forward(nn.functional.avg_pool2d(x, 16)[..., :1, :1].expand(-1, -1, 5, 5))

    pairs = matched(Net(4), Coarse(4), example)
    assert [pair.student for pair in pairs] == ["stem", "one", "two"]
    assert [pair.teacher for pair in pairs] == ["stem", "one", "two"]


def test_layers_of_one_size_are_taken_at_thirds_of_the_depth():
    def encoder(layers, width):
        blocks = (nn.TransformerEncoderLayer(width, 2, 8, batch_first=True) for _ in range(layers))
        return nn.Sequential(nn.Linear(3, width), *blocks, nn.Flatten(), nn.Linear(5 * width, 2))

    pairs = matched(encoder(3, 4), encoder(6, 8), Batch((torch.randn(2, 5, 3),), {}, None))
    assert [(pair.student, pair.teacher) for pair in pairs] == [("1", "2"), ("2", "4"), ("3", "6")]


def test_vectors_alone_are_no_layers_to_pair():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with pytest.raises(TrainingError, match="no layer of the student gives a map"):
        matched(net, net, Batch((torch.randn(2, 4),), {}, None))


def test_feature_and_attention_losses_are_those_of_the_formulas(example):
    student, teacher = Net(4).eval(), Net(6).eval()
    config = DistillConfig(
        fit=FIT, hard=0.0, soft=0.0, feature=2.0, attention=3.0, feature_layers=("one=two", "two=two")
    )
    twin, matches = with_layers(student, teacher, example, config)
    assert matches == tuple(Match(student=name, teacher="two", projected=True) for name in ("one", "two"))
    ours = {call.name: call.output for call in traced(student, example)[0]}
    theirs = {call.name: call.output for call in traced(teacher, example)[0]}
    features, maps = [], []
    for index, match in enumerate(matches):
        a, b = ours[match.student].double().numpy(), theirs["two"].double().numpy()
        weight = twin.edgekit_projections[index].weight.detach().double().numpy()[:, :, 0, 0]
        projected = np.einsum("nchw,dc->ndhw", a, weight)
        factor = a.shape[2] // 4
        pooled = [x.reshape(4, -1, 4, factor, 4, factor).mean((3, 5)) for x in (projected, a)]
        features.append(((normalized(pooled[0]) - normalized(b)) ** 2).sum(1).mean())
        maps.append(((normalized((pooled[1] ** 2).sum(1)) - normalized((b**2).sum(1))) ** 2).sum(1).mean())
    with torch.no_grad():
        value = distillation_objective(teacher, tasks.classification(), config, matches=matches)(twin, example).item()
    assert value == pytest.approx(2 * np.mean(features) + 3 * np.mean(maps), rel=1e-4)


def test_projections_are_trained_with_the_student_and_are_gone_afterwards():
    data = TensorDataset(torch.randn(32, 3, 16, 16), torch.arange(32) % 4)
    student, teacher = Net(4), Net(6)
    before = digest_of(student)
    config = DistillConfig(fit=FIT, hard=0.0, soft=0.0, feature=1.0, feature_layers="auto")
    result = distill(student, teacher, data, tasks.classification(), config)
    assert digest_of(student) == before
    assert [name for name, _ in result.model.named_parameters()] == [name for name, _ in student.named_parameters()]
    assert result.history[-1].loss < result.history[0].loss
    again = distill(student, teacher, data, tasks.classification(), config)
    assert digest_of(again.model) == digest_of(result.model)


def test_layers_that_are_not_there_or_do_not_fit_are_named(example):
    def layers(*names, teacher=None):
        config = DistillConfig(fit=FIT, feature=1.0, feature_layers=names)
        return with_layers(Net(4), teacher or Net(6), example, config)

    with pytest.raises(TrainingError, match="the teacher has no module 'three'"):
        layers("two=three")
    with pytest.raises(TrainingError, match="both maps"):
        layers("head=two")
    with pytest.raises(TrainingError, match="a function has no layers"):
        layers("one=one", teacher=lambda batch: batch)
