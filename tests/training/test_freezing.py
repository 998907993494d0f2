"""What stays as it is, what moves more slowly, and when a training ends early."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.errors import TrainingError
from edgekit.training import FitConfig, fit

PLAIN = {"precision": "fp32", "channels_last": False, "threads": 1, "workers": 0}


def config(**changes):
    return FitConfig(**{"epochs": 2, "batch_size": 16, "learning_rate": 0.1, **PLAIN, **changes})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_and_their_statistics_keep_every_bit(net, blobs, objective, optimizer):
    for part in net[:2]:
        part.requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = fit(net, blobs, objective, config(optimizer=optimizer), evaluate=lambda _model: 0.0)
    after = result.model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(("0.", "1."))}
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} < same
    assert [p.requires_grad for p in result.model.parameters()] == [p.requires_grad for p in net.parameters()]


def test_batchnorm_that_is_trained_moves_its_statistics(net, blobs, objective):
    net[0].requires_grad_(requires_grad=False)
    after = fit(net, blobs, objective, config()).model
    assert not torch.equal(after[1].running_mean, net[1].running_mean)


def test_a_step_of_sgd_is_scaled_by_the_factor_of_its_parameter():
    torch.manual_seed(0)
    data = [(torch.randn(3), torch.tensor([1.0]))] * 4
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    settings = config(epochs=2, batch_size=4, schedule="cosine", weight_decay=0.0, momentum=0.0)

    def moved(rates):
        # Of two steps the second is at the end of its schedule, where the rate is 0.
        after = fit(model, data, lambda m, x: ((x.call(m) - x.target) ** 2).mean(), settings, rates=rates).model
        return {name: value - dict(model.named_parameters())[name].data for name, value in after.state_dict().items()}

    plain, scaled = moved(None), moved({"0.weight": 0.25, "0.bias": 0.5, "1.weight": 0.0})
    for name, factor in {"0.weight": 0.25, "0.bias": 0.5, "1.weight": 0.0, "1.bias": 1.0, "2.weight": 1.0}.items():
        torch.testing.assert_close(scaled[name], factor * plain[name], rtol=1e-3, atol=1e-7)
        assert plain[name].abs().max() > 0


def test_without_a_better_metric_for_long_enough_it_ends_with_the_best_weights(net, blobs, objective, digest):
    scores, seen = iter([1.0, 4.0, 3.0, 4.0, 2.0, 9.0]), []

    def evaluate(model):
        seen.append(digest(model))
        return next(scores)

    result = fit(net, blobs, objective, config(epochs=6, keep="best", patience=3), evaluate=evaluate)
    assert [entry.metric for entry in result.history] == [1.0, 4.0, 3.0, 4.0, 2.0]
    assert result.steps == 5 * 6
    assert digest(result.model) == seen[1]


def test_patience_counts_evaluations_across_an_interruption(net, blobs, objective, digest, tmp_path):
    settings = config(epochs=8, keep="best", patience=2, evaluate_every=2)
    values = [1.0, 5.0, 3.0, 4.0]
    first = iter(values)
    unbroken = fit(net, blobs, objective, settings, evaluate=lambda _model: next(first))
    calls = []

    def stops(model, batch):
        calls.append(1)
        if len(calls) == 4 + 6 * 4 + 2:  # Four steps measure; then in the fifth epoch.
            raise KeyboardInterrupt
        return objective(model, batch)

    path, left = tmp_path / "fit.pt", iter(values)
    with pytest.raises(KeyboardInterrupt):
        fit(net, blobs, stops, settings, checkpoint=path, evaluate=lambda _model: next(left))
    resumed = fit(net, blobs, objective, settings, checkpoint=path, evaluate=lambda _model: next(left))
    assert [entry.metric for entry in resumed.history] == [None, 1.0, None, 5.0, None, 3.0, None, 4.0]
    assert digest(resumed.model) == digest(unbroken.model)


def test_patience_needs_something_to_wait_for(net, blobs, objective):
    with pytest.raises(TrainingError, match="patience is 3"):
        fit(net, blobs, objective, config(patience=3))
    with pytest.raises(TrainingError, match="patience is 0"):
        config(patience=0)
    with pytest.raises(TrainingError, match="evaluate_every is 0"):
        config(evaluate_every=0)


def test_a_checkpoint_with_other_frozen_parts_or_rates_is_refused(net, blobs, objective, tmp_path):
    path = tmp_path / "fit.pt"
    fit(net, blobs, objective, config(epochs=1), checkpoint=path)
    with pytest.raises(TrainingError, match="belongs to another training"):
        fit(net, blobs, objective, config(epochs=1), checkpoint=path, rates={"0.weight": 0.5})
    net[0].requires_grad_(requires_grad=False)
    with pytest.raises(TrainingError, match="belongs to another training"):
        fit(net, blobs, objective, config(epochs=1), checkpoint=path)
