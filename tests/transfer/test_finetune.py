"""Fine-tuning from end to end: what is trained, what is kept, what is written, and that it goes on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import DataError, TrainingError
from edgekit.tasks import classification, imitation
from edgekit.transfer import FinetuneConfig, finetune, load_network
from edgekit.transfer.saved import save_network
from edgekit.validate import score_torch
from edgekit.workload import digest_of


def settings(fast, **changes):
    return FinetuneConfig(**{"fit": fast, "least_steps": 0, "evaluations": 4, "augment": "none", **changes})


def same(before, after, prefix):
    a, b = before.state_dict(), after.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a if name.startswith(prefix))


def test_a_new_head_learns_the_classes_of_the_data(workload, fast, tmp_path):
    done = finetune(workload, settings(fast), out=tmp_path)
    assert [phase.name for phase in done.phases] == ["probe", "all"]
    assert (done.head.name, done.outputs) == ("head", 4)
    assert (list(done.counts), sum(done.counts.values())) == (["0", "1", "2", "3"], 62)
    assert done.test.metric.value > 60
    assert not done.model.training
    assert all(p.requires_grad for p in done.model.parameters())
    scored = score_torch(done.model, workload.splits.test, classification()).metric.value
    assert done.test.metric.value == pytest.approx(scored)
    best = max(phase.metric for phase in done.phases)
    assert done.selection.metric.value == pytest.approx(best)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(json.dumps(done.to_dict()))
    text = (tmp_path / "report.md").read_text()
    assert "| probe |" in text
    assert "| stem … norm | " in text


def test_frozen_stages_keep_every_bit_and_the_rest_moves(workload, fast, tmp_path):
    start = workload.model()
    done = finetune(workload, settings(fast, method="full", freeze=2), out=tmp_path)
    assert same(start, done.model, ("stem", "norm", "first"))
    assert not same(start, done.model, "second.0.conv")
    assert not same(start, done.model, "second.0.norm.running_mean")
    assert done.frozen == 2
    (phase,) = done.phases
    assert phase.name == "from second"
    assert phase.trained == sum(p.numel() for p in [*done.model.second.parameters(), *done.model.head.parameters()])


def test_a_probe_changes_the_head_alone(workload, fast, tmp_path):
    done = finetune(workload, settings(fast, method="probe"), out=tmp_path)
    assert same(workload.model(), done.model, ("stem", "norm", "first", "second"))
    assert [phase.name for phase in done.phases] == ["probe"]
    assert done.frozen == 3


def test_gradual_unfreezing_goes_from_the_last_stage_to_the_first(workload, fast, tmp_path):
    done = finetune(workload, settings(fast, method="gradual"), out=tmp_path)
    assert [phase.name for phase in done.phases] == ["probe", "from second", "from first", "all"]
    trained = [phase.trained for phase in done.phases]
    assert trained == sorted(trained)
    epochs = [phase.details["epochs_done"] for phase in done.phases[1:]]
    assert epochs == pytest.approx([1, 1, 2], abs=0.4)


def test_weights_that_get_worse_are_not_kept(workload, fast, tmp_path):
    wild = replace(fast, optimizer="sgd", learning_rate=1e-12)
    done = finetune(workload, settings(wild), out=tmp_path)
    probed, trained = done.phases
    assert not trained.kept
    assert trained.metric <= probed.metric
    assert done.selection.metric.value == pytest.approx(probed.metric)
    weights = dict(workload.model().named_parameters())
    assert all(torch.equal(p, weights[n]) for n, p in done.model.named_parameters() if not n.startswith("head"))


def test_a_head_is_fitted_to_what_training_will_see(workload, fast, tmp_path):
    still = replace(fast, optimizer="sgd", learning_rate=1e-12, batch_size=62)
    start = workload.model()
    with torch.no_grad():
        start.norm.running_mean += 3  # Statistics of other data, far from these.
    done = finetune(replace(workload, factory=lambda: start), settings(still), out=tmp_path)
    images = torch.stack([workload.splits.train[index][0] for index in range(62)])
    labels = torch.tensor([int(workload.splits.train[index][1]) for index in range(62)])
    losses = []
    for training in (False, True):
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(done.model.train(training)(images), labels).item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    history = done.phases[1].details["history"]
    assert history[0]["loss"] == pytest.approx(losses[0], rel=0.1)


class StoppedError(Exception):
    """Stands for a process that ends in the middle of a training."""


def test_the_same_call_goes_on_and_ends_with_the_same_weights(workload, fast, tmp_path):
    config = settings(fast, method="gradual", augment="shift", views=2)
    whole = finetune(workload, config, out=tmp_path / "whole")
    seen = []

    def stop_at(count):
        def progress(step):
            seen.append(step.work)
            if step.work.startswith("training") and sum(work.startswith("training") for work in seen) == count:
                raise StoppedError

        return progress

    for count in (1, 3):
        with pytest.raises(StoppedError):
            finetune(workload, config, out=tmp_path / "parts", progress=stop_at(count))
    seen.clear()
    parts = finetune(workload, config, out=tmp_path / "parts", progress=lambda step: seen.append(step.work))
    assert "features" not in seen
    assert digest_of(parts.model) == digest_of(whole.model)
    assert [phase.metric for phase in parts.phases] == [phase.metric for phase in whole.phases]
    seen.clear()
    finetune(workload, config, out=tmp_path / "parts", progress=lambda step: seen.append(step.work))
    assert set(seen) == {"scoring"}


def test_phases_share_the_time_that_there_is(workload, fast, tmp_path):
    ticks = itertools.count()
    config = settings(replace(fast, epochs=1000), method="gradual")
    done = finetune(workload, config, out=tmp_path, time_s=4.0, clock=lambda: next(ticks) * 0.01)
    seconds = [phase.seconds for phase in done.phases]
    assert sum(seconds) < 5.0
    assert all(phase.details["steps"] >= 1 for phase in done.phases[1:])
    assert seconds[-1] > max(seconds[:-1])


def test_few_shots_are_drawn_and_images_are_shifted(workload, fast, tmp_path):
    done = finetune(workload, settings(fast, shots=5, augment="auto", least_steps=4, views=3), out=tmp_path)
    assert list(done.counts.values()) == [5] * 4
    assert done.augmented == "shift"
    probed, trained = done.phases
    assert probed.details["features"] == 3 * 20
    assert trained.details["steps"] == 4


def test_a_head_that_is_not_the_last_word_is_trained_by_steps(workload, fast, tmp_path):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 3, 1)

        def forward(self, x):
            return self.head(torch.relu(self.body(x))).mean((2, 3))

    torch.manual_seed(0)
    net = Pooled()
    done = finetune(replace(workload, factory=lambda: net), settings(fast), out=tmp_path)
    assert [phase.name for phase in done.phases] == ["head", "all"]
    assert done.phases[0].trained == 6 * 4 + 4
    assert done.model(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_given_weights_are_where_it_starts(workload, fast, tmp_path):
    other = workload.model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    torch.save({**other.state_dict(), "head.weight": torch.ones(9, 8)}, tmp_path / "other.pt")
    config = settings(fast, method="probe")
    done = finetune(workload, config, out=tmp_path / "out", weights=tmp_path / "other.pt")
    assert same(other, done.model, ("stem", "norm", "first", "second"))
    assert done.fitting.other_shape == ("head.weight ([9, 8], here [3, 8])",)


def test_the_result_is_a_model_for_other_commands(workload, fast, tmp_path):
    project = tmp_path / "project.py"
    project.write_text(Path(__file__).with_name("conftest.py").read_text())
    done = finetune(workload, settings(fast), out=tmp_path / "out", reference=f"{project}:make_net")
    again = load_network(tmp_path / "out")
    assert digest_of(again) == digest_of(done.model)
    assert not again.training
    save_network(tmp_path / "other", nn.Linear(2, 2), reference=f"{project}:make_net")
    with pytest.raises(TrainingError, match="Missing key"):
        load_network(tmp_path / "other")
    with pytest.raises(TrainingError, match="cannot read"):
        load_network(tmp_path / "absent")


def test_what_cannot_be_is_refused_by_name(workload, fast, tmp_path):
    def fails(message, *, kind=TrainingError, load=workload, **changes):
        with pytest.raises(kind, match=message) as caught:
            finetune(load, settings(fast, **changes), out=tmp_path)
        return str(caught.value)

    fails(r"too few samples of 0 \(\d+\), 1", kind=DataError, shots=99)
    assert "stem … norm, first, second" in fails("freeze is 4", freeze=4)
    fails("has 3 outputs, the data 4 classes", keep_head=True)
    fails("the task is imitation", load=replace(workload, task=imitation()))
    splits = workload.splits
    few = torch.utils.data.TensorDataset(torch.randn(9, 1, 8, 8), torch.full((9,), 6))
    fails(
        "labels 6 of which the training data have none",
        kind=DataError,
        load=replace(workload, splits=replace(splits, test=few)),
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "lpft"}, "did you mean lp-ft?"),
        ({"decay": 0.0}, "decay is 0.0"),
        ({"decay": 1.5}, "above 0, at most 1"),
        ({"shots": 0}, "shots is 0"),
        ({"freeze": -1}, "freeze is -1"),
        ({"augment": "rotate"}, "one of auto, none, shift, mirror"),
    ],
)
def test_wrong_settings_are_named(changes, text):
    with pytest.raises(TrainingError, match=text):
        FinetuneConfig(**changes)
