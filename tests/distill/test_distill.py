from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit import tasks
from edgekit.distill import DistillConfig, distill, distillation_objective
from edgekit.errors import TrainingError
from edgekit.training import FitConfig
from edgekit.workload import Batch, digest_of

FIT = FitConfig(
    epochs=20,
    batch_size=16,
    precision="fp32",
    channels_last=False,
    threads=1,
    workers=0,
    optimizer="adamw",
    learning_rate=0.02,
)


def net(width=16):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(96, 4, generator=generator), torch.randint(0, 3, (96,), generator=generator))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_the_objective_is_the_weighted_sum_of_the_formulas(data):
    student, teacher = net(8), net(16)
    batch = Batch((data.tensors[0][:8],), {}, data.tensors[1][:8])
    config = DistillConfig(fit=FIT, temperature=3.0, hard=0.25, soft=2.0, feature=0.5, feature_layers=("2",))
    with torch.no_grad():
        value = distillation_objective(teacher, tasks.classification(), config)(student, batch).item()
        ours, theirs = (batch.call(model).double().numpy() for model in (student, teacher))
    hard = -np.log(softmax(ours)[np.arange(8), batch.target.numpy()]).mean()
    p, q = softmax(theirs / 3), softmax(ours / 3)
    soft = 9 * (p * np.log(p / q)).sum(axis=1).mean()
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, theirs))
    feature = ((a - b) ** 2).sum(axis=1).mean()
    assert value == pytest.approx(0.25 * hard + 2.0 * soft + 0.5 * feature, rel=1e-4)


def test_a_student_learns_what_the_teacher_says_and_leaves_both_as_they_were(data):
    student, teacher = net(8), net(16)
    teacher.train()
    before = digest_of(student), digest_of(teacher)
    task = tasks.classification()
    result = distill(student, teacher, data, task, DistillConfig(fit=FIT, hard=0.0, soft=1.0, temperature=2.0))
    assert (digest_of(student), digest_of(teacher)) == before
    assert teacher.training
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    x = data.tensors[0]
    with torch.no_grad():
        said = [(model(x).numpy(),) for model in (student, result.model, teacher.eval())]
    assert task.agreement(said[1], said[2]).mean() > max(task.agreement(said[0], said[2]).mean(), 0.85)


def test_a_function_of_the_batch_may_be_the_teacher(data):
    teacher = net(16).eval()
    config = DistillConfig(fit=FIT)
    by_model = distill(net(8), teacher, data, tasks.classification(), config)
    by_function = distill(net(8), lambda batch: teacher(*batch.args), data, tasks.classification(), config)
    assert digest_of(by_model.model) == digest_of(by_function.model)


def test_data_without_labels_teach_by_the_teacher_alone(data):
    inputs = [(x,) for x in data.tensors[0]]
    result = distill(net(8), net(16), inputs, tasks.classification(), DistillConfig(fit=FIT))
    assert result.history[-1].loss < result.history[0].loss
    with pytest.raises(TrainingError, match="only the hard loss is on"):
        distill(net(8), net(16), inputs, tasks.classification(), DistillConfig(fit=FIT, hard=1.0, soft=0.0))


def test_the_teacher_follows_the_layout_of_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 3, (8,))
    objective = distillation_objective(model, tasks.classification(), DistillConfig(fit=FIT, hard=0.0, soft=1.0))
    student = copy.deepcopy(model).eval()
    for layout in (torch.contiguous_format, torch.channels_last):
        batch = Batch((x,), {}, y).to(memory_format=layout)
        assert abs(objective(student, batch).item()) < 1e-6


def test_dict_inputs_and_a_transformer():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
            self.head = nn.Linear(8, 2)

        def forward(self, ids, scale):
            return {"logits": self.head(self.layer(self.embed(ids) * scale[:, None, None]).mean(1))}

    torch.manual_seed(0)
    data = [({"scale": torch.tensor(1.0), "ids": torch.randint(0, 11, (6,))}, i % 2) for i in range(32)]
    config = DistillConfig(
        fit=FitConfig(epochs=2, batch_size=8, optimizer="adamw", learning_rate=0.01, precision="bf16"),
        feature=0.1,
        feature_layers=("layer",),
    )
    result = distill(Encoder(), Encoder(), data, tasks.classification(), config)
    assert result.history[-1].loss < result.history[0].loss


def test_a_checkpoint_of_another_loss_or_teacher_is_refused(data, tmp_path):
    def run(teacher=None, about=None, **changes):
        config = DistillConfig(
            fit=FitConfig(epochs=1, batch_size=32, precision="fp32", threads=1, workers=0), **changes
        )
        task, checkpoint = tasks.classification(), tmp_path / "fit.pt"
        return distill(net(8), teacher or net(16), data, task, config, checkpoint=checkpoint, about=about)

    first = run()
    assert digest_of(run().model) == digest_of(first.model)
    for other in ({"temperature": 2.0}, {"teacher": net(24)}, {"about": {"answers": ["another file"]}}):
        with pytest.raises(TrainingError, match="belongs to another training"):
            run(**other)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hard": -1.0}, "the weights are"),
        ({"hard": 0.0, "soft": 0.0}, "not all 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"feature": 1.0}, "a weight and the names of layers"),
        ({"attention": 1.0}, "a weight and the names of layers"),
        ({"loss": "mkd"}, "kd or dkd"),
        ({"rest_weight": -1.0}, "rest_weight -1.0"),
    ],
)
def test_wrong_settings_are_named(changes, text):
    with pytest.raises(TrainingError, match=text):
        DistillConfig(fit=FIT, **changes)


def test_feature_layers_exist_and_have_one_shape(data):
    def run(teacher, layer):
        config = DistillConfig(fit=FIT, feature=1.0, feature_layers=(layer,))
        distill(net(8), teacher, data, tasks.classification(), config)

    with pytest.raises(TrainingError, match="the student has no module 'absent'"):
        run(net(16), "absent")
    with pytest.raises(TrainingError, match=r"'0' gives \[16, 8\] in the student and \[16, 16\] in the teacher"):
        run(net(16), "0")
