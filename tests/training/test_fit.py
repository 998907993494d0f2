from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import TrainingError
from edgekit.training import FitConfig, fit

PLAIN = {"precision": "fp32", "channels_last": False, "threads": 1, "workers": 0}


def config(**changes):
    return FitConfig(**{"epochs": 2, "batch_size": 16, "learning_rate": 0.1, **PLAIN, **changes})


def accuracy(model, data):
    with torch.no_grad():
        return float((model(data.images).argmax(1) == torch.tensor(data.labels)).float().mean())


def test_training_learns_and_returns_a_new_eval_model(net, blobs, objective, digest):
    before = digest(net)
    net.train()
    result = fit(net, blobs, objective, config(epochs=6))
    assert digest(net) == before
    assert net.training
    assert not result.model.training
    assert accuracy(result.model, blobs) > 0.95
    assert (result.steps, result.epochs_done, len(result.history)) == (36, 6.0, 6)
    assert result.history[-1].loss < result.history[0].loss
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(net, blobs, objective, digest):
    digests = {digest(fit(net, blobs, objective, config(workers=workers)).model) for workers in (0, 0, 2)}
    assert len(digests) == 1
    assert digest(fit(net, blobs, objective, config(seed=1)).model) not in digests


def test_the_users_generators_are_left_alone(net, blobs, objective):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    fit(net, blobs, objective, config(epochs=1))
    assert torch.equal(torch.rand(2), expected)


def test_one_step_of_nesterov_sgd_is_that_of_the_formula():
    data = [(torch.tensor([2.0]), torch.tensor([1.0]))] * 4
    model = nn.Linear(1, 1)
    w, b = model.weight.item(), model.bias.item()
    settings = config(epochs=1, batch_size=4, schedule="cosine", learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    # A single step is at the end of its schedule; two steps show the first one's rate.
    result = fit(model, data, lambda m, x: ((x.call(m) - x.target) ** 2).mean(), settings).model
    assert result.weight.item() == w
    two = fit(model, data * 2, lambda m, x: ((x.call(m) - x.target) ** 2).mean(), settings).model
    gradient = 2 * (w * 2 + b - 1)
    # Nesterov's first step moves by (1 + momentum) times the gradient; only the 2-D weight decays.
    assert two.weight.item() == pytest.approx(w - 0.1 * 1.9 * (2 * gradient + 0.01 * w), rel=1e-4)
    assert two.bias.item() == pytest.approx(b - 0.1 * 1.9 * gradient, rel=1e-4)


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "learning_rate": 0.01}, {"clip_norm": 0.5}])
def test_other_settings_learn_too(net, blobs, objective, changes):
    assert accuracy(fit(net, blobs, objective, config(epochs=8, **changes)).model, blobs) > 0.9


def test_precision_and_layout_are_measured_or_taken_as_asked(net, blobs, objective):
    result = fit(net, blobs, objective, config(epochs=1, precision="auto", channels_last="auto", workers="auto"))
    assert result.choice.precision in ("fp32", "bf16")
    asked = fit(net, blobs, objective, config(epochs=4, precision="bf16", channels_last=True))
    assert (asked.choice.precision, asked.choice.channels_last) == ("bf16", True)
    assert accuracy(asked.model, blobs) > 0.8
    assert all(p.is_contiguous() for p in asked.model.parameters())


def test_a_loss_that_is_nan_ends_the_training_and_names_the_step(net, blobs):
    calls = []

    def explode(model, batch):
        calls.append(1)
        # The measurement of the choice takes four steps before the training proper.
        scale = math.nan if len(calls) == 4 + 5 else 1.0
        return batch.call(model).square().mean() * scale

    with pytest.raises(TrainingError) as caught:
        fit(net, blobs, explode, config())
    assert "the loss is nan at step 5 of 12" in str(caught.value)
    assert "lower the learning rate" in str(caught.value)


def test_evaluate_sees_an_eval_model_and_the_best_can_be_kept(net, blobs, objective, digest):
    scores = iter([1.0, 3.0, 2.0])
    seen = []

    def evaluate(model):
        assert not model.training
        seen.append(digest(model))
        torch.rand(1)
        return next(scores)

    result = fit(net, blobs, objective, config(epochs=3, keep="best"), evaluate=evaluate)
    assert [entry.metric for entry in result.history] == [1.0, 3.0, 2.0]
    assert digest(result.model) == seen[1]
    last = fit(net, blobs, objective, config(epochs=3))
    assert digest(last.model) == seen[2]


