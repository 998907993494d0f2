"""A teacher whose answers are kept, and samples without labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit import tasks
from edgekit.distill import DistillConfig, Remembering, Unlabelled, distill, distillation_objective
from edgekit.training import FitConfig
from edgekit.workload import Batch, digest_of

FIT = FitConfig(
    epochs=3, batch_size=16, precision="fp32", channels_last=False, threads=1, workers=0, learning_rate=0.05
)


def net(width=8):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def batch(x):
    return Batch((x,), {}, None)


class Asked:
    def __init__(self):
        self.net, self.samples = net(16).eval(), 0

    @torch.no_grad()
    def __call__(self, batch):
        self.samples += len(batch)
        return {"logits": batch.call(self.net), "sum": batch.args[0].sum(1)}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(48, 4, generator=generator), torch.randint(0, 3, (48,), generator=generator))


def test_each_sample_is_asked_about_once_and_answers_come_back_in_order(data, tmp_path):
    asked, x = Asked(), data.tensors[0]
    teacher = Remembering(asked, tmp_path / "answers.bin")
    for rows in (torch.arange(0, 16), torch.arange(40, 8, -1), torch.tensor([3, 3, 47, 0])):
        said, expected = teacher(batch(x[rows])), Asked()(batch(x[rows]))
        for name in ("logits", "sum"):
            torch.testing.assert_close(said[name], expected[name])
            assert said[name].shape == expected[name].shape
    assert asked.samples == 42


def test_all_samples_can_be_asked_about_beforehand(data, tmp_path):
    asked, steps = Asked(), []
    teacher = Remembering(asked, tmp_path / "answers.bin")
    teacher.ask(data, net(), progress=steps.append)
    assert (asked.samples, steps[-1].done, steps[-1].total) == (48, 1, 1)
    torch.testing.assert_close(teacher(batch(data.tensors[0][5:30]))["sum"], data.tensors[0][5:30].sum(1))
    assert asked.samples == 48


def test_another_training_takes_over_the_file_and_drops_a_last_record_that_is_not_whole(data, tmp_path):
    path, x = tmp_path / "answers.bin", data.tensors[0]
    first = Remembering(Asked(), path)
    first(batch(x[:32]))
    record = 16 + 4 * (3 + 1)
    assert path.stat().st_size == 32 * record
    del first
    path.write_bytes(path.read_bytes()[: 31 * record + 5])
    asked = Asked()
    second = Remembering(asked, path)
    torch.testing.assert_close(second(batch(x[:8]))["logits"], Asked()(batch(x[:8]))["logits"])
    said = second(batch(x[:40]))
    torch.testing.assert_close(said["logits"], Asked()(batch(x[:40]))["logits"])
    assert asked.samples == 8 + 9  # The first batch shows the form of answers; then sample 31 and eight new ones.
    assert path.stat().st_size == 40 * record


def test_the_file_stays_below_its_limit_and_answers_stay_right(data, tmp_path):
    path, x, asked = tmp_path / "answers.bin", data.tensors[0], Asked()
    teacher = Remembering(asked, path, limit_bytes=10 * 32)
    for _ in range(2):
        torch.testing.assert_close(teacher(batch(x))["logits"], Asked()(batch(x))["logits"])
    assert path.stat().st_size == 10 * 32
    assert asked.samples == 48 + 38


def test_a_second_writer_reads_and_does_not_write(data, tmp_path):
    path, x = tmp_path / "answers.bin", data.tensors[0]
    first, second = Remembering(Asked(), path), Remembering(Asked(), path)
    first(batch(x[:8]))
    torch.testing.assert_close(second(batch(x[:16]))["sum"], x[:16].sum(1))
    torch.testing.assert_close(second(batch(x[:16]))["sum"], x[:16].sum(1))
    assert path.stat().st_size == 8 * 32


def test_a_student_of_remembered_answers_is_the_student_of_the_teacher(data, tmp_path):
    teacher = net(16)
    config = DistillConfig(fit=FIT)
    plain = distill(net(), teacher, data, tasks.classification(), config).model
    remembering = Remembering(teacher, tmp_path / "answers.bin")
    kept = distill(net(), remembering, data, tasks.classification(), config).model
    for a, b in zip(plain.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_unlabelled_samples_teach_by_the_teacher_alone(data):
    ours, theirs = net().eval(), net(16).eval()
    both = Unlabelled(data, TensorDataset(*data.tensors), bare=False)
    assert len(both) == 96
    assert [int(both[index][1]) for index in (0, 48)] == [int(data[0][1]), -100]
    x = data.tensors[0][:6]
    target = torch.tensor([0, 1, 2, -100, -100, -100])
    config = DistillConfig(fit=FIT, hard=0.5, soft=0.0, loss="dkd", feature=0.0)
    objective = distillation_objective(theirs, tasks.classification(), config, unlabelled=True)
    with torch.no_grad():
        logits = ours(x).double().numpy()
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = -0.5 * np.log(p[np.arange(3), [0, 1, 2]]).mean()
        assert objective(ours, Batch((x,), {}, target)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_a_batch_without_any_label_gives_a_finite_loss(data, loss):
    inputs = list(data.tensors[0])
    both = Unlabelled(TensorDataset(data.tensors[0][:4], data.tensors[1][:4]), inputs, bare=True)
    result = distill(net(), net(16), both, tasks.classification(), DistillConfig(fit=FIT, loss=loss))
    assert result.history[-1].loss < result.history[0].loss
    assert digest_of(result.model) != digest_of(net())
