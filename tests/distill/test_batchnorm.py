from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.distill import reestimate_batchnorm
from edgekit.errors import DataError
from edgekit.workload import Batch, digest_of


def test_statistics_are_the_averages_over_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)).train()
    model[1].running_mean.fill_(7.0)
    before = digest_of(model)
    inputs = [torch.randn(8, 3, 6, 6) + index for index in range(3)]
    fresh = reestimate_batchnorm(model, [Batch((x,), {}, None) for x in inputs])
    with torch.no_grad():
        seen = [model[0](x).double().numpy() for x in inputs]
    mean = np.mean([x.mean(axis=(0, 2, 3)) for x in seen], axis=0)
    variance = np.mean([x.var(axis=(0, 2, 3), ddof=1) for x in seen], axis=0)
    assert fresh[1].running_mean.numpy() == pytest.approx(mean, rel=1e-4, abs=1e-6)
    assert fresh[1].running_var.numpy() == pytest.approx(variance, rel=1e-4)
    assert digest_of(model) == before
    assert model.training
    assert not any(module.training for module in fresh.modules())
    assert fresh[1].momentum == model[1].momentum


def test_a_model_without_batchnorm_is_copied():
    model = nn.Linear(2, 2)
    assert digest_of(reestimate_batchnorm(model, [])) == digest_of(model)


def test_no_batch_is_an_error():
    with pytest.raises(DataError, match="no batch"):
        reestimate_batchnorm(nn.BatchNorm1d(2), [])


def test_layers_that_are_not_chosen_normalize_by_what_they_have():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        model[0].running_mean.fill_(2.0)
    x = torch.randn(64, 3)
    fresh = reestimate_batchnorm(model, [Batch((x,), {}, None)], chosen=lambda name: name == "2")
    assert torch.equal(fresh[0].running_mean, model[0].running_mean)
    assert int(fresh[0].num_batches_tracked) == 0
    with torch.no_grad():
        seen = model[1](model[0](x))
    torch.testing.assert_close(fresh[2].running_mean, seen.mean(0))
    torch.testing.assert_close(fresh[2].running_var, seen.var(0))