def test_progress_ticks_to_the_last_step(net, blobs, objective):
    ticks = []
    fit(net, blobs, objective, config(), progress=ticks.append)
    assert (ticks[-1].done, ticks[-1].total) == (12, 12)
    assert set(ticks[-1].figures) == {"loss", "lr", "images_per_s"}


class Clock:
    """Every look takes the same time, so that steps have a known duration."""

    def __init__(self, tick_s):
        self.now, self.tick_s = 0.0, tick_s

    def __call__(self):
        self.now += self.tick_s
        return self.now


def test_a_deadline_fits_the_schedule_into_it(net, blobs, objective):
    clock = Clock(0.1)
    result = fit(net, blobs, objective, config(epochs=1000), deadline_s=30.0, clock=clock)
    assert 25.0 < clock.now <= 31.0
    assert 20 < result.steps < 6000
    assert result.history[-1].learning_rate == pytest.approx(0.1 / 25 / 1e4)
    short = fit(net, blobs, objective, config(epochs=1), deadline_s=1e6)
    assert short.steps == 6


@pytest.mark.parametrize(("until", "ends"), [(0.5, (50.0, 62.0)), (0.0, (5.0, 40.0))])
def test_steps_that_become_faster_are_more_steps(net, blobs, monkeypatch, until, ends):
    """The first ones were slow: what is left over of the deadline is not given away."""
    monkeypatch.setattr(sys.modules["edgekit.training.fit"], "STRETCHED_UNTIL", until)
    clock = Clock(0.1)

    def hurried(model, batch):
        if clock.now > 5.0:
            clock.tick_s = 0.02
        return nn.functional.cross_entropy(batch.call(model), batch.target)

    result = fit(net, blobs, hurried, config(epochs=10_000), deadline_s=60.0, clock=clock)
    assert ends[0] < clock.now < ends[1]
    assert result.history[-1].learning_rate == pytest.approx(0.1 / 25 / 1e4)


def test_a_training_like_another_measures_nothing(net, blobs, objective, monkeypatch):
    first = fit(net, blobs, objective, config(epochs=1, precision="auto", channels_last="auto"))
    monkeypatch.setattr(sys.modules["edgekit.training.fit"], "choose", None)  # The package has a function of that name.
    other = config(epochs=2, precision="auto", channels_last="auto")
    assert fit(net, blobs, objective, other, like=first.choice).choice == first.choice
    bf16 = replace(first.choice, precision="bf16", threads=1)
    assert fit(net, blobs, objective, other, like=bf16).choice == bf16
    with pytest.raises(TypeError):
        fit(net, blobs, objective, other)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"optimizer": "adam"}, "optimizer is 'adam'"),
        ({"workers": -1}, "workers is -1"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"channels_last": "yes"}, "channels_last is 'yes'"),
    ],
)
def test_a_wrong_setting_is_named(changes, text):
    with pytest.raises(TrainingError, match=text):
        config(**changes)


def test_nothing_to_train_and_a_wrong_deadline(net, blobs, objective):
    with pytest.raises(TrainingError, match="no parameter requires a gradient"):
        fit(net.requires_grad_(requires_grad=False), blobs, objective, config())
    with pytest.raises(TrainingError, match="deadline_s is 0"):
        fit(net.requires_grad_(), blobs, objective, config(), deadline_s=0)


def test_several_inputs_and_recurrent_models():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, sequence, scale):
            out, _ = self.lstm(sequence * scale[:, None, None])
            return self.head(out[:, -1])

    rng = np.random.default_rng(0)
    data = [
        (torch.tensor(x, dtype=torch.float32), torch.tensor(1.0), int(x[:, 0].sum() > 0))
        for x in rng.normal(size=(64, 5, 3))
    ]
    model = Tagger()
    settings = config(epochs=20, optimizer="adamw", learning_rate=0.02, precision="auto", channels_last="auto")
    result = fit(model, data, lambda m, b: nn.functional.cross_entropy(b.call(m), b.target), settings)
    assert result.history[-1].loss < 0.4
    assert not result.choice.channels_last
